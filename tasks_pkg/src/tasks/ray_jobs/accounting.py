"""What became of every row that a job has read: used, left out by intent, or rejected."""

from collections.abc import Mapping
from typing import Any

#: What an account holds.
ACCOUNT = ("rows_read", "rows_used", "rows_filtered", "rows_rejected", "left_out")


def account(read: int, used: int, left_out: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """Give the account that a result has.

    Args:
        read: rows of the input.
        used: those that the result is made of.
        left_out: by reason, how many rows were left out, and the first of them, from 0.

    Returns:
        ``rows_read``, ``rows_used``, ``rows_filtered``, ``rows_rejected`` (none: a bad row ends
        the job) and ``left_out``: by reason ``rows`` and the ``first``, from 1.

    Raises:
        RuntimeError: a row is not accounted for. No answer is better than a wrong one.
    """
    filtered = sum(rows for rows, _ in left_out.values())
    if used + filtered != read:
        message = f"{read} rows were read, {used} used and {filtered} left out: the rest is missing"
        raise RuntimeError(message)
    return {
        "rows_read": read,
        "rows_used": used,
        "rows_filtered": filtered,
        "rows_rejected": 0,
        "left_out": [
            {"reason": reason, "rows": rows, "first": first + 1}
            for reason, (rows, first) in left_out.items()
            if rows
        ],
    }

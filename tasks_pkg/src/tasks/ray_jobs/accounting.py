"""The account of every row that a job has read: used, filtered out, or rejected."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from .protocol import InputProblemError

#: The keys of an account.
ACCOUNT = ("rows_read", "rows_used", "rows_filtered", "rows_rejected", "left_out", "rejected")
#: The most bad rows that an account lists.
SHOWN_REJECTS = 10
#: The largest share of bad rows in a file: with more, the file is not what the caller thinks, and
#: neither a model nor a sum of the rest is right.
MOST_REJECTED = 0.1


class Reject(Protocol):
    """A bad row, as readers report it (:class:`csv.parsing.Reject`)."""

    @property
    def row(self) -> int:
        """Return its number in the piece, from 0."""

    @property
    def column(self) -> str:
        """Return the column at fault; empty if the whole row is."""

    @property
    def reason(self) -> str:
        """What is wrong."""


@dataclass(frozen=True)
class First:
    """One of the first bad rows of a file: its number, from 0, and the reason."""

    row: int
    column: str
    reason: str


@dataclass
class Rejects:
    """The bad rows of one file that were put aside.

    Attributes:
        rows: their numbers in the file, from 0.
        first: the first of them.
    """

    rows: "array[int]" = field(default_factory=lambda: array("q"))
    first: list[First] = field(default_factory=list)

    def add(self, found: Sequence[Reject], before: int) -> None:
        """Add the bad rows of the next piece; ``before`` is the number of rows before it."""
        self.rows.extend(reject.row + before for reject in found)
        for reject in found[: SHOWN_REJECTS - len(self.first)]:
            self.first.append(First(reject.row + before, reject.column, reject.reason))

    def join(self, other: "Rejects", before: int) -> None:
        """Add the bad rows of the next part; ``before`` is the number of rows before it."""
        self.rows.extend(row + before for row in other.rows)
        for one in other.first[: SHOWN_REJECTS - len(self.first)]:
            self.first.append(First(one.row + before, one.column, one.reason))

    def require_few(self, file: Path, rows: int) -> None:
        """Refuse a file with too many bad rows; see :func:`require_few`."""
        if self.rows:
            require_few(file, len(self.rows), rows, self.first[0])


def require_few(file: Path, rejected: int, rows: int, first: First) -> None:
    """Refuse a file with too many bad rows.

    Raises:
        InputProblemError: tells how many rows are bad, and which is the first.
    """
    if rejected > MOST_REJECTED * rows:
        raise InputProblemError(
            "rows_invalid",
            f"{file}: {rejected} of {rows} rows are bad, and at most {MOST_REJECTED:.0%} of a file"
            f" may be put aside; the first, row {_shown(first)}.",
            "Say how the file is written (separator, encoding, schema), or correct it;"
            " process_large_csv puts aside any number.",
        )


def _shown(first: First) -> str:
    where = f"column {first.column!r}: " if first.column else ""
    return f"{first.row + 1}: {where}{first.reason}"


@dataclass
class _File:
    """A file that was read: the number of its first row over all files, and its number of rows."""

    path: Path
    start: int
    rows: int
    rejects: Rejects


class Rejected:
    """The bad rows of several files, in the files' order.

    Attributes:
        read: the number of all rows, including the bad ones.
    """

    def __init__(self) -> None:
        self.read = 0
        self._files: list[_File] = []

    @property
    def rows(self) -> "array[int]":
        """Return the bad rows' numbers over all files, from 0."""
        return array("q", (file.start + row for file in self._files for row in file.rejects.rows))

    def add(self, file: Path, used: int, rejects: Rejects | None = None) -> None:
        """Add a file: the number of used rows, and its rejected rows."""
        rejects = Rejects() if rejects is None else rejects
        rows = used + len(rejects.rows)
        self._files.append(_File(file, self.read, rows, rejects))
        self.read += rows

    def put_aside(self, faults: Mapping[int, tuple[str, str]]) -> None:
        """Reject rows with bad values: row number over all files to column and reason.

        Raises:
            InputProblemError: then a file has too many bad rows.
        """
        for file in self._files:
            here = [
                First(number - file.start, *fault)
                for number, fault in faults.items()
                if 0 <= number - file.start < file.rows
            ]
            if here:
                rows = sorted([*file.rejects.rows, *(one.row for one in here)])
                first = sorted([*file.rejects.first, *here], key=lambda one: one.row)
                file.rejects = Rejects(array("q", rows), first[:SHOWN_REJECTS])
                file.rejects.require_few(file.path, file.rows)

    def first(self) -> list[dict[str, Any]]:
        """Return the first bad rows as in an account: ``file``, ``row`` from 1, and the reason."""
        found = [
            {"file": str(file.path), "row": one.row + 1, "column": one.column, "reason": one.reason}
            for file in self._files
            for one in file.rejects.first
        ]
        return found[:SHOWN_REJECTS]

    def said(self) -> Iterator[str]:
        """Yield for each file a text about its rejected rows."""
        for file in self._files:
            if rejected := len(file.rejects.rows):
                yield (
                    f"{rejected} of {file.rows} rows of {file.path.name} were rejected (bad_rows),"
                    f" and are not in this result; the first, row {_shown(file.rejects.first[0])}."
                )


def account(
    read: int,
    used: int,
    left_out: Mapping[str, tuple[int, int]],
    rejected: Rejected | None = None,
) -> dict[str, Any]:
    """Return the account for a result.

    Args:
        read: the number of input rows.
        used: the number of rows that the result is made of.
        left_out: by reason, the number of rows left out, and the first of them, from 0.
        rejected: the rejected bad rows; None if a bad row ends the job.

    Returns:
        ``rows_read``, ``rows_used``, ``rows_filtered``, ``rows_rejected``; ``left_out``: by reason
        ``rows`` and the ``first``, from 1; ``rejected``: the first bad rows.

    Raises:
        RuntimeError: a row is missing from the account. No answer is better than a wrong one.
    """
    filtered = sum(rows for rows, _ in left_out.values())
    bad = 0 if rejected is None else len(rejected.rows)
    if used + filtered + bad != read:
        message = (
            f"{read} rows were read, {used} used, {filtered} left out and {bad} rejected: the rest"
            " is missing"
        )
        raise RuntimeError(message)
    return {
        "rows_read": read,
        "rows_used": used,
        "rows_filtered": filtered,
        "rows_rejected": bad,
        "left_out": [
            {"reason": reason, "rows": rows, "first": first + 1}
            for reason, (rows, first) in left_out.items()
            if rows
        ],
        "rejected": [] if rejected is None else rejected.first(),
    }

"""What became of every row that a job has read: used, left out by intent, or rejected."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from .protocol import InputProblemError

#: What an account holds.
ACCOUNT = ("rows_read", "rows_used", "rows_filtered", "rows_rejected", "left_out", "rejected")
#: Bad rows that an account names.
SHOWN_REJECTS = 10
#: A file of which more is bad is not what it was taken for: no model and no sum of the rest.
MOST_REJECTED = 0.1


class Reject(Protocol):
    """A bad row, as a reader tells of it (:class:`csv.parsing.Reject`)."""

    @property
    def row(self) -> int:
        """Its number in the piece, from 0."""

    @property
    def column(self) -> str:
        """The column at fault; empty where it is the row."""

    @property
    def reason(self) -> str:
        """What is wrong."""


@dataclass(frozen=True)
class First:
    """One of the first bad rows of a file: its number, from 0, and why it is one."""

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
        """Take those of the next piece, before which there were so many rows."""
        self.rows.extend(reject.row + before for reject in found)
        for reject in found[: SHOWN_REJECTS - len(self.first)]:
            self.first.append(First(reject.row + before, reject.column, reject.reason))

    def join(self, other: "Rejects", before: int) -> None:
        """Take those of the next part, before which there were so many rows."""
        self.rows.extend(row + before for row in other.rows)
        for one in other.first[: SHOWN_REJECTS - len(self.first)]:
            self.first.append(First(one.row + before, one.column, one.reason))

    def require_few(self, file: Path, rows: int) -> None:
        """Refuse a file of which too much is bad; see :func:`require_few`."""
        if self.rows:
            require_few(file, len(self.rows), rows, self.first[0])


def require_few(file: Path, rejected: int, rows: int, first: First) -> None:
    """Refuse a file of which too much is bad.

    Raises:
        InputProblemError: says how many rows are, and which is the first.
    """
    if rejected > MOST_REJECTED * rows:
        raise InputProblemError(
            "rows_invalid",
            f"{file}: {rejected} of {rows} rows are bad, and at most {MOST_REJECTED:.0%} of a file"
            f" may be put aside; the first, row {_told(first)}.",
            "Say how the file is written (separator, encoding, schema), or correct it;"
            " process_large_csv puts aside any number.",
        )


def _told(first: First) -> str:
    where = f"column {first.column!r}: " if first.column else ""
    return f"{first.row + 1}: {where}{first.reason}"


@dataclass
class _File:
    """A file that was read: the number of its first row over all files, and its rows in all."""

    path: Path
    start: int
    rows: int
    rejects: Rejects


class Rejected:
    """The bad rows of several files, in the order in which their rows count.

    Attributes:
        read: rows in all, these included.
    """

    def __init__(self) -> None:
        self.read = 0
        self._files: list[_File] = []

    @property
    def rows(self) -> "array[int]":
        """Return their numbers over all files, from 0."""
        return array("q", (file.start + row for file in self._files for row in file.rejects.rows))

    def add(self, file: Path, used: int, rejects: Rejects | None = None) -> None:
        """Take a file of which so many rows are used, and the others rejected."""
        rejects = Rejects() if rejects is None else rejects
        rows = used + len(rejects.rows)
        self._files.append(_File(file, self.read, rows, rejects))
        self.read += rows

    def put_aside(self, faults: Mapping[int, tuple[str, str]]) -> None:
        """Take rows that are bad by their values: by number over all files, column and reason.

        Raises:
            InputProblemError: too much of a file is bad then.
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
        """Return the first of them as an account has them: ``file``, ``row`` from 1, and why."""
        found = [
            {"file": str(file.path), "row": one.row + 1, "column": one.column, "reason": one.reason}
            for file in self._files
            for one in file.rejects.first
        ]
        return found[:SHOWN_REJECTS]

    def said(self) -> Iterator[str]:
        """Say of each file how many of its rows were put aside."""
        for file in self._files:
            if rejected := len(file.rejects.rows):
                yield (
                    f"{rejected} of {file.rows} rows of {file.path.name} were rejected (bad_rows),"
                    f" and are not in this result; the first, row {_told(file.rejects.first[0])}."
                )


def account(
    read: int,
    used: int,
    left_out: Mapping[str, tuple[int, int]],
    rejected: Rejected | None = None,
) -> dict[str, Any]:
    """Return the account that a result has.

    Args:
        read: rows of the input.
        used: those that the result is made of.
        left_out: by reason, how many rows were left out, and the first of them, from 0.
        rejected: bad rows that were put aside; none where one ends the job.

    Returns:
        ``rows_read``, ``rows_used``, ``rows_filtered``, ``rows_rejected``; ``left_out``: by reason
        ``rows`` and the ``first``, from 1; ``rejected``: the first bad rows.

    Raises:
        RuntimeError: a row is not accounted for. No answer is better than a wrong one.
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

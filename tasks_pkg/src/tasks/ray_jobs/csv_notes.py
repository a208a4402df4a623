"""What a reader of CSV had to decide, for the caller to know: column, first value, row, way out."""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from . import one_thread  # noqa: F401 - before polars

import polars as pl  # isort: skip

from . import csv_codes, csv_moments

_SHOWN = 60
#: Values of a column that show whether it seems to be of numbers or of dates.
_FEW = 64
_NUMBER = r"^[ \t]*[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][0-9+-]+)?$"
_DATE = (
    r"^[ \t]*(?:[0-9]{1,2}[./-][0-9]{1,2}[./-][0-9]{2,4}|[0-9]{4}[./-][0-9]{1,2}[./-][0-9]{1,2})\b"
)
_ISO = rf"^{csv_moments.DATE}(?:[T ].*)?$"


@dataclass(frozen=True, slots=True)
class Note:
    """A value that made its column text.

    Attributes:
        column: its name.
        kind: ``code`` where it looks like a number, ``date`` where it looks like a date.
        value: the value, as it was read.
        row: its row, from 0.
        file: where it is.
    """

    column: str
    kind: Literal["code", "date"]
    value: str
    row: int
    file: str = ""

    def said(self) -> str:
        """Give it as one of a result's warnings."""
        value = repr(self.value if len(self.value) <= _SHOWN else f"{self.value[:_SHOWN]}...")
        place = f"{self.file}, row {self.row + 1}"
        if self.kind == "code":
            return (
                f"column {self.column!r} is text: {value} ({place}) would not be written back as it"
                " was read if it were a number. Where it is one, declare it: schema"
                f" {{{self.column!r}: 'number'}} (of every task but process_new_data)."
            )
        return (
            f"column {self.column!r} is text: {value} ({place}) is no ISO 8601 date, and others can"
            " be read in more than one way. Write 2026-01-31."
        )


def notes(frame: pl.DataFrame, declared: Collection[str]) -> Iterator[Note]:
    """Look at the columns of text that nobody declared; rows count within ``frame``."""
    for column in frame:
        if column.dtype != pl.String or column.name in declared:
            continue
        few = column.head(_FEW).drop_nulls()
        if few.is_empty():
            few = column.drop_nulls().head(_FEW)
        few = few.filter(few != "")
        if few.is_empty():
            continue
        first = few[0]
        # A look at one value is enough for most columns of text.
        if re.match(_NUMBER, first) and few.str.contains(_NUMBER).all():
            yield from _first(column, "code", csv_codes.codes(column) | _long(column))
        elif re.match(_DATE, first) and few.str.contains(_DATE).all():
            odd = column.str.contains(_DATE) & ~column.str.contains(_ISO)
            yield from _first(column, "date", odd)


def _long(column: pl.Series) -> pl.Series:
    return column.str.contains(csv_codes.LONG)


def _first(column: pl.Series, kind: Literal["code", "date"], found: pl.Series) -> Iterator[Note]:
    row = found.fill_null(value=False).arg_max()
    if row is not None and found[row]:
        yield Note(column.name, kind, column[row], row)


class Notes:
    """The first note on each column, over the pieces of a file in their order.

    Args:
        file: what to call the file.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self._first: dict[str, Note] = {}

    def add(self, found: Iterable[Note], rows: int) -> None:
        """Take those of the next piece, before which there were ``rows`` rows."""
        for note in found:
            self._first.setdefault(note.column, replace(note, row=note.row + rows, file=self.file))

    def all(self) -> tuple[Note, ...]:
        """Give them."""
        return tuple(self._first.values())


def said(found: Iterable[Note]) -> list[str]:
    """Give the first note on each column, over the files in their order, as warnings."""
    first: dict[str, Note] = {}
    for note in found:
        first.setdefault(note.column, note)
    return [note.said() for note in first.values()]

"""What a reader of CSV had to decide, for the caller to know: column, first value, row, way out."""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from . import one_thread  # noqa: F401 - before polars

import polars as pl  # isort: skip

from . import csv_codes, csv_moments
from .csv_written import Written

_SHOWN = 60
#: Values of a column that show whether it seems to be of numbers or of dates.
_FEW = 64
_NUMBER = r"^[ \t]*[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][0-9+-]+)?$"
_GROUPS = "(?:[%s '\u2019\u00a0\u202f][0-9]{3})*"
_LOCAL = (
    r"^[ \t]*[+-]?[$€£¥]?[ ]?(?:[0-9]{1,3}(?:"
    rf"{_GROUPS % ','}(?:\.[0-9]+)?|{_GROUPS % '.'}(?:,[0-9]+)?)"
    r"|[0-9]+(?:[.,][0-9]+)?)[ ]?[$€£¥]?[ \t]*$"
)
_DATE = (
    r"^[ \t]*(?:[0-9]{1,2}[./-][0-9]{1,2}[./-][0-9]{2,4}|[0-9]{4}[./-][0-9]{1,2}[./-][0-9]{1,2})\b"
)
_ISO = rf"^{csv_moments.DATE}(?:[T ].*)?$"


Kind = Literal["code", "date", "number", "written"]


@dataclass(frozen=True, slots=True)
class Note:
    """A value that made its column text.

    Attributes:
        column: its name.
        kind: ``code`` where it looks like a number, ``date`` where it looks like a date,
            ``number`` where it looks like a number that is written otherwise; ``written`` of how
            the whole file is written, which is then the value.
        value: the value, as it was read.
        row: its row, from 0.
        file: where it is.
    """

    column: str
    kind: Kind
    value: str
    row: int
    file: str = ""

    def said(self) -> str:
        """Give it as one of a result's warnings."""
        if self.kind == "written":
            return f"{self.file} was read with {self.value}; the argument of that name decides."
        value = repr(self.value if len(self.value) <= _SHOWN else f"{self.value[:_SHOWN]}...")
        place = f"{self.file}, row {self.row + 1}"
        if self.kind == "code":
            return (
                f"column {self.column!r} is text: {value} ({place}) would not be written back as it"
                " was read if it were a number. Where it is one, declare it: schema"
                f" {{{self.column!r}: 'number'}}."
            )
        if self.kind == "number":
            return (
                f"column {self.column!r} is text: {value} ({place}) is no number as programs write"
                f" it. Where it is one, say how it is written: {_way_out(self.value)}."
            )
        return (
            f"column {self.column!r} is text: {value} ({place}) is no ISO 8601 date, and others can"
            " be read in more than one way. Say which it is, such as date_format '%d.%m.%Y' (or"
            " {column: format}), or write 2026-01-31."
        )


def _way_out(value: str) -> str:
    """Give the arguments that would read a number as it is written."""
    digits = value.strip().strip("+-$€£¥ ")
    if re.fullmatch(r"[0-9]{1,3}(,[0-9]{3})+", digits) and digits.count(",") == 1:
        return "thousands ',' or decimal ','"
    if re.fullmatch(r"[0-9]{1,3}([.,' \u2019\u00a0\u202f][0-9]{3})*", digits):
        sign = next((sign for sign in digits if not sign.isdigit()), ",")
        return f"thousands {sign!r}"
    point = "." if re.search(r"\.[0-9]*$", digits) else ","
    group = next((sign for sign in digits if not sign.isdigit() and sign != point), "")
    if group:
        return f"decimal {point!r} and thousands {group!r}"
    return "decimal ','" if point == "," else "thousands ','"


def of_file(path: Path, told: Sequence[str], said: Written, found: Written) -> list[Note]:
    """Give what of a file's writing was detected.

    Args:
        path: the file.
        told: what its beginning showed.
        said: what the caller said.
        found: what holds.
    """
    told = [*told, "decimal ','"] if said.decimal is None and found.decimal == "," else told
    return [Note("", "written", ", ".join(told), 0, path.name)] if told else []


def notes(frame: pl.DataFrame, declared: Collection[str], written: Written) -> Iterator[Note]:
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
            odd = column.str.contains(_DATE)
            if written.format_of(column.name) is None:
                odd &= ~column.str.contains(_ISO)
            yield from _first(column, "date", odd)
        elif re.match(_LOCAL, first) and few.str.contains(_LOCAL).all():
            odd = column.str.contains(_LOCAL) & ~column.str.contains(_NUMBER)
            yield from _first(column, "number", odd)


def _long(column: pl.Series) -> pl.Series:
    return column.str.contains(csv_codes.LONG)


def _first(column: pl.Series, kind: Kind, found: pl.Series) -> Iterator[Note]:
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
            here = replace(note, row=note.row + rows, file=self.file)
            self._first.setdefault(note.column or note.value, here)

    def all(self) -> tuple[Note, ...]:
        """Give them."""
        return tuple(self._first.values())


def said(found: Iterable[Note]) -> list[str]:
    """Give the first note on each column, over the files in their order, as warnings."""
    first: dict[str, Note] = {}
    for note in found:
        first.setdefault(note.column or note.value, note)
    return [note.said() for note in first.values()]

"""What a reader of CSV had to decide, for the caller to know: column, first value, row, way out."""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from .. import one_thread  # noqa: F401 - before polars

import polars as pl  # isort: skip

from . import codes as csv_codes
from . import datetimes as csv_datetimes
from . import wide as csv_wide
from .dialect import Written
from .files import CsvFile

_SHOWN = 60
#: Values of a column that show whether it seems to be of numbers or of dates.
_FEW = 64
#: A column is one of numbers, with some words, where this share of these are.
_SHARE = 0.9
#: A look at so many of them is enough for most columns of text.
_FIRST = 3
_NUMBER = r"^[ \t]*[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][0-9+-]+)?$"
_GROUPS = "(?:[%s '\u2019\u00a0\u202f][0-9]{3})*"
_LOCAL = (
    r"^[ \t]*[+-]?[$€£¥]?[ ]?[+-]?(?:[0-9]{1,3}(?:"
    rf"{_GROUPS % ','}(?:\.[0-9]+)?|{_GROUPS % '.'}(?:,[0-9]+)?)"
    r"|[0-9]+(?:[.,][0-9]+)?)[ \u00a0\u202f]?[$€£¥%]?[ \t]*$"
)
_DATE = (
    r"^[ \t]*(?:[0-9]{1,2}[./-][0-9]{1,2}[./-][0-9]{2,4}|[0-9]{4}[./-][0-9]{1,2}[./-][0-9]{1,2})"
    r"(?:[T ,]+[0-9]{1,2}:[0-9]{2}.*)?[ \t]*$"
)
#: What all of these begin with.
_BEGUN = r"^[ \t]*[+-]?[$€£¥]?[ ]?[+-]?\.?[0-9]"
_ISO = rf"^{csv_datetimes.DATE}(?:[T ].*)?$"


Kind = Literal["code", "date", "number", "word", "missing", "escape", "header", "written"]


#: What is said where a word among text is no value.
TAKEN = "counts as a missing value"
#: What is said of each kind.
_SAID: dict[Kind, str] = {
    "written": "{file} was read with {whole}; the argument of that name decides.",
    "header": (
        "{file}: its first line was taken for the header, and seems to be a row: a column is called"
        " {value}, and holds such values. If it is one, put a line of names above it."
    ),
    "missing": (
        f"column {{column}} is text: {{value}} ({{place}}) {TAKEN}. Where it is one, say what is"
        " missing: missing ['']."
    ),
    "escape": (
        "column {column}: {value} ({place}) was read with its quotes as others are, and a backslash"
        " stands in front of one. Where it takes away the quote's meaning, as Spark and MySQL have"
        " it, say so: escape '\\\\'."
    ),
    "word": (
        "column {column} is text: {value} ({place}) is no number, and most others are. Where it"
        " stands for a missing value, say so: missing, with {value} in it."
    ),
    "code": (
        "column {column} is text: {value} ({place}) would not be written back as it was read if it"
        " were a number. Where it is one, declare it: schema {{{column}: 'number'}}."
    ),
    "number": (
        "column {column} is text: {value} ({place}) is no number as programs write it. Where it is"
        " one, {way}."
    ),
    "date": (
        "column {column} is text: {value} ({place}) is no ISO 8601 date, and others can be read in"
        " more than one way. Say which it is, such as date_format '%d.%m.%Y' (or {{column:"
        " format}}), or write 2026-01-31."
    ),
}


@dataclass(frozen=True, slots=True)
class Note:
    """A value that made its column text, or was taken for none.

    Attributes:
        column: its name.
        kind: ``code`` where it looks like a number, ``date`` where it looks like a date,
            ``number`` where it looks like a number that is written otherwise, ``word`` where the
            others are numbers; ``missing`` where it is a word of a column of text that counts as
            missing; ``escape`` where backslashes stand before quotes; ``header`` where it is a
            name that seems to be a value; ``written`` of how the whole file is written, which is
            then the value.
        value: the value, as it was read.
        row: its row, from 0.
        file: where it is.
    """

    column: str
    kind: Kind
    value: str
    row: int
    file: str = ""

    @property
    def subject(self) -> tuple[str, str]:
        """Tell what it is about, of which the first note alone is said."""
        of_type = self.kind not in {"missing", "escape"}
        return self.column or f"{self.kind} {self.value}", "type" if of_type else self.kind

    def said(self) -> str:
        """Return it as one of a result's warnings."""
        return _SAID[self.kind].format(
            column=repr(self.column),
            value=repr(self.value if len(self.value) <= _SHOWN else f"{self.value[:_SHOWN]}..."),
            whole=self.value,
            place=f"{self.file}, row {self.row + 1}",
            file=self.file,
            way=_way_out(self.value),
        )


def _way_out(value: str) -> str:
    """Return what would read a number as it is written."""
    digits = value.strip().strip("+-$€£¥ \u00a0\u202f")
    if digits.endswith("%"):
        return "take the sign '%' out of the file"
    return f"say how it is written: {_arguments(value.strip(), digits)}"


def _arguments(value: str, digits: str) -> str:
    if re.match(_NUMBER, value):  # with blanks behind it
        return "decimal '.'"
    if found := re.fullmatch(r"[0-9]{1,3}([.,])[0-9]{3}", digits):
        return f"thousands {found[1]!r} or decimal {found[1]!r}"
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", digits):  # with a sign of money
        return "decimal '.'"
    if re.fullmatch(r"[0-9]{1,3}([.,' \u2019\u00a0\u202f][0-9]{3})*", digits):
        sign = next((sign for sign in digits if not sign.isdigit()), ",")
        return f"thousands {sign!r}"
    point = "." if re.search(r"\.[0-9]*$", digits) else ","
    group = next((sign for sign in digits if not sign.isdigit() and sign != point), "")
    if group:
        return f"decimal {point!r} and thousands {group!r}"
    return "decimal ','" if point == "," else "thousands ','"


def of_file(file: CsvFile, said: Written, found: Written) -> list[Note]:
    """Return what of a file's writing was detected, and whether it seems to have no header.

    Args:
        file: what its beginning showed.
        said: what the caller said.
        found: what holds.
    """
    told = list(file.told)
    if said.decimal is None and found.decimal == ",":
        told.append("decimal ','")
    name = file.path.name
    notes = [Note("", "written", ", ".join(told), 0, name)] if told else []
    return [*notes, Note("", "header", file.like_a_row, 0, name)] if file.like_a_row else notes


def notes(frame: pl.DataFrame, declared: Collection[str], written: Written) -> Iterator[Note]:
    """Look at the columns of text that nobody declared; rows count within ``frame``."""
    columns = [c for c in frame if c.dtype == pl.String and c.name not in declared]
    if len(columns) >= csv_wide.MANY:
        columns = csv_wide.but(columns, _FEW, _BEGUN)
    for column in columns:
        few = column.head(_FEW).drop_nulls()
        if few.is_empty():
            few = column.drop_nulls().head(_FEW)
        few = few.filter(few != "")
        if not few.is_empty():
            yield from _of_text(column, few, written)


def _of_text(column: pl.Series, few: pl.Series, written: Written) -> Iterator[Note]:
    """Look at a column of text, of which these are the first values."""
    if _seems(few, _NUMBER):
        codes = csv_codes.codes(column) | _long(column)
        if codes.any():
            yield from _first(column, "code", codes)
            return
        for note in _first(column, "word", ~column.str.contains(_NUMBER) & (column != "")):
            local = re.match(_LOCAL, note.value) is not None
            yield replace(note, kind="number") if local else note
    elif _seems(few, _DATE):
        odd = column.str.contains(_DATE)
        if written.format_of(column.name) is None:
            odd &= ~column.str.contains(_ISO)
        yield from _first(column, "date", odd)
    elif _seems(few, _LOCAL):
        odd = column.str.contains(_LOCAL) & ~column.str.contains(_NUMBER)
        yield from _first(column, "number", odd)


def escaped(columns: Collection[str], records: Iterable[Sequence[str]]) -> Note | None:
    """Return the first field that seems to be one with escaped quotes, read without."""
    for row, record in enumerate(records):
        for column, value in zip(columns, record, strict=False):
            if "\\" in value and '"' in value:
                return Note(column, "escape", value, row)
    return None


def words(column: pl.Series, missing: Collection[str]) -> Note | None:
    """Return the first word of a column of text that counts as missing."""
    found = column.is_in([word for word in missing if word])
    return next(_first(column, "missing", found), None)


def _seems(few: pl.Series, pattern: str) -> bool:
    """Say whether nearly all values are so written; a look at some is enough for most columns."""
    if not few.head(_FIRST).str.contains(pattern).any():
        return False
    return int(few.str.contains(pattern).sum()) >= _SHARE * len(few)


def _long(column: pl.Series) -> pl.Series:
    return column.str.contains(csv_codes.LONG)


def _first(column: pl.Series, kind: Kind, found: pl.Series) -> Iterator[Note]:
    row = found.fill_null(value=False).arg_max()
    if row is not None and found[row]:
        yield Note(column.name, kind, column[row], row)


class Notes:
    """The first note of each subject, over the pieces of a file in their order.

    Args:
        file: what to call the file.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self._first: dict[tuple[str, str], Note] = {}

    def add(self, found: Iterable[Note], rows: int) -> None:
        """Take those of the next piece, before which there were ``rows`` rows."""
        for note in found:
            here = replace(note, row=note.row + rows, file=self.file)
            self._first.setdefault(note.subject, here)

    def all(self) -> tuple[Note, ...]:
        """Return them."""
        return tuple(self._first.values())


def said(found: Iterable[Note]) -> list[str]:
    """Return the first note of each subject, over the files in their order, as warnings."""
    first: dict[tuple[str, str], Note] = {}
    for note in found:
        first.setdefault(note.subject, note)
    return [note.said() for note in first.values()]

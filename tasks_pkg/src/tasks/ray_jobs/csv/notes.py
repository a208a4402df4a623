"""Warnings about decisions of the CSV reader: each names column, first value, row and way out."""

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

_SHOWN_CHARS = 60
#: The number of rows that show whether a column seems to hold numbers or dates.
_FEW_ROWS = 64
#: A column seems to hold numbers (or dates) if this share of those rows does.
_SHARE = 0.9
#: If none of the first so many values fits, the others are not checked.
_FIRST_ROWS = 3
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
#: The beginning of any value that _NUMBER, _LOCAL or _DATE matches.
_BEGUN = r"^[ \t]*[+-]?[$€£¥]?[ ]?[+-]?\.?[0-9]"
_ISO = rf"^{csv_datetimes.DATE}(?:[T ].*)?$"


Kind = Literal["code", "date", "number", "word", "missing", "escape", "header", "written"]


#: The phrase for a word in a text column that counts as missing.
TAKEN = "counts as a missing value"
#: The message of each kind.
_SAID: dict[Kind, str] = {
    "written": "{file} was read with {whole}; the argument of that name decides.",
    "header": (
        "{file}: its first line was taken for the header, and seems to be a row: a column is called"
        " {value}, which looks like one of its values. If it is a row, put a line of names above"
        " it."
    ),
    "missing": (
        f"column {{column}} is text: {{value}} ({{place}}) {TAKEN}. If it is a real value, say"
        " that only the empty field is missing: missing ['']."
    ),
    "escape": (
        "column {column}: in {value} ({place}) a backslash precedes a quote, and was read as an"
        " ordinary character. If it escapes the quote, as Spark and MySQL write it, say so:"
        " escape '\\\\'."
    ),
    "word": (
        "column {column} is text: {value} ({place}) is no number, and most others are. If it"
        " stands for a missing value, say so: missing, with {value} in it."
    ),
    "code": (
        "column {column} is text: {value} ({place}) would not be written back as it was read if it"
        " were a number. If it is a number, declare it: schema {{{column}: 'number'}}."
    ),
    "number": (
        "column {column} is text: {value} ({place}) is no number as programs write it. If it is a"
        " number, {way}."
    ),
    "date": (
        "column {column} is text: {value} ({place}) is no ISO 8601 date, and other formats are"
        " ambiguous. Give the format, such as date_format '%d.%m.%Y' (or {{column: format}}), or"
        " write 2026-01-31."
    ),
}


@dataclass(frozen=True, slots=True)
class Note:
    """A value for which the reader took a decision that the caller should know.

    Attributes:
        column: the column's name; empty for notes on the whole file.
        kind: why. The value made its column text: ``code`` (looks like a number), ``date`` (looks
            like a date), ``number`` (a number in a local format), ``word`` (the others are
            numbers). ``missing``: a word in a text column counts as missing. ``escape``: a
            backslash precedes a quote. ``header``: a name looks like a value. ``written``: what
            was detected of the file's format, as the value.
        value: the value, as it was read.
        row: its row, counted from 0.
        file: the file's name.
    """

    column: str
    kind: Kind
    value: str
    row: int
    file: str = ""

    @property
    def subject(self) -> tuple[str, str]:
        """Return what the note is about; only the first note of each subject is reported."""
        of_type = self.kind not in {"missing", "escape"}
        return self.column or f"{self.kind} {self.value}", "type" if of_type else self.kind

    def said(self) -> str:
        """Return the note as a warning of a result."""
        return _SAID[self.kind].format(
            column=repr(self.column),
            value=repr(
                self.value if len(self.value) <= _SHOWN_CHARS else f"{self.value[:_SHOWN_CHARS]}..."
            ),
            whole=self.value,
            place=f"{self.file}, row {self.row + 1}",
            file=self.file,
            way=_way_out(self.value),
        )


def _way_out(value: str) -> str:
    """Return the advice by which a number in a local format would be read."""
    digits = value.strip().strip("+-$€£¥ \u00a0\u202f")
    if digits.endswith("%"):
        return "take the sign '%' out of the file"
    return f"say how it is written: {_arguments(value.strip(), digits)}"


def _arguments(value: str, digits: str) -> str:
    if re.match(_NUMBER, value):  # a plain number with trailing blanks
        return "decimal '.'"
    if found := re.fullmatch(r"[0-9]{1,3}([.,])[0-9]{3}", digits):
        return f"thousands {found[1]!r} or decimal {found[1]!r}"
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", digits):  # with a currency sign
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
    """Return notes on what was detected of a file's format, and on a header like a row.

    Args:
        file: the file, as its beginning shows it.
        said: what the caller said.
        found: how the file is read.
    """
    told = list(file.told)
    if said.decimal is None and found.decimal == ",":
        told.append("decimal ','")
    name = file.path.name
    notes = [Note("", "written", ", ".join(told), 0, name)] if told else []
    return [*notes, Note("", "header", file.like_a_row, 0, name)] if file.like_a_row else notes


def notes(frame: pl.DataFrame, declared: Collection[str], written: Written) -> Iterator[Note]:
    """Yield notes on the undeclared text columns; rows are counted within ``frame``."""
    columns = [c for c in frame if c.dtype == pl.String and c.name not in declared]
    if len(columns) >= csv_wide.MANY_COLUMNS:
        columns = csv_wide.but(columns, _FEW_ROWS, _BEGUN)
    for column in columns:
        few = column.head(_FEW_ROWS).drop_nulls()
        if few.is_empty():
            few = column.drop_nulls().head(_FEW_ROWS)
        few = few.filter(few != "")
        if not few.is_empty():
            yield from _of_text(column, few, written)


def _of_text(column: pl.Series, few: pl.Series, written: Written) -> Iterator[Note]:
    """Yield notes on a text column; ``few`` are its first values."""
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
    """Return a note on the first field that holds a backslash and a quote; None if none does."""
    for row, record in enumerate(records):
        for column, value in zip(columns, record, strict=False):
            if "\\" in value and '"' in value:
                return Note(column, "escape", value, row)
    return None


def words(column: pl.Series, missing: Collection[str]) -> Note | None:
    """Return a note on the first word of a text column that counts as missing."""
    found = column.is_in([word for word in missing if word])
    return next(_first(column, "missing", found), None)


def _seems(few: pl.Series, pattern: str) -> bool:
    """Return whether nearly all values match; for most columns the first few decide."""
    if not few.head(_FIRST_ROWS).str.contains(pattern).any():
        return False
    return int(few.str.contains(pattern).sum()) >= _SHARE * len(few)


def _long(column: pl.Series) -> pl.Series:
    return column.str.contains(csv_codes.LONG)


def _first(column: pl.Series, kind: Kind, found: pl.Series) -> Iterator[Note]:
    row = found.fill_null(value=False).arg_max()
    if row is not None and found[row]:
        yield Note(column.name, kind, column[row], row)


class Notes:
    """The first note of each subject, collected over the pieces of a file in order.

    Args:
        file: the file's name.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self._first: dict[tuple[str, str], Note] = {}

    def add(self, found: Iterable[Note], rows: int) -> None:
        """Add the notes of the next piece; ``rows`` is the number of rows before it."""
        for note in found:
            here = replace(note, row=note.row + rows, file=self.file)
            self._first.setdefault(note.subject, here)

    def all(self) -> tuple[Note, ...]:
        """Return the notes."""
        return tuple(self._first.values())


def said(found: Iterable[Note]) -> list[str]:
    """Return the first note of each subject as warnings, over the files in order."""
    first: dict[tuple[str, str], Note] = {}
    for note in found:
        first.setdefault(note.subject, note)
    return [note.said() for note in first.values()]

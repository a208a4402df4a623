"""Turn one piece of a CSV file into a table: each record is in the table, rejected, or an error.

Polars parses a regular piece. An irregular one (stray quotes, blank lines, a record with too few
or too many fields, bytes that are no text) goes record by record through Python's :mod:`csv`. The
sound records are then written out again and parsed by polars too, so that both ways give the same
values.
"""

import codecs
import csv
import io
import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from .. import one_thread  # noqa: F401 - before polars

import polars as pl  # isort: skip
import numpy as np

from ..inputs.sources import require_column
from . import codes as csv_codes
from . import datetimes as csv_datetimes
from . import notes as csv_notes
from . import numbers as csv_numbers
from . import wide as csv_wide
from .byte_ranges import LF, RECORD_LIMIT_BYTES, SLICE_ITEMS, Piece, last_record, toggles
from .dialect import PLAIN, Written, has_time
from .files import MISSING
from .notes import Note

#: The types that are tried, in this order, for a column without a declared type.
INFERRED: tuple[pl.DataType, ...] = (
    pl.Int64(),
    pl.Float64(),
    pl.Boolean(),
    pl.Date(),
    csv_datetimes.NAIVE,
    csv_datetimes.ZONED,
)

_WORDS = {
    pl.Int64(): "a 64-bit whole number",
    pl.Float64(): "a number",
    pl.Boolean(): "true or false",
    pl.Date(): "a date such as 2026-01-31",
    csv_datetimes.NAIVE: "a date and time such as 2026-01-31T23:59:00",
}
#: The part of the sample that the types are guessed from first.
FEW_BYTES = 32 << 10
_SHOWN_CHARS = 60
#: Python's csv module quotes a value that holds a CR only if the line end holds one too.
_LINE_END = "\r\n"


@dataclass(frozen=True, slots=True)
class Reject:
    """One record that cannot be used.

    Attributes:
        row: its number in the piece, from 0; blank lines do not count.
        column: the column at fault; empty if the whole record is.
        reason: what is wrong.
        record: its fields.
    """

    row: int
    column: str
    reason: str
    record: Sequence[str | None]

    def as_row(self) -> dict[str, str | int]:
        """Return the record as a row of the rejects file."""
        return {
            "row": self.row,
            "column": self.column,
            "reason": self.reason,
            "record": json.dumps(list(self.record), ensure_ascii=False),
        }


@dataclass(frozen=True)
class Form:
    """What a file's records look like.

    Attributes:
        schema: type by column, in the order of the columns; Null if no value was seen yet.
        declared: columns whose type the caller gave; others are widened when a value needs it.
        missing: the texts that stand for a missing value.
        separator: the character between fields.
        quick: whether to look for missing values after parsing, see :func:`quick`.
        written: how the file is written.
        only: the columns to parse; None: all. The others are declared text. See
            :meth:`narrowed`.
        asked: the columns of ``only`` that the caller asked for: all but perhaps the last.
        reject: whether a bad record goes to the rejects file; if not, it ends the job.
    """

    schema: Mapping[str, pl.DataType]
    declared: frozenset[str]
    missing: tuple[str, ...]
    separator: str = ","
    quick: bool = False
    written: Written = PLAIN
    only: frozenset[str] | None = None
    asked: frozenset[str] = frozenset()
    reject: bool = False

    def of(self, written: Written) -> "Form":
        """Return the form for files written in another way."""
        return replace(self, separator=written.separator or ",", written=written)

    def require_formats(self, columns: Sequence[str], where: str) -> None:
        """Refuse a ``date_format`` for a column that does not exist."""
        if isinstance(self.written.date_format, Mapping):
            for name in self.written.date_format:
                require_column(name, columns, "date_format", where)

    def narrowed(self, wanted: Collection[str], columns: Sequence[str]) -> "Form":
        """Return the form for some columns; the last is always parsed, to detect short records."""
        others = {name: pl.String() for name in columns if name not in wanted}
        only = None if set(others) <= {columns[-1]} else frozenset([*wanted, columns[-1]])
        schema = {**self.schema, **others}
        declared = self.declared | set(others)
        return replace(self, schema=schema, declared=declared, only=only, asked=frozenset(wanted))

    def _positions(self, schema: Mapping[str, pl.DataType]) -> list[int] | None:
        if self.only is None:
            return None
        return [number for number, name in enumerate(schema) if name in self.only]

    @property
    def dtypes(self) -> dict[str, pl.DataType]:
        """Return the columns' types after parsing; integers if no value was seen yet."""
        return {name: _parsed(dtype) for name, dtype in self.schema.items()}

    @property
    def byte(self) -> int:
        """Return the separator's byte."""
        return ord(self.separator)

    def read(
        self, data: bytes, schema: Mapping[str, pl.DataType], *, lenient: bool = False
    ) -> pl.DataFrame:
        """Parse regular records; ``lenient``: a value not of its column's type becomes null."""
        if not data:
            return pl.DataFrame(schema={name: _parsed(dtype) for name, dtype in schema.items()})
        frame = pl.read_csv(
            _unmarked(data),
            has_header=False,
            schema=self._read(schema),
            columns=self._positions(schema),
            separator=self.separator,
            null_values=list(self.missing),
            empty_string_is_null="" in self.missing,
            ignore_errors=lenient,
        )
        return self._with_values(frame, schema, lenient=lenient)

    def _read(self, schema: Mapping[str, pl.DataType]) -> dict[str, pl.DataType]:
        """Return the types for polars' own reader; text for columns that are parsed by us."""
        local = self.written.is_local
        return {
            name: pl.String()
            if dtype.is_temporal() or (local and _parsed(dtype).is_numeric())
            else _parsed(dtype)
            for name, dtype in schema.items()
        }

    def _with_values(
        self, frame: pl.DataFrame, schema: Mapping[str, pl.DataType], *, lenient: bool = False
    ) -> pl.DataFrame:
        """Return a table, read with the types of :meth:`_read`, with its text columns parsed.

        These are dates, times and local numbers.

        Raises:
            ComputeError: a value is not of its column's type, and ``lenient`` is false.
        """
        if not self.written.is_local and not any(dtype.is_temporal() for dtype in schema.values()):
            return frame
        made = []
        dates = [c for c in frame if c.dtype == pl.String and schema[c.name] == pl.Date]
        many: dict[str, pl.Series] = {}
        if len(dates) >= csv_wide.MANY_COLUMNS and self.written.date_format is None:
            many = {column.name: column for column in csv_wide.each(csv_datetimes.dates, dates)}
        for text in frame:
            name, dtype = text.name, schema[text.name]
            if text.dtype != pl.String or dtype == pl.String:
                continue
            if not dtype.is_temporal():
                values = csv_numbers.numbers(text, _parsed(dtype), self.written)
            elif (format_ := self.written.format_of(name)) is not None:
                values = csv_datetimes.formatted(text, format_, _parsed(dtype))
            elif dtype == pl.Date:
                values = many[name] if many else csv_datetimes.dates(text)
            else:
                zone = None if name in self.declared else dtype == csv_datetimes.ZONED
                values = csv_datetimes.moments(text, zone)
            wrong = values.null_count() - text.null_count()
            # An empty field is no value of any type, as with numbers.
            if wrong and not lenient and wrong > (text == "").sum():
                message = f"column {name!r} has what is no {dtype}"
                raise pl.exceptions.ComputeError(message)
            made.append(values)
        return frame.with_columns(made)

    def parsed(self, data: bytes) -> tuple[pl.DataFrame, list[Note]]:
        """Parse regular records; every value must be of its column's type.

        Returns:
            The table, and notes on the words in text columns that became missing values.
        """
        words: list[Note] = []
        frame = self._quickly(data, words=words) if self.quick and data else None
        if frame is not None:
            return frame, words
        frame = self.read(data, self.schema)
        return frame, self.taken(frame, data)

    def taken(self, frame: pl.DataFrame, data: bytes) -> list[Note]:
        """Return notes on the words in text columns that became missing values.

        If the caller said what is missing, no notes are needed.
        """
        names = [c.name for c in frame if c.dtype == pl.String and c.null_count()]
        if not names or self.missing != MISSING:
            return []
        positions = [number for number, name in enumerate(self.schema) if name in names]
        text = pl.read_csv(
            _unmarked(data),
            has_header=False,
            schema=dict.fromkeys(self.schema, pl.String()),
            columns=positions,
            separator=self.separator,
        )
        found = (csv_notes.words(column, self.missing) for column in text)
        return [note for note in found if note is not None]

    def _quickly(
        self,
        data: bytes,
        unlooked: Collection[str] = frozenset(),
        words: list[Note] | None = None,
    ) -> pl.DataFrame | None:
        """Return the same table as :meth:`read`, faster; None if this way cannot parse it.

        Polars compares every field with every word that stands for a missing value, which takes
        a third of its time. Here only text columns are compared: in a column of numbers or dates
        such a word does not parse, or is the number NaN.

        Args:
            data: regular records.
            unlooked: text columns that are not compared; their words stay as they are.
            words: a list to which a note on the first such word of each text column is added.
        """
        try:
            frame = pl.read_csv(
                _unmarked(data),
                has_header=False,
                schema=self._read(self.schema),
                columns=self._positions(self.schema),
                separator=self.separator,
                empty_string_is_null="" in self.missing,
            )
            frame = self._with_values(frame, self.schema)
        except pl.exceptions.PolarsError:
            return None
        # One NaN makes the sum NaN. So do two opposite infinities, which read() handles as well.
        if any(math.isnan(column.sum()) for column in frame if column.dtype == pl.Float64):
            return None
        missing = list(self.missing)
        texts = [c for c in frame if c.dtype == pl.String and c.name not in unlooked]
        if len(texts) >= csv_wide.MANY_COLUMNS and not _holds(csv_wide.below(texts), missing):
            return frame
        holding = [text.name for text in texts if _holds(text, missing)]
        if words is not None and self.missing == MISSING:
            found = (csv_notes.words(frame[name], missing) for name in holding)
            words += [note for note in found if note is not None]
        return frame.with_columns(
            pl.when(~pl.col(name).is_in(missing)).then(pl.col(name)).alias(name) for name in holding
        )


def _unmarked(data: bytes) -> bytes:
    """Return data whose first record polars leaves intact, though it drops a byte order mark.

    A piece inside a file may begin with such a mark if the file was concatenated from others.
    """
    return codecs.BOM_UTF8 + data if data.startswith(codecs.BOM_UTF8) else data


def _parsed(dtype: pl.DataType) -> pl.DataType:
    """Return the type of a column's values after parsing."""
    if dtype == pl.Null:
        return pl.Int64()
    return csv_datetimes.NAIVE if dtype == csv_datetimes.ZONED else dtype


def _holds(text: pl.Series, words: Sequence[str]) -> bool:
    """Return whether a value is one of the words; compares lengths first, which is cheap."""
    lengths = text.str.len_bytes()
    by_length: dict[int, list[str]] = {}
    for word in words:
        by_length.setdefault(len(word.encode()), []).append(word)
    for length, alike in by_length.items():
        values = text.filter(lengths == length)
        if any((values == word).any() for word in alike):
            return True
    return False


@dataclass(frozen=True)
class Block:
    """A piece as a table.

    Attributes:
        frame: the sound records.
        rows: the number of all records; blank lines do not count.
        rejects: the bad records.
        needed: a wider type by column, for columns without a declared type in which a value does
            not fit the current one.
        notes: what the caller should know of its columns.
    """

    frame: pl.DataFrame
    rows: int
    rejects: list[Reject] = field(default_factory=list)
    needed: dict[str, pl.DataType] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)


def parse(piece: Piece, form: Form, *, strict: bool = False) -> Block:
    """Parse a piece.

    Args:
        piece: the piece.
        form: what its records look like.
        strict: whether to stop at the first record that does not fit, and to return only that one:
            a piece with one bad record may have a million.
    """
    if _is_plain(piece, len(form.schema)):
        if form.only is not None and form.quick and (block := _narrowly(piece, form)) is not None:
            return block
        try:
            frame, words = form.parsed(piece.data)
        except (pl.exceptions.PolarsError, UnicodeDecodeError):
            pass  # a record or a value does not fit: _parse_slowly finds out which
        else:
            if _is_whole(frame, piece, form):
                needed = _rewritten(frame, piece.data, form)
                noted = [] if needed else csv_notes.notes(frame, form.declared, form.written)
                return Block(frame, frame.height, needed=needed, notes=[*noted, *words])
    return _parse_slowly(piece.data, form, strict=strict)


def _narrowly(piece: Piece, form: Form) -> Block | None:
    """Parse some columns if none needs another type; return None if this way cannot decide.

    Numbers are read as text and then cast, which takes no longer. So codes are looked for in the
    few columns, and not in all bytes of the piece.
    """
    if form.written.is_local:  # a cast does not parse local numbers
        return None
    guessed = {
        name: dtype
        for name, dtype in form.dtypes.items()
        if dtype in {pl.Int64(), pl.Float64()} and name not in form.declared
    }
    texts = replace(form, schema={**form.schema, **dict.fromkeys(guessed, pl.String())})
    # A word for a missing number fails to cast, so number columns need no comparison. Nor does the
    # last column if the caller did not ask for it.
    words: list[Note] = []
    text = texts._quickly(piece.data, {*guessed, *form.declared - form.asked}, words)
    if text is None or not _is_whole(text, piece, texts):
        return None
    try:
        frame = text.with_columns(text[name].cast(dtype) for name, dtype in guessed.items())
    except pl.exceptions.PolarsError:
        return None
    for name, dtype in guessed.items():
        numbers = frame[name]
        if dtype == pl.Float64:
            total = numbers.sum()
            if not math.isfinite(total) or _is_large(numbers):
                return None
        if csv_codes.any_code(csv_codes.suspects(text[name], numbers)):
            return None
    noted = csv_notes.notes(frame, form.declared, form.written)
    return Block(frame, frame.height, notes=[*noted, *words])


def _is_plain(piece: Piece, width: int) -> bool:
    """Return whether polars and Python's csv module find the same records.

    Polars takes a blank line for a record. With two or more columns such a record lacks separators,
    which :func:`_is_whole` detects.
    """
    data = piece.data
    return (
        piece.regular
        and piece.closed
        and b"\0" not in data
        and (b"\r" not in data or data.count(b"\r") == data.count(b"\r\n"))
        and (width > 1 or not re.search(rb"\A[\r\n]|\n[\r\n]", data))
    )


def _is_whole(frame: pl.DataFrame, piece: Piece, form: Form) -> bool:
    """Return whether every record has as many fields as there are columns.

    Polars fills up a short record: its last column becomes null, or an empty text if empty fields
    are not missing. A long record is an error to polars if it reads all columns. If it reads only
    some, the separators are counted: in all, and then record by record.
    """
    last = frame.to_series(-1)
    filled = not last.null_count() and (last.dtype != pl.String or "" in form.missing)
    if filled and form.only is None:
        return True
    width = len(form.schema)
    if _separators(piece, form.byte) != frame.height * (width - 1):
        return False
    return form.only is None or filled or _are_even(piece, form.byte, width)


def _are_even(piece: Piece, separator: int, width: int) -> bool:
    """Return whether every record has ``width`` fields, by the separators before its end."""
    view = np.frombuffer(piece.data, np.uint8)
    marks = np.flatnonzero((view == separator) | (view == LF)).astype(np.int32)
    if len(piece.toggles):
        marks = marks[piece.toggles.searchsorted(marks) % 2 == 0]
    ends = np.flatnonzero(view[marks] == LF)
    if len(marks) and view[marks[-1]] != LF:  # the last record needs no newline
        ends = np.append(ends, len(marks))
    return not len(ends) or bool(ends[0] == width - 1 and (np.diff(ends) == width).all())


def _separators(piece: Piece, separator: int) -> int:
    """Return the number of separators outside quotes: a short record lacks some."""
    found = np.frombuffer(piece.data, np.uint8) == separator
    if not len(piece.toggles):
        return int(np.count_nonzero(found))
    number = 0
    for start in range(0, len(found), SLICE_ITEMS):
        at = (np.flatnonzero(found[start : start + SLICE_ITEMS]) + start).astype(np.int32)
        number += int(np.count_nonzero(piece.toggles.searchsorted(at) % 2 == 0))
    return number


def _parse_slowly(data: bytes, form: Form, *, strict: bool = False) -> Block:
    clean, numbers, rejects = _sound(data, len(form.schema), form.separator, strict=strict)
    rows = len(numbers) + len(rejects)
    if strict and rejects:
        return Block(form.read(b"", form.schema), rows, rejects)
    odd = list(_escaped(clean, form, numbers)) if b'\\"' in data else []
    try:
        frame = form.read(clean, form.schema)
        needed = _rewritten(frame, clean, form)
        noted = [*odd, *_noted(frame, form, numbers), *_at(form.taken(frame, clean), numbers)]
        return Block(frame, rows, rejects, needed, noted)
    except pl.exceptions.PolarsError:
        pass
    text = form.read(clean, dict.fromkeys(form.schema, pl.String()))
    frame = form.read(clean, form.schema, lenient=True)
    wrong = text.select(
        (pl.col(name) != "").fill_null(value=False) & frame[name].is_null()
        for name, dtype in form.schema.items()
        if dtype != pl.String
    )
    faulty = [name for name in wrong.columns if wrong[name].any()]
    needed = _rewritten(frame, text, form) | {
        name: narrowest(text[name], form) for name in faulty if name not in form.declared
    }
    taken = form.taken(frame, clean)
    at = numbers
    bad: dict[int, Reject] = {}
    for name in faulty:
        if name in form.declared:
            for row in wrong[name].arg_true().to_list():
                value = text[name][row]
                reason = f"{_short(value)} is not {_WORDS[form.schema[name]]}"
                bad.setdefault(row, Reject(numbers[row], name, reason, text.row(row)))
    if bad:
        keep = np.ones(frame.height, bool)
        keep[list(bad)] = False
        frame = frame.filter(pl.Series(keep))
        numbers = [number for number, kept in zip(numbers, keep, strict=True) if kept]
        rejects = sorted([*rejects, *bad.values()], key=lambda reject: reject.row)
    return Block(
        frame, rows, rejects, needed, [*odd, *_noted(frame, form, numbers), *_at(taken, at)]
    )


def _escaped(clean: bytes, form: Form, numbers: Sequence[int]) -> Iterator[Note]:
    records = csv.reader(io.StringIO(clean.decode(), newline=""), delimiter=form.separator)
    if (note := csv_notes.escaped(list(form.schema), records)) is not None:
        yield replace(note, row=numbers[note.row])


def _noted(frame: pl.DataFrame, form: Form, numbers: Sequence[int]) -> list[Note]:
    """Return notes on a table; ``numbers`` are the record numbers of its rows."""
    return _at(csv_notes.notes(frame, form.declared, form.written), numbers)


def _at(notes: Iterable[Note], numbers: Sequence[int]) -> list[Note]:
    return [replace(note, row=numbers[note.row]) for note in notes]


def _short(value: str) -> str:
    return repr(value if len(value) <= _SHOWN_CHARS else f"{value[:_SHOWN_CHARS]}...")


def _sound(
    data: bytes, width: int, separator: str, *, strict: bool = False
) -> tuple[bytes, list[int], list[Reject]]:
    """Rewrite the records that are text and have the right number of fields; reject the others."""
    csv.field_size_limit(max(csv.field_size_limit(), 2 * RECORD_LIMIT_BYTES))
    text = io.StringIO(data.decode(errors="surrogateescape"), newline="")
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=separator, lineterminator=_LINE_END)
    numbers: list[int] = []
    rejects: list[Reject] = []
    records = (record for record in csv.reader(text, delimiter=separator) if record)
    for number, record in enumerate(records):
        reason = _fault(record, width)
        if reason:
            fields = [f.encode(errors="surrogateescape").decode(errors="replace") for f in record]
            rejects.append(Reject(number, "", reason, fields))
            if strict:
                break
        else:
            numbers.append(number)
            writer.writerow(record)
    return out.getvalue().encode(), numbers, rejects


def _fault(record: Sequence[str], width: int) -> str:
    if len(record) != width:
        return f"{len(record)} {'field' if len(record) == 1 else 'fields'}, not {width}"
    for value in record:
        if "\0" in value:
            return "a NUL byte"
        if not value.isascii() and re.search("[\udc80-\udcff]", value):
            return "not UTF-8; where the whole file is not, say its encoding"
    return ""


# -- types of columns without a declared one -------------------------------------------------------


def _rewritten(
    frame: pl.DataFrame, source: bytes | pl.DataFrame, form: Form
) -> dict[str, pl.DataType]:
    """Return the number columns that must be text: two ids must not become the same number.

    Args:
        frame: the records, parsed.
        source: the same records as bytes, or as text columns.
        form: what they look like.
    """
    guessed = [
        name
        for name, dtype in form.schema.items()
        if dtype in {pl.Int64(), pl.Float64()} and name not in form.declared
    ]
    if not guessed:
        return {}
    fractions = [name for name in guessed if form.schema[name] == pl.Float64]
    large = {name for name in fractions if _is_large(frame[name])}
    if isinstance(source, bytes):
        closely = large or form.written.is_local
        if not closely and not csv_codes.may_hold(source, form.byte, frame, _whole(frame)):
            return {}
        source = form.read(source, dict.fromkeys(form.schema, pl.String()))
    texts = {name: _plain(source[name], form) for name in guessed}
    return {
        name: pl.String()
        for name in guessed
        if csv_codes.any_code(texts[name], frame[name])
        or (name in large and _loses_digits(texts[name]))
    }


def _whole(frame: pl.DataFrame) -> pl.Series:
    """Return the numbers of the rows in which a float is a whole number."""
    found = pl.repeat(value=False, n=0, dtype=pl.Boolean, eager=True)
    for numbers in frame:
        if numbers.dtype.is_float() and (here := numbers == numbers.floor()).any():
            found = found | here if len(found) else here
    return found.arg_true()


def _plain(text: pl.Series, form: Form) -> pl.Series:
    """Return numbers as programs write them."""
    return csv_numbers.plain(text, form.written) if form.written.is_local else text


def _is_large(numbers: pl.Series) -> bool:
    """Return whether a number is so large that floats no longer hold every integer (2**53)."""
    ends = cast("list[float]", [end for end in (numbers.min(), numbers.max()) if end is not None])
    return any(abs(end) >= 2.0**53 for end in ends)


def _loses_digits(text: pl.Series) -> bool:
    long = text.filter(text.str.contains(r"^[+-]?[0-9]{16,}$"))
    # More than 300 digits may become infinity, which int() refuses.
    return any(len(value) > 300 or int(float(value)) != int(value) for value in long)  # noqa: PLR2004


def narrowest(text: pl.Series, form: Form) -> pl.DataType:
    """Return the first type of :data:`INFERRED` that all values fit, or text."""
    values = text.drop_nulls()
    if values.is_empty():
        return pl.Null()
    column = _one_column(values)
    format_ = form.written.format_of(text.name)
    if format_ is not None:
        dtype: pl.DataType = csv_datetimes.NAIVE if has_time(format_) else pl.Date()
        if not csv_datetimes.formatted(values, format_, dtype).null_count():
            return dtype
    written = replace(form.written, date_format=None)
    plain = Form({}, frozenset(), (), written=written)
    for dtype in INFERRED:
        if dtype.is_temporal() and (
            format_ is not None or not values.str.contains(f"^{csv_datetimes.DATE}").all()
        ):
            continue  # an early exit: the parser below would take some MiB
        try:
            frame = plain.read(column, {form.separator: dtype})
        except pl.exceptions.PolarsError:
            continue
        numbers = frame.to_series()
        digits = _plain(values, form) if dtype.is_numeric() else values
        if dtype.is_numeric() and csv_codes.any_code(digits, numbers):
            continue
        if dtype == pl.Float64 and _is_large(numbers) and _loses_digits(digits):
            continue
        if not numbers.null_count():
            return dtype
    return pl.String()


def _one_column(values: pl.Series) -> bytes:
    text: str = values.str.join("\n").item()
    irregular = any(sign in text for sign in ',"\r') or (values == "").any()
    if irregular or text.count("\n") >= len(values):
        clean = io.StringIO(newline="")
        csv.writer(clean, lineterminator=_LINE_END).writerows([value] for value in values)
        text = clean.getvalue()
    return text.encode()


def quick(sample: bytes, form: Form) -> bool:
    """Return whether missing values may be looked for after parsing (see :meth:`Form._quickly`).

    That needs words that are no values of another type, and a sample that parses in this way.
    """
    if sample and not _is_plain(_piece(sample, form), len(form.schema)):
        # Some irregular records crash polars: a single quote, in version 2.1.
        sample, _, _ = _sound(sample, len(form.schema), form.separator)
    return bool(sample) and _no_word_is_a_value(form) and form._quickly(sample) is not None


def _no_word_is_a_value(form: Form) -> bool:
    """Return whether no word for a missing value is a value of another type; NaN may be one."""
    words = io.StringIO(newline="")
    writer = csv.writer(words, lineterminator=_LINE_END)
    writer.writerows([word] * len(INFERRED) for word in form.missing if word)
    types = {str(dtype): dtype for dtype in INFERRED}
    values = Form({}, frozenset(), ()).read(words.getvalue().encode(), types, lenient=True)
    return not any(
        value == value  # noqa: PLR0124 - false for NaN
        for column in values
        for value in column.drop_nulls()
    )


def fitted(sample: bytes, columns: Sequence[str], form: Form) -> Form:
    """Return ``form`` with types, as :func:`_fitted` does, and with the decimal mark.

    A comma is the decimal mark only if the caller gave no mark for decimals or thousands, if it
    does not separate fields, and if a column of numbers with commas allows no other reading.
    """
    found = _fitted(sample, columns, form)
    if form.written.decimal is not None or form.separator == "," or form.written.thousands:
        return found
    if not csv_numbers.has_decimal_comma(_text(sample, columns, form), found.schema):
        return found
    return _fitted(sample, columns, replace(form, written=replace(form.written, decimal=",")))


def _fitted(sample: bytes, columns: Sequence[str], form: Form) -> Form:
    """Return ``form`` with the types of all columns and the way to parse them, by a sample.

    All workers wait for this, so there is a fast path: types are guessed from the first
    :data:`FEW_BYTES`, and the whole sample is parsed with them. If that succeeds they are right,
    since the types tried before them did not even fit the first records. The fast path is not
    taken if an empty field is text: parsing one as a number or date does not fail.
    """
    few = sample[:FEW_BYTES]
    few = few[: last_record(few, toggles(few, form.byte)[0])]
    guess = replace(form, schema=infer(few, columns, form))
    settled = "" in form.missing and pl.Null() not in guess.schema.values()
    if settled and _no_word_is_a_value(form):
        piece = _piece(sample, form)
        frame = guess._quickly(sample) if _is_plain(piece, len(columns)) else None
        if frame is not None and not _rewritten(frame, sample, guess):
            return replace(guess, quick=True)
    form = replace(form, schema=infer(sample, columns, form))
    return replace(form, quick=quick(sample, form))


def infer(sample: bytes, columns: Sequence[str], form: Form) -> dict[str, pl.DataType]:
    """Return the columns' types by some records; Null for a column without a value.

    Args:
        sample: whole records.
        columns: all columns, in order.
        form: for separator, missing values and declared types.
    """
    text = _text(sample, columns, form)
    plain = form.written.date_format is None and not form.written.is_local
    known = csv_wide.plain_types(text) if plain else {}
    known |= {name: dtype for name, dtype in form.schema.items() if name in form.declared}
    return {name: known[name] if name in known else narrowest(text[name], form) for name in columns}


def _piece(sample: bytes, form: Form) -> Piece:
    marks, regular = toggles(sample, form.byte)
    return Piece(0, len(sample), sample, marks, regular, closed=len(marks) % 2 == 0)


def _text(sample: bytes, columns: Sequence[str], form: Form) -> pl.DataFrame:
    """Return the sound records of a sample as text columns."""
    piece = _piece(sample, form)
    strings = dict.fromkeys(columns, pl.String())
    if _is_plain(piece, len(columns)):
        try:
            text = form.read(sample, strings)
        except pl.exceptions.PolarsError:
            pass
        else:
            if _is_whole(text, piece, form):
                return text
    clean, _, _ = _sound(sample, len(columns), form.separator)
    return form.read(clean, strings)


def join(types: Iterable[pl.DataType]) -> pl.DataType:
    """Return the narrowest type that holds the values of all these types."""
    found = set(types) - {pl.Null()}
    if len(found) == 1:
        return found.pop()
    if found <= {pl.Int64(), pl.Float64()}:
        return pl.Float64()
    if found <= {pl.Date(), csv_datetimes.NAIVE}:
        return csv_datetimes.NAIVE
    return pl.String()

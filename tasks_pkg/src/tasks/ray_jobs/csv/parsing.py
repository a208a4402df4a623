"""Turns one piece of a CSV file into a table: every record is in it, rejected, or an error.

Polars parses a piece whose every field stands where it must. One that is irregular (stray quotes,
blank lines, a record with too few or too many fields, bytes that are no text) goes record by
record through Python's :mod:`csv`; what is sound is written out again and parsed by polars too,
so that both ways give the same values.
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
from .byte_ranges import LF, RECORD_LIMIT_BYTES, SLICE, Piece, last_record, toggles
from .dialect import PLAIN, Written, has_time
from .files import MISSING
from .notes import Note

#: Types that are tried in this order on a column that was given none.
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
#: Of the records that are looked at beforehand, those that show the types first.
FEW_BYTES = 32 << 10
_SHOWN = 60
#: Python's csv module quotes a value with a CR in it only where CR ends a line too.
_LINE_END = "\r\n"


@dataclass(frozen=True, slots=True)
class Reject:
    """One record that cannot be used.

    Attributes:
        row: its number in the piece, from 0; blank lines do not count.
        column: the column at fault; empty where it is the record.
        reason: what is wrong.
        record: its fields.
    """

    row: int
    column: str
    reason: str
    record: Sequence[str | None]

    def as_row(self) -> dict[str, str | int]:
        """Return it as a row of the rejects file."""
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
        schema: type by column, in the order of the columns; Null where no value was seen yet.
        declared: columns whose type the caller gave; others are widened when a value needs it.
        missing: what stands for a missing value.
        separator: the character between fields.
        written: how the rest is written.
        quick: whether to look for what stands for a missing value after parsing, see
            :func:`quick`.
        only: the columns to parse, None for all; the others are declared text. See
            :meth:`narrowed`.
        asked: of these, what the caller asked for: all but perhaps the last.
        reject: whether a bad record is put aside, rather than end the job.
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
        """Return the form of files that are written so."""
        return replace(self, separator=written.separator or ",", written=written)

    def require_formats(self, columns: Sequence[str], where: str) -> None:
        """Refuse a format of dates of a column that is not there."""
        if isinstance(self.written.date_format, Mapping):
            for name in self.written.date_format:
                require_column(name, columns, "date_format", where)

    def narrowed(self, wanted: Collection[str], columns: Sequence[str]) -> "Form":
        """Give the form for some of a file's columns; how long a record is, the last one tells."""
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
        """Return the columns' types as they are parsed: whole numbers until a value is seen."""
        return {name: _parsed(dtype) for name, dtype in self.schema.items()}

    @property
    def byte(self) -> int:
        """Return the separator's byte."""
        return ord(self.separator)

    def read(
        self, data: bytes, schema: Mapping[str, pl.DataType], *, lenient: bool = False
    ) -> pl.DataFrame:
        """Parse regular records; ``lenient`` makes missing what is not of its column's type."""
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
        """Return the types as which polars reads columns: text, where it reads them otherwise."""
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
        """Return a table that was read as :meth:`_read` says its dates, times and local numbers.

        Raises:
            ComputeError: a value is none, and it is not to be lenient.
        """
        if not self.written.is_local and not any(dtype.is_temporal() for dtype in schema.values()):
            return frame
        made = []
        dates = [c for c in frame if c.dtype == pl.String and schema[c.name] == pl.Date]
        many: dict[str, pl.Series] = {}
        if len(dates) >= csv_wide.MANY and self.written.date_format is None:
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
            # As with numbers, a field with nothing in it is never a value.
            if wrong and not lenient and wrong > (text == "").sum():
                message = f"column {name!r} has what is no {dtype}"
                raise pl.exceptions.ComputeError(message)
            made.append(values)
        return frame.with_columns(made)

    def parsed(self, data: bytes) -> tuple[pl.DataFrame, list[Note]]:
        """Parse regular records, of which every value must be of its column's type.

        Returns:
            The table, and the words that it takes for missing values.
        """
        words: list[Note] = []
        frame = self._quickly(data, words=words) if self.quick and data else None
        if frame is not None:
            return frame, words
        frame = self.read(data, self.schema)
        return frame, self.taken(frame, data)

    def taken(self, frame: pl.DataFrame, data: bytes) -> list[Note]:
        """Return the words that a table of these records took for missing values among text.

        None where the caller said what is missing: it is no surprise then.
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
        """Return the same as :meth:`read`, or nothing where this way cannot tell.

        Columns of text that are ``unlooked`` keep what stands for a missing value. ``words`` takes
        the first such word of each of the others.

        Polars compares every field with every word that stands for a missing value, which takes
        a third of its time. In a column of numbers or dates such a word does not parse, or is the
        number NaN; so it is enough to look into the columns of text.
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
        # One is enough to make the sum one; so do both infinities, and the other way reads these.
        if any(math.isnan(column.sum()) for column in frame if column.dtype == pl.Float64):
            return None
        missing = list(self.missing)
        texts = [c for c in frame if c.dtype == pl.String and c.name not in unlooked]
        if len(texts) >= csv_wide.MANY and not _holds(csv_wide.below(texts), missing):
            return frame
        holding = [text.name for text in texts if _holds(text, missing)]
        if words is not None and self.missing == MISSING:
            found = (csv_notes.words(frame[name], missing) for name in holding)
            words += [note for note in found if note is not None]
        return frame.with_columns(
            pl.when(~pl.col(name).is_in(missing)).then(pl.col(name)).alias(name) for name in holding
        )


def _unmarked(data: bytes) -> bytes:
    """Give what polars takes for records as they are: it drops a byte order mark in front of them.

    Which one of a file's pieces may have too, where files were put together.
    """
    return codecs.BOM_UTF8 + data if data.startswith(codecs.BOM_UTF8) else data


def _parsed(dtype: pl.DataType) -> pl.DataType:
    """Return the type of a column's values when they have been parsed."""
    if dtype == pl.Null:
        return pl.Int64()
    return csv_datetimes.NAIVE if dtype == csv_datetimes.ZONED else dtype


def _holds(text: pl.Series, words: Sequence[str]) -> bool:
    """Return whether a value is one of the words; by length first, which costs little."""
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
        rows: records in all; blank lines are none.
        rejects: the others.
        needed: for columns without a declared type that hold a value not of theirs: one that
            holds all.
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
        strict: a record that does not fit ends it, and is all that the block has: where one is
            wrong a million can be.
    """
    if _is_plain(piece, len(form.schema)):
        if form.only is not None and form.quick and (block := _narrowly(piece, form)) is not None:
            return block
        try:
            frame, words = form.parsed(piece.data)
        except (pl.exceptions.PolarsError, UnicodeDecodeError):
            pass  # somewhere a record or a value does not fit: find out which
        else:
            if _is_whole(frame, piece, form):
                needed = _rewritten(frame, piece.data, form)
                noted = [] if needed else csv_notes.notes(frame, form.declared, form.written)
                return Block(frame, frame.height, needed=needed, notes=[*noted, *words])
    return _parse_slowly(piece.data, form, strict=strict)


def _narrowly(piece: Piece, form: Form) -> Block | None:
    """Parse some columns, of which none needs another type; give nothing where this cannot tell.

    Numbers are read as text and made numbers then, which takes no longer: so the few columns are
    looked through for codes, and not all bytes of the piece.
    """
    if form.written.is_local:  # its numbers are no numbers to a cast
        return None
    guessed = {
        name: dtype
        for name, dtype in form.dtypes.items()
        if dtype in {pl.Int64(), pl.Float64()} and name not in form.declared
    }
    texts = replace(form, schema={**form.schema, **dict.fromkeys(guessed, pl.String())})
    # What stands for a missing number is no number, and shows itself; nobody asks for the last.
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
    """Return whether polars and Python's csv module see the same records.

    To polars a blank line is a record. With two columns or more it lacks separators, and so shows
    itself later.
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
    """Return whether no record is short.

    Polars fills such up with missing values, the last column always; text where an empty value is
    not missing with that. More fields than columns are an error to it, where it reads all columns;
    else they show themselves by their number, since none is short, or record by record.
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
    """Say whether every record has so many fields, by the separators before each record's end."""
    view = np.frombuffer(piece.data, np.uint8)
    marks = np.flatnonzero((view == separator) | (view == LF)).astype(np.int32)
    if len(piece.toggles):
        marks = marks[piece.toggles.searchsorted(marks) % 2 == 0]
    ends = np.flatnonzero(view[marks] == LF)
    if len(marks) and view[marks[-1]] != LF:  # the last record needs no newline
        ends = np.append(ends, len(marks))
    return not len(ends) or bool(ends[0] == width - 1 and (np.diff(ends) == width).all())


def _separators(piece: Piece, separator: int) -> int:
    """Count the separators outside quotes: short records lack some, and polars fills them up."""
    found = np.frombuffer(piece.data, np.uint8) == separator
    if not len(piece.toggles):
        return int(np.count_nonzero(found))
    number = 0
    for start in range(0, len(found), SLICE):
        at = (np.flatnonzero(found[start : start + SLICE]) + start).astype(np.int32)
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
    """Return what is to be known, by the numbers of the records that became the table's rows."""
    return _at(csv_notes.notes(frame, form.declared, form.written), numbers)


def _at(notes: Iterable[Note], numbers: Sequence[int]) -> list[Note]:
    return [replace(note, row=numbers[note.row]) for note in notes]


def _short(value: str) -> str:
    return repr(value if len(value) <= _SHOWN else f"{value[:_SHOWN]}...")


def _sound(
    data: bytes, width: int, separator: str, *, strict: bool = False
) -> tuple[bytes, list[int], list[Reject]]:
    """Write out the records that have the right number of fields and are text."""
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


# -- types of columns that were given none ---------------------------------------------------------


def _rewritten(
    frame: pl.DataFrame, source: bytes | pl.DataFrame, form: Form
) -> dict[str, pl.DataType]:
    """Return the columns of numbers that must be text: two ids must not become one number.

    Args:
        frame: the records, parsed.
        source: the same as they were read, or as text.
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
    """Return the numbers of the rows in which a fraction is a whole number."""
    found = pl.repeat(value=False, n=0, dtype=pl.Boolean, eager=True)
    for numbers in frame:
        if numbers.dtype.is_float() and (here := numbers == numbers.floor()).any():
            found = found | here if len(found) else here
    return found.arg_true()


def _plain(text: pl.Series, form: Form) -> pl.Series:
    """Return numbers as programs write them."""
    return csv_numbers.plain(text, form.written) if form.written.is_local else text


def _is_large(numbers: pl.Series) -> bool:
    """Return whether there is a number above which not every whole one is a 64-bit float."""
    ends = cast("list[float]", [end for end in (numbers.min(), numbers.max()) if end is not None])
    return any(abs(end) >= 2.0**53 for end in ends)


def _loses_digits(text: pl.Series) -> bool:
    long = text.filter(text.str.contains(r"^[+-]?[0-9]{16,}$"))
    # More than 300 digits are infinity, which is no whole number at all.
    return any(len(value) > 300 or int(float(value)) != int(value) for value in long)  # noqa: PLR2004


def narrowest(text: pl.Series, form: Form) -> pl.DataType:
    """Return the first of :data:`INFERRED` that all values have, or text."""
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
            continue  # at once: what is below needs some MiB for it
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
    """Say whether missing values can be looked for after parsing, and some records show no need."""
    if sample and not _is_plain(_piece(sample, form), len(form.schema)):
        # Polars itself dies of some: of a quote alone, in 2.1.
        sample, _, _ = _sound(sample, len(form.schema), form.separator)
    return bool(sample) and _no_word_is_a_value(form) and form._quickly(sample) is not None


def _no_word_is_a_value(form: Form) -> bool:
    """Return whether no word for a missing value is a value of some type, but for NaN."""
    words = io.StringIO(newline="")
    writer = csv.writer(words, lineterminator=_LINE_END)
    writer.writerows([word] * len(INFERRED) for word in form.missing if word)
    types = {str(dtype): dtype for dtype in INFERRED}
    values = Form({}, frozenset(), ()).read(words.getvalue().encode(), types, lenient=True)
    return not any(
        value == value  # noqa: PLR0124 - but for NaN
        for column in values
        for value in column.drop_nulls()
    )


def fitted(sample: bytes, columns: Sequence[str], form: Form) -> Form:
    """Return ``form`` with types, as :func:`_fitted` does, and the point of numbers.

    A comma is one only where the caller has not said otherwise, no comma separates fields, and
    every value of a column that has one can be nothing else than a number so written.
    """
    found = _fitted(sample, columns, form)
    if form.written.decimal is not None or form.separator == "," or form.written.thousands:
        return found
    if not csv_numbers.has_decimal_comma(_text(sample, columns, form), found.schema):
        return found
    return _fitted(sample, columns, replace(form, written=replace(form.written, decimal=",")))


def _fitted(sample: bytes, columns: Sequence[str], form: Form) -> Form:
    """Return ``form`` with the types of all columns, and with how to parse them, as records show.

    No worker has anything to do meanwhile, so that the types which a few records show are held
    against the others first: what is too narrow for these is too narrow for all. Not where an empty
    field is text, which numbers and dates are parsed from without a word.
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
    """Guess the columns' types from some records; Null where a column has no value.

    Args:
        sample: whole records.
        columns: all columns, in their order.
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
    """Return the sound records of some, without types."""
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

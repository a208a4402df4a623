"""Read one large CSV file in byte ranges, in parallel; each range holds whole records.

A split point may lie inside a quoted field, where a newline does not end a record. Each range
therefore guesses whether its split point is inside quotes. It looks at a window behind the point
and takes the assumption under which quotes stand only where RFC 4180 allows them. The range begins
with the first record after its split point. It ends where the first record at or behind the next
split point begins, by its own count of quotes.

:class:`Chain` then compares the beginning of every range with the end of the range before. The
first range begins where the file begins. So, if all ranges meet, all guesses were right. A range
that does not begin where the previous one ends is read again from the right offset.

This is the speculative parsing of Ge, Li, Eilebrecht, Chandramouli and Kossmann, "Speculative
Distributed CSV Data Parsing for Big Data Analytics", SIGMOD 2019. The check of all guesses makes it
exact.

Records are those of Python's :mod:`csv`: a quote opens a field only as its first character, a
doubled quote inside quotes is one quote, and the rest of a field after a closing quote is plain.
"""

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..protocol import InputProblemError

LF, CR, QUOTE = 10, 13, 34

#: The limit of a record's length, since a whole record is held in memory.
RECORD_LIMIT_BYTES = 16 << 20
#: The length of the window that a guess looks at, and of the first read beyond a range's end.
WINDOW_BYTES = 64 << 10
#: The number of bytes, or of quotes, that one numpy step handles. It limits memory: a range that
#: consists of quotes alone must not take a multiple of its size. It is even, so that in each slice
#: every other quote is an opening one.
SLICE_ITEMS = 1 << 18


@dataclass(frozen=True)
class Piece:
    """The whole records of one range.

    Attributes:
        start: offset of the first record in the file.
        end: offset behind the last record, where the next piece must start.
        data: the bytes between.
        toggles: offsets in ``data`` of the quotes that open or close a field.
        regular: whether quotes stand only where RFC 4180 allows them.
        closed: whether every quote that opens a field is closed again.
    """

    start: int
    end: int
    data: bytes
    toggles: NDArray[np.int32]
    regular: bool
    closed: bool = True


def split(start: int, size: int, count: int) -> list[tuple[int, int]]:
    """Cut the bytes from ``start`` to ``size`` into at most ``count`` ranges of equal length."""
    length = max(1, size - start)
    count = max(1, min(count, length))
    points = [start + length * i // count for i in range(count + 1)]
    return list(zip(points, [*points[1:-1], size], strict=False))


# -- quotes ----------------------------------------------------------------------------------------


def toggles(data: bytes, separator: int, *, inside: bool = False) -> tuple[NDArray[np.int32], bool]:
    """Find the quotes that open and close fields.

    Args:
        data: bytes that begin with a record, or behind a newline inside quotes.
        separator: the byte between fields.
        inside: whether ``data`` begins inside quotes.

    Returns:
        Their offsets, and whether all quotes stand where RFC 4180 allows them. If they do, a
        doubled quote counts as a closing and an opening one, which leads to the same records.
    """
    if QUOTE not in data:
        return np.empty(0, np.int32), True
    view = np.frombuffer(data, np.uint8)
    quotes = _quotes(view, data.count(QUOTE))
    if _fit(view, quotes, separator, int(inside)):
        return quotes, True
    return _exact(data, quotes, separator, inside=inside), False


def _quotes(view: NDArray[np.uint8], number: int) -> NDArray[np.int32]:
    """Return the offsets of all quotes; in slices, since numpy's offsets take eight bytes each."""
    quotes = np.empty(number, np.int32)
    filled = 0
    for at in range(0, len(view), SLICE_ITEMS):
        found = np.flatnonzero(view[at : at + SLICE_ITEMS] == QUOTE)
        quotes[filled : filled + len(found)] = found + at
        filled += len(found)
    return quotes


def _fit(view: NDArray[np.uint8], quotes: NDArray[np.int32], separator: int, first: int) -> bool:
    """Return whether quotes open and close fields in turn, beginning with number ``first``."""
    end = len(view) - 1
    for start in range(0, len(quotes), SLICE_ITEMS):
        here = quotes[start : start + SLICE_ITEMS]
        before = quotes[start - 1 : start - 1 + len(here)] if start else np.append(-2, here[:-1])
        after = quotes[start + 1 : start + 1 + len(here)]
        if len(after) < len(here):
            after = np.append(after, -2)
        opening, closing = here[first::2], here[1 - first :: 2]
        # An opening quote right behind a closing one is a doubled quote.
        may_open = (opening - before[first::2] == 1) | (opening == 0)
        may_open |= _bounds(view[np.maximum(opening - 1, 0)], separator)
        may_close = (after[1 - first :: 2] - closing == 1) | (closing == end)
        may_close |= _bounds(view[np.minimum(closing + 1, end)], separator)
        if not (may_open.all() and may_close.all()):
            return False
    return True


def _bounds(values: NDArray[np.uint8], separator: int) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (values == separator) | (values == LF) | (values == CR)
    return found


def _exact(
    data: bytes, quotes: NDArray[np.int32], separator: int, *, inside: bool
) -> NDArray[np.int32]:
    """Go through the quotes one by one, as Python's csv module does."""
    found = array("i")
    doubled = -1
    for start in range(0, len(quotes), SLICE_ITEMS):
        for at in quotes[start : start + SLICE_ITEMS].tolist():
            if at == doubled:
                doubled = -1
            elif inside and data[at + 1 : at + 2] == b'"':
                doubled = at + 1
            elif inside or at == 0 or data[at - 1] in {separator, LF, CR}:
                found.append(at)
                inside = not inside
    return np.array(found, np.int32)


def quotes_before(marks: NDArray[np.int32], at: int) -> int:
    """Return the number of quotes before an offset; the offset is inside quotes if it is odd."""
    # int32 as in `marks`: for an int64, numpy would convert all of `marks` first.
    return int(marks.searchsorted(np.int32(at)))


def _next_record(
    data: bytes, marks: NDArray[np.int32], begin: int, *, inside: bool = False
) -> int | None:
    """Return the start of the first record whose preceding newline is at ``begin`` or later."""
    while (at := data.find(b"\n", begin)) >= 0:
        passed = quotes_before(marks, at)
        if passed % 2 == int(inside):
            return at + 1
        if passed == len(marks):
            return None
        begin = int(marks[passed])  # where the quotes close
    return None


def last_record(data: bytes, marks: NDArray[np.int32]) -> int:
    """Return the end of the last complete record; 0 if there is none."""
    end = len(data)
    while (at := data.rfind(b"\n", 0, end)) >= 0:
        passed = quotes_before(marks, at)
        if passed % 2 == 0:
            return at + 1
        end = int(marks[passed - 1])  # where the quotes open
    return 0


# -- ranges of a file ------------------------------------------------------------------------------


def read(path: Path, bounds: tuple[int, int], separator: int, start: int | None = None) -> Piece:
    """Read the records that begin within ``bounds``.

    Args:
        path: the file.
        bounds: one range of :func:`split`.
        separator: the byte between fields.
        start: where the first record begins; None: guess it.

    Raises:
        InputProblemError: a record is longer than :data:`RECORD_LIMIT_BYTES`.
    """
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        begin = guess(stream, bounds[0], size, separator) if start is None else start
        if begin >= bounds[1]:
            return Piece(begin, begin, b"", np.empty(0, np.int32), regular=True)
        return _read(stream, begin, bounds[1], size, separator, path)


def _read(  # noqa: PLR0913, PLR0917 - the values that read() has determined
    stream: BinaryIO, begin: int, end: int, size: int, separator: int, path: Path
) -> Piece:
    if end < size and (piece := _read_to_newline(stream, begin, end, separator)) is not None:
        return piece
    beyond = WINDOW_BYTES if end < size else 0
    while True:
        stream.seek(begin)
        data = stream.read(end + beyond - begin)
        marks, regular = toggles(data, separator)
        behind = None if end >= size else _next_record(data, marks, end - 1 - begin)
        if behind is not None:
            marks = marks[: quotes_before(marks, behind)]
            return Piece(begin, begin + behind, data[:behind], marks, regular)
        if begin + len(data) >= size:
            if len(data) - last_record(data, marks) > RECORD_LIMIT_BYTES:
                raise too_long(path, begin + last_record(data, marks))
            closed = len(marks) % 2 == 0
            return Piece(begin, size, data, marks, regular, closed)
        if beyond >= RECORD_LIMIT_BYTES:
            raise too_long(path, begin + last_record(data, marks))
        beyond = min(4 * beyond, RECORD_LIMIT_BYTES)


def _read_to_newline(stream: BinaryIO, begin: int, end: int, separator: int) -> Piece | None:
    """Read to the first newline behind ``end``, without a copy; None if a record may not end there.

    That is the case if the newline is inside quotes, or beyond the window.
    """
    stream.seek(end - 1)
    line = stream.readline(WINDOW_BYTES)
    if not line.endswith(b"\n"):
        return None
    behind = end - 1 + len(line)
    stream.seek(begin)
    data = stream.read(behind - begin)
    marks, regular = toggles(data, separator)
    return Piece(begin, behind, data, marks, regular) if len(marks) % 2 == 0 else None


def guess(stream: BinaryIO, point: int, size: int, separator: int) -> int:
    """Return a guess of where the first record at or behind ``point`` begins."""
    stream.seek(max(0, point - 1))
    window = stream.read(WINDOW_BYTES)
    first = window.find(b"\n")
    if first < 0:
        return min(size, point + len(window))
    rest = window[first + 1 :]
    origin = max(0, point - 1) + first + 1
    _, outside = toggles(rest, separator)
    marks, within = toggles(rest, separator, inside=True)
    if within and not outside:
        found = _next_record(rest, marks, 0, inside=True)
        return origin + found if found is not None else min(size, origin + len(rest))
    return origin


def too_long(path: Path, offset: int) -> InputProblemError:
    """Return the error for a record that is too long to be held in memory."""
    return InputProblemError(
        "record_too_long",
        f"{path}: the record at byte {offset} is longer than {RECORD_LIMIT_BYTES >> 20} MiB.",
        "Is a quote opened there and never closed, or is it no CSV file?",
    )


def quote_open(path: Path, offset: int) -> InputProblemError:
    """Return the error for a quote that is never closed: the rest of the file is one value."""
    return InputProblemError(
        "quote_open",
        f"{path}: the quote at byte {offset} is never closed.",
        "Double it or remove it.",
    )


class Ranged(Protocol):
    """The result of one range, with the offsets of its records in the file."""

    @property
    def start(self) -> int:
        """Return the offset of the range's first record."""

    @property
    def end(self) -> int:
        """Return the offset where the next range's first record must begin."""


R = TypeVar("R", bound=Ranged)


class Chain(Generic[R]):
    """Sort the results of ranges, which arrive in any order, into the file's order.

    The beginning of a range was guessed wrong if it is not the end of the range before. Such a
    range is made again.

    Args:
        start: where the first record of the file begins.
        again: makes a range again, given its number and the offset at which it really begins.
    """

    def __init__(self, start: int, again: Callable[[int, int], R]) -> None:
        self._expected, self._again = start, again
        self._next = 0
        self._waiting: dict[int, R] = {}

    def add(self, number: int, made: R) -> Iterator[R]:
        """Take one result; yield the results that are now known to be right, in order."""
        self._waiting[number] = made
        while self._next in self._waiting:
            verified = self._waiting.pop(self._next)
            if verified.start != self._expected:
                verified = self._again(self._next, self._expected)
            self._expected = verified.end
            self._next += 1
            yield verified


# -- streams ---------------------------------------------------------------------------------------


def stream_pieces(
    stream: BinaryIO, length: int, separator: int, path: Path, offset: int = 0
) -> Iterator[Piece]:
    """Cut a stream without random access into pieces of about ``length`` bytes.

    Args:
        stream: the stream, at the beginning of a record.
        length: the length of a piece, in bytes.
        separator: the byte between fields.
        path: the file, for errors.
        offset: the stream's position in the file.

    Raises:
        InputProblemError: a record is longer than :data:`RECORD_LIMIT_BYTES`.
    """
    rest = b""
    while True:
        block = _read_fully(stream, length)
        data = rest + block
        if len(block) < length:
            if data:
                marks, regular = toggles(data, separator)
                closed = len(marks) % 2 == 0
                if len(data) - last_record(data, marks) > RECORD_LIMIT_BYTES:
                    raise too_long(path, offset + last_record(data, marks))
                yield Piece(offset, offset + len(data), data, marks, regular, closed)
            return
        marks, regular = toggles(data, separator)
        end = last_record(data, marks)
        if len(data) - end > RECORD_LIMIT_BYTES:
            raise too_long(path, offset + end)
        if end:
            marks = marks[: quotes_before(marks, end)]
            yield Piece(offset, offset + end, data[:end], marks, regular)
        offset, rest = offset + end, data[end:]


def _read_fully(stream: BinaryIO, length: int) -> bytes:
    parts, missing = [], length
    while missing and (part := stream.read(missing)):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)

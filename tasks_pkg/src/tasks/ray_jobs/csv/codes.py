"""Codes: what looks like a number in a CSV file, and would not be written back as it was read.

``02494``, ``+4915112345678``, ``1E05`` and ``0047583311587E590003`` parse as numbers, and what is
then written is something else; ``007``, ``07`` and ``7`` would be one key. A column that has such a
value is text. Numbers are what writers of numbers write: ``1.5e-05`` and ``1e+16`` (C, Python, R),
``1.0E10`` (Java), ``1e16`` (Rust). Blanks in front of a number, a point without digits on one side
and zeros behind it are left to the number.
"""

import re

from .. import one_thread  # noqa: F401 - before polars

import polars as pl  # isort: skip
import numpy as np
from numpy.typing import NDArray

LF, TAB, BLANK, QUOTE, PLUS, MINUS, ZERO, NINE, E = (np.uint8(i) for i in b'\n\t "+-09e')
#: The bit that makes a letter a small one.
LOWER_CASE = np.uint8(ord("a") - ord("A"))
#: So much is looked at together: what fits into a processor's own memory.
SLICE = 1 << 17
#: So many places of a slice are looked for one by one, which is quicker than to go through all.
FEW = 64
#: From so many places on, bytes are looked at once more before the places are.
DENSE = 1 / 64

#: A leading zero or a plus sign.
LED = r"^[ \t]*(?:\+|-?0[0-9])"
#: An exponent that no writer of numbers writes: without a point or a sign.
POWER = r"^[ \t]*-?[0-9]+[eE][0-9]+$"
#: But these are, by Rust's, from 1e16 on.
WRITTEN_POWER = r"^[ \t]*-?[1-9]e(?:1[6-9]|[2-9][0-9]|[12][0-9]{2}|30[0-8])$"
#: More digits than a whole number of 64 bits has.
LONG = r"^[ \t]*[+-]?[0-9]{19,}$"


def suspects(text: pl.Series, numbers: pl.Series) -> pl.Series:
    """Return the values that may be codes, which of most columns are few; quickly.

    A code begins below ``1`` (blank, sign, zero), or is a whole number, since its exponent has
    neither point nor sign.

    Args:
        text: as it was read.
        numbers: as it was parsed.
    """
    may_be = text < "1"
    if numbers.dtype.is_float():
        may_be |= numbers == numbers.floor()
    return text.filter(may_be)


def codes(text: pl.Series) -> pl.Series:
    """Return for each value whether it is a code, provided that it is a number."""
    power = text.str.contains(POWER)
    if power.any():
        power &= ~text.str.contains(WRITTEN_POWER)
    return text.str.contains(LED) | power


def any_code(text: pl.Series, numbers: pl.Series | None = None) -> bool:
    """Return whether a column of numbers has a value that is a code.

    Args:
        text: as it was read.
        numbers: as it was parsed, for those that are too large for a number.
    """
    if codes(text).any():
        return True
    if numbers is None or not numbers.dtype.is_float() or not numbers.is_infinite().any():
        return False
    return bool((numbers.is_infinite() & text.str.contains("[0-9]")).any())


def may_hold(data: bytes, separator: int, frame: pl.DataFrame, whole: pl.Series) -> bool:
    """Return whether a column of numbers may have a code; quickly, for that nearly none has.

    Args:
        data: regular records.
        separator: the byte between fields.
        frame: the same, parsed: what its columns of text account for is no matter.
        whole: the rows in which a fraction is a whole number, as each is that has an exponent
            and no point.
    """
    view = np.frombuffer(data, np.uint8)
    if len(whole) and _has_power(view, whole, frame.height):
        return True
    first = _places(view, separator)
    begun = int(re.match(rb"[ \t]*(?:\+|-?0[0-9])", data) is not None)
    begun += _count(view, first, separator) if len(first) else 0
    if not begun:
        return False
    words = [column for column in frame if column.dtype == pl.String]
    return begun != sum(_begun_in(column) for column in words)


def _begun_in(text: pl.Series) -> int:
    some = text.filter(text.str.head(1).is_in(["0", "+", "-", " ", "\t"]))
    return int(some.str.contains(LED).sum())


def _places(view: NDArray[np.uint8], separator: int) -> NDArray[np.intp]:
    """Find where a field may begin as :data:`LED` says, and some more.

    By bytes, with few steps for all of them, in memory that is taken once: a fresh page costs more
    than to look at it. What stands behind a low character or the separator and is a zero, a sign
    or a point, which few are, is looked at closely.
    """
    pairs = _Pairs()
    found: list[NDArray[np.intp]] = []
    for start in range(0, len(view) - 1, SLICE):
        here = view[start : start + SLICE + 1]
        low, begun = pairs.of(len(here))
        np.less(here, MINUS, out=low)
        if separator >= MINUS:
            low |= here == separator
        np.less_equal(here, ZERO, out=begun)
        at = pairs.found(len(here))
        if len(at) > DENSE * len(here):  # numbers below one, or negative; missing ones; CRLF
            begun[:-1] &= (
                (here[:-1] == MINUS)
                | (here[:-1] == PLUS)
                | ((here[:-1] == ZERO) & _digit(here[1:]))
            )
            at = pairs.found(len(here))
        found.append(at + start)
    return np.concatenate(found or [np.empty(0, np.intp)])


def _has_power(view: NDArray[np.uint8], rows: pl.Series, height: int) -> bool:
    """Return whether an ``e`` is between two digits in one of these rows, or near it."""
    pairs, letters = _Pairs(), np.empty(SLICE + 1, np.uint8)
    for number in _slices(view, rows.to_numpy(), height):
        start = number * SLICE
        here = view[start : start + SLICE + 1]
        digit, e = pairs.of(len(here))
        np.less_equal(here, NINE, out=digit)
        np.equal(np.bitwise_or(here, LOWER_CASE, out=letters[: len(here)]), E, out=e)
        if _are_powers(view, pairs.found(len(here)) + start):
            return True
    return False


def _slices(view: NDArray[np.uint8], rows: NDArray[np.uint32], height: int) -> NDArray[np.intp]:
    """Give the numbers of the slices with these rows; of all, where a line is not always a row."""
    count = -(-len(view) // SLICE)
    if 2 * len(rows) > count:
        return np.arange(count)
    bits = np.empty(SLICE, bool)
    slices = (view[at : at + SLICE] for at in range(0, len(view), SLICE))
    lines = np.cumsum(
        [np.count_nonzero(np.equal(here, LF, out=bits[: len(here)])) for here in slices]
    )
    if lines[-1] + int(view[-1] != LF) != height:
        return np.arange(count)
    # A row begins behind the end of the one before it.
    begins, ends = lines.searchsorted(rows), lines.searchsorted(rows + 1)
    marks = np.zeros(count + 2, np.intp)
    np.add.at(marks, begins, 1)
    np.add.at(marks, ends + 1, -1)
    return np.flatnonzero(np.cumsum(marks)[:count])


class _Pairs:
    """Finds where one kind of byte stands before another, slice by slice, in memory of its own."""

    def __init__(self) -> None:
        self._found = bytearray(SLICE + 1)
        self._bits = np.frombuffer(self._found, bool), np.empty(SLICE + 1, bool)

    def of(self, length: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Give where to say of each byte of a slice whether it is of the one kind, of the other."""
        first, second = self._bits
        return first[:length], second[:length]

    def found(self, length: int) -> NDArray[np.intp]:
        """Return the places of the second of each pair; the first kind's bits are pairs then."""
        first, second = self.of(length)
        np.logical_and(first[:-1], second[1:], out=first[:-1])
        few: list[int] = []
        at = self._found.find(1, 0, length - 1)
        while at >= 0:
            few.append(at + 1)
            if len(few) > FEW:
                return np.flatnonzero(first[:-1]) + 1
            at = self._found.find(1, at + 1, length - 1)
        return np.array(few, np.intp)


def _count(view: NDArray[np.uint8], at: NDArray[np.intp], separator: int) -> int:
    """Count the places that begin a field, but for blanks, as :data:`LED` says."""
    last = len(view) - 1
    first = view[at]
    digit = at + (first == MINUS)
    led = (view[np.minimum(digit, last)] == ZERO) & _digit(view[np.minimum(digit + 1, last)])
    at = at[led | (first == PLUS)]
    near = view[at - 1]
    blank = _blank(near)
    beyond = view[np.maximum(at - 2, 0)]
    found = _bounds(near, separator) | (blank & (_bounds(beyond, separator) | _blank(beyond)))
    return int(np.count_nonzero(found | (blank & (at == 1))))


def _bounds(values: NDArray[np.uint8], separator: int) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (values == separator) | (values == LF) | (values == QUOTE)
    return found


def _blank(values: NDArray[np.uint8]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (values == BLANK) | (values == TAB)
    return found


def _digit(values: NDArray[np.uint8]) -> NDArray[np.bool_]:
    digits: NDArray[np.bool_] = (values >= ZERO) & (values <= NINE)
    return digits


def _are_powers(view: NDArray[np.uint8], at: NDArray[np.intp]) -> bool:
    """Return whether one of these places is between two digits."""
    at = at[at < len(view) - 1]
    return bool((_digit(view[at - 1]) & _digit(view[at + 1])).any())

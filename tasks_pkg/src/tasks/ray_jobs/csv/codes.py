"""Find codes: values of a CSV file that look like numbers, but would be written back differently.

``02494``, ``+4915112345678``, ``1E05`` and ``0047583311587E590003`` parse as numbers, but are then
written as other text; and ``007``, ``07`` and ``7`` would become the same key. A column with such a
value is text. Exponents as programs write them are numbers: ``1.5e-05`` and ``1e+16`` (C, Python,
R), ``1.0E10`` (Java), ``1e16`` (Rust). So are values with blanks in front, with a point that has
digits on one side only, or with trailing zeros after the point.
"""

import re

from .. import one_thread  # noqa: F401 - before polars

import polars as pl  # isort: skip
import numpy as np
from numpy.typing import NDArray

LF, TAB, BLANK, QUOTE, PLUS, MINUS, ZERO, NINE, E = (np.uint8(i) for i in b'\n\t "+-09e')
#: The bit that turns an ASCII letter into lower case.
LOWER_CASE = np.uint8(ord("a") - ord("A"))
#: The number of bytes that one numpy step handles: they fit into a processor's cache.
SLICE_BYTES = 1 << 17
#: Up to so many places in a slice are found one by one, which is faster than a pass over the slice.
FEW_PLACES = 64
#: Above this share of places in a slice, a stricter pass over its bytes comes first.
DENSE_SHARE = 1 / 64

#: A leading zero or a plus sign.
LED = r"^[ \t]*(?:\+|-?0[0-9])"
#: An exponent without a point or a sign: hardly any program writes numbers so.
POWER = r"^[ \t]*-?[0-9]+[eE][0-9]+$"
#: The exception: Rust writes numbers from 1e16 on so.
WRITTEN_POWER = r"^[ \t]*-?[1-9]e(?:1[6-9]|[2-9][0-9]|[12][0-9]{2}|30[0-8])$"
#: More digits than a 64-bit integer has.
LONG = r"^[ \t]*[+-]?[0-9]{19,}$"


def suspects(text: pl.Series, numbers: pl.Series) -> pl.Series:
    """Return the values that may be codes: a fast filter, which leaves few values of most columns.

    A code begins with a character below ``1`` (blank, sign, zero), or is a whole number, since its
    exponent has neither point nor sign.

    Args:
        text: the column as it was read.
        numbers: the column as it was parsed.
    """
    may_be = text < "1"
    if numbers.dtype.is_float():
        may_be |= numbers == numbers.floor()
    return text.filter(may_be)


def codes(text: pl.Series) -> pl.Series:
    """Return for each value whether it is a code, given that it parses as a number."""
    power = text.str.contains(POWER)
    if power.any():
        power &= ~text.str.contains(WRITTEN_POWER)
    return text.str.contains(LED) | power


def any_code(text: pl.Series, numbers: pl.Series | None = None) -> bool:
    """Return whether a column of numbers has a value that is a code.

    Args:
        text: the column as it was read.
        numbers: the column as it was parsed. A value with digits that became infinite is a code.
    """
    if codes(text).any():
        return True
    if numbers is None or not numbers.dtype.is_float() or not numbers.is_infinite().any():
        return False
    return bool((numbers.is_infinite() & text.str.contains("[0-9]")).any())


def may_hold(data: bytes, separator: int, frame: pl.DataFrame, whole: pl.Series) -> bool:
    """Return whether a column of numbers may have a code: a fast check, since nearly none has.

    Args:
        data: regular records.
        separator: the byte between fields.
        frame: the same records, parsed; what looks like a code in its text columns is ignored.
        whole: the rows in which a float is a whole number: a number with an exponent and without a
            point always is.
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
    """Return the places where a field may match :data:`LED`, and some others.

    This is a byte filter with few numpy steps. Its buffers are reused, since a new memory page
    costs more than the comparison. A place is a byte up to ``0`` (zero, sign, point) behind a byte
    below ``-`` or behind the separator. Few bytes are, and :func:`_count` checks those.
    """
    pairs = _Pairs()
    found: list[NDArray[np.intp]] = []
    for start in range(0, len(view) - 1, SLICE_BYTES):
        here = view[start : start + SLICE_BYTES + 1]
        low, begun = pairs.of(len(here))
        np.less(here, MINUS, out=low)
        if separator >= MINUS:
            low |= here == separator
        np.less_equal(here, ZERO, out=begun)
        at = pairs.found(len(here))
        if len(at) > DENSE_SHARE * len(here):  # numbers below one, or negative; missing ones; CRLF
            begun[:-1] &= (
                (here[:-1] == MINUS)
                | (here[:-1] == PLUS)
                | ((here[:-1] == ZERO) & _digit(here[1:]))
            )
            at = pairs.found(len(here))
        found.append(at + start)
    return np.concatenate(found or [np.empty(0, np.intp)])


def _has_power(view: NDArray[np.uint8], rows: pl.Series, height: int) -> bool:
    """Return whether an ``e`` stands between two digits in a slice that holds one of these rows."""
    pairs, letters = _Pairs(), np.empty(SLICE_BYTES + 1, np.uint8)
    for number in _slices(view, rows.to_numpy(), height):
        start = number * SLICE_BYTES
        here = view[start : start + SLICE_BYTES + 1]
        digit, e = pairs.of(len(here))
        np.less_equal(here, NINE, out=digit)
        np.equal(np.bitwise_or(here, LOWER_CASE, out=letters[: len(here)]), E, out=e)
        if _are_powers(view, pairs.found(len(here)) + start):
            return True
    return False


def _slices(view: NDArray[np.uint8], rows: NDArray[np.uint32], height: int) -> NDArray[np.intp]:
    """Return the numbers of the slices that hold these rows; all if lines and rows differ."""
    count = -(-len(view) // SLICE_BYTES)
    if 2 * len(rows) > count:
        return np.arange(count)
    bits = np.empty(SLICE_BYTES, bool)
    slices = (view[at : at + SLICE_BYTES] for at in range(0, len(view), SLICE_BYTES))
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
    """Finds bytes of one kind followed by bytes of another, slice by slice, in reused buffers."""

    def __init__(self) -> None:
        self._found = bytearray(SLICE_BYTES + 1)
        self._bits = np.frombuffer(self._found, bool), np.empty(SLICE_BYTES + 1, bool)

    def of(self, length: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return two arrays to fill: whether each byte is of the first kind, of the second."""
        first, second = self._bits
        return first[:length], second[:length]

    def found(self, length: int) -> NDArray[np.intp]:
        """Return the place of the second byte of each pair; overwrites the first array."""
        first, second = self.of(length)
        np.logical_and(first[:-1], second[1:], out=first[:-1])
        few: list[int] = []
        at = self._found.find(1, 0, length - 1)
        while at >= 0:
            few.append(at + 1)
            if len(few) > FEW_PLACES:
                return np.flatnonzero(first[:-1]) + 1
            at = self._found.find(1, at + 1, length - 1)
        return np.array(few, np.intp)


def _count(view: NDArray[np.uint8], at: NDArray[np.intp], separator: int) -> int:
    """Return how many of the places match :data:`LED` at the beginning of a field."""
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

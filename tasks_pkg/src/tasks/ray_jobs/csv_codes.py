"""Codes: what looks like a number in a CSV file, and would not be written back as it was read.

``02494``, ``+4915112345678``, ``1E05`` and ``0047583311587E590003`` parse as numbers, and what is
then written is something else; ``007``, ``07`` and ``7`` would be one key. A column that has such a
value is text. Numbers are what writers of numbers write: ``1.5e-05`` and ``1e+16`` (C, Python, R),
``1.0E10`` (Java), ``1e16`` (Rust). Blanks in front of a number, a point without digits on one side
and zeros behind it are left to the number.
"""

import re

from . import one_thread  # noqa: F401 - before polars

import polars as pl  # isort: skip
import numpy as np
from numpy.typing import NDArray

LF, TAB, BLANK, QUOTE, PLUS, MINUS, ZERO, NINE, E = (np.uint8(i) for i in b'\n\t "+-09e')
#: What the lowest byte becomes when a minus sign is taken from it.
LOWER = np.uint8(256 - ord("-"))
#: The bit that makes a letter a small one.
LOWER_CASE = np.uint8(ord("a") - ord("A"))
#: So much is looked at together: what fits into a processor's own memory.
SLICE = 1 << 17
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

#: One of these, or no number at all; in one look, for that nearly no column has any.
SUSPECT = rf"{LED}|[eE]"


def codes(text: pl.Series) -> pl.Series:
    """Say of each value whether it is a code, if it is a number at all."""
    power = text.str.contains(POWER)
    if power.any():
        power &= ~text.str.contains(WRITTEN_POWER)
    return text.str.contains(LED) | power


def any_code(text: pl.Series, numbers: pl.Series | None = None) -> bool:
    """Say whether a column of numbers has a value that is a code.

    Args:
        text: as it was read.
        numbers: as it was parsed, for those that are too large for a number.
    """
    if codes(text).any():
        return True
    if numbers is None or not numbers.dtype.is_float() or not numbers.is_infinite().any():
        return False
    return bool((numbers.is_infinite() & text.str.contains("[0-9]")).any())


def may_hold(data: bytes, separator: int, frame: pl.DataFrame, *, powers: bool) -> bool:
    """Say whether a column of numbers may have a code; quickly, for that nearly none has.

    Args:
        data: regular records.
        separator: the byte between fields.
        frame: the same, parsed: what its columns of text account for is no matter.
        powers: whether to look for exponents too.
    """
    first, powers_at = _places(data, separator, powers=powers)
    view = np.frombuffer(data, np.uint8)
    if len(powers_at) and _are_powers(view, powers_at):
        return True
    begun = int(re.match(rb"[ \t]*(?:\+|-?0[0-9])", data) is not None)
    begun += _count(view, first, separator) if len(first) else 0
    if not begun:
        return False
    words = [column for column in frame if column.dtype == pl.String]
    return begun != sum(_begun_in(column) for column in words)


def _begun_in(text: pl.Series) -> int:
    some = text.filter(text.str.head(1).is_in(["0", "+", "-", " ", "\t"]))
    return int(some.str.contains(LED).sum())


def _places(
    data: bytes, separator: int, *, powers: bool
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Find where a field may begin as :data:`LED` says, and some more, and each ``e``.

    By bytes, with few steps for all of them, in memory that is taken once: a fresh page costs more
    than to look at it. What stands behind a low character or the separator and is a zero, a sign
    or a point, which few are, is looked at closely; so is an ``e`` behind no letter.
    """
    view = np.frombuffer(data, np.uint8)
    plus = b"+" in data
    space, bits = np.empty((2, SLICE + 1), np.uint8), np.empty((2, SLICE + 1), bool)
    first: list[NDArray[np.intp]] = []
    es: list[NDArray[np.intp]] = []
    for start in range(0, len(view) - 1, SLICE):
        here = view[start : start + SLICE + 1]
        (shifted, letters), (low, found) = space[:, : len(here)], bits[:, : len(here)]
        np.subtract(here, MINUS, out=shifted)  # what is lower than a minus sign is high now
        np.greater_equal(shifted, LOWER, out=low)
        if separator >= MINUS:
            low |= here == separator
        np.less_equal(shifted, ZERO - MINUS, out=found)
        if plus:
            found |= here == PLUS
        at = _both(low, found)
        if len(at) > DENSE * len(here):  # numbers below one, or negative
            found[:-1] &= ((here[1:] - ZERO) <= NINE - ZERO) | (here[:-1] != ZERO)
            at = _both(low, found)
        first.append(at + (start + 1))
        if powers:
            np.less_equal(shifted, NINE - MINUS, out=low)
            np.bitwise_or(here, LOWER_CASE, out=letters)
            np.equal(letters, E, out=found)
            es.append(_both(low, found) + (start + 1))
    none = [np.empty(0, np.intp)]
    return np.concatenate(first or none), np.concatenate(es or none)


def _both(before: NDArray[np.bool_], here: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Give where one stands before the other; ``before`` is overwritten."""
    found = np.logical_and(before[:-1], here[1:], out=before[:-1])
    return np.flatnonzero(found) if found.any() else np.empty(0, np.intp)


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
    """Say whether one of these places is between two digits."""
    at = at[at < len(view) - 1]
    return bool((_digit(view[at - 1]) & _digit(view[at + 1])).any())

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

LF, TAB, BLANK, QUOTE, PLUS, MINUS, ZERO, NINE = b'\n\t "+-09'
#: So much is looked at together: what fits into a processor's own memory.
SLICE = 1 << 17

#: A leading zero or a plus sign.
LED = r"^[ \t]*(?:\+|-?0[0-9])"
#: An exponent that no writer of numbers writes: without a point or a sign.
POWER = r"^[ \t]*-?[0-9]+[eE][0-9]+$"
#: But these are, by Rust's, from 1e16 on.
WRITTEN_POWER = r"^[ \t]*-?[1-9]e(?:1[6-9]|[2-9][0-9]|[12][0-9]{2}|30[0-8])$"
#: More digits than a whole number of 64 bits has.
LONG = r"^[ \t]*[+-]?[0-9]{19,}$"


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
    if powers and _has_power(data):
        return True
    begun = _begun(data, separator)
    if not begun:
        return False
    words = [column for column in frame if column.dtype == pl.String]
    return begun != sum(_begun_in(column) for column in words)


def _begun_in(text: pl.Series) -> int:
    some = text.filter(text.str.head(1).is_in(["0", "+", "-", " ", "\t"]))
    return int(some.str.contains(LED).sum())


def _begun(data: bytes, separator: int) -> int:
    """Count the fields that begin as :data:`LED` says, and some more within quotes.

    By bytes, and few steps for all of them: where a zero or a plus sign stands behind a low
    character or the separator, which few do, is looked at closely.
    """
    view = np.frombuffer(data, np.uint8)
    plus, negative = b"+" in data, b"-0" in data
    number = int(re.match(rb"[ \t]*(?:\+|-?0[0-9])", data) is not None)
    number += _count(view, np.arange(1, min(2, len(view))), separator)
    for start in range(0, len(view) - 2, SLICE):  # two behind it are looked at too
        here = view[start : start + SLICE + 3]
        low = here < MINUS
        if separator >= MINUS:
            low |= here == separator
        zero = here == ZERO
        zero[:-1] &= here[1:] >= ZERO
        zero[-1] = False
        found = zero[2:] & low[1:-1]
        if negative:  # not in the middle of a date
            zero[2:] &= here[1:-1] == MINUS
            found |= zero[2:] & low[:-2]
        if plus:
            found |= (here[2:] == PLUS) & low[1:-1]
        found = found[:SLICE]
        if found.any():
            number += _count(view, np.flatnonzero(found) + (start + 2), separator)
    return number


def _count(view: NDArray[np.uint8], at: NDArray[np.intp], separator: int) -> int:
    """Count the places that are a field's first sign or digit, but for blanks and a minus sign."""
    behind = view[np.minimum(at + 1, len(view) - 1)]
    at = at[(view[at] == PLUS) | ((view[at] == ZERO) & _digit(behind))]
    before = at - 1
    before -= (view[before] == MINUS) & (view[at] == ZERO) & (before > 0)
    near = view[before]
    blank = _blank(near)
    beyond = view[np.maximum(before - 1, 0)]
    found = _bounds(near, separator) | (blank & (_bounds(beyond, separator) | _blank(beyond)))
    return int(np.count_nonzero(found | (blank & (before == 0))))


def _bounds(values: NDArray[np.uint8], separator: int) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (values == separator) | (values == LF) | (values == QUOTE)
    return found


def _blank(values: NDArray[np.uint8]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (values == BLANK) | (values == TAB)
    return found


def _digit(values: NDArray[np.uint8]) -> NDArray[np.bool_]:
    digits: NDArray[np.bool_] = (values >= ZERO) & (values <= NINE)
    return digits


def _has_power(data: bytes) -> bool:
    """Say whether a digit, an ``e`` and a digit stand side by side."""
    view = np.frombuffer(data, np.uint8)
    signs = [sign for sign in b"Ee" if bytes([sign]) in data]
    for start in range(0, max(0, len(view) - 2) if signs else 0, SLICE):
        here = view[start : start + SLICE + 2]
        low = here[:-2] <= NINE
        for sign in signs:
            at = np.flatnonzero(low & (here[1:-1] == sign))
            if len(at) and (_digit(here[at]) & _digit(here[at + 2])).any():
                return True
    return False

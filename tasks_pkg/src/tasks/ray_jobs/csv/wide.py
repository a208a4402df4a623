"""Process many columns at once: for thousands of columns, a few calls for each take seconds.

A function that works value by value is called once, on all columns concatenated. With few columns,
concatenating would cost a copy and save nothing.
"""

from collections.abc import Callable, Sequence

from .. import one_thread  # noqa: F401 - before polars

import polars as pl  # isort: skip
import numpy as np
from numpy.typing import NDArray

from . import datetimes as csv_datetimes

#: Columns are concatenated from this number on.
MANY_COLUMNS = 64

#: Numbers that every parser reads alike, that are no codes, and whose whole part fits a float.
_WHOLE = r"^-?(?:0|[1-9][0-9]{0,14})$"
_NUMBER = r"^-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]+)?$"
#: A letter that occurs in no number, Boolean or moment (``nan``, ``Infinity``, ``1e5``, ``TRUE``).
_WORD = r"[B-DGHJKMOPQVWb-dghjkmopqvw]"


def below(columns: Sequence[pl.Series]) -> pl.Series:
    """Return the concatenation of columns of one type."""
    return pl.concat([column.alias("") for column in columns])


def each(
    function: Callable[[pl.Series], pl.Series], columns: Sequence[pl.Series]
) -> list[pl.Series]:
    """Apply a function that works value by value to columns of one length, in one call."""
    made = function(below(columns))
    height = len(columns[0])
    return [
        made.slice(number * height, height).alias(column.name)
        for number, column in enumerate(columns)
    ]


def but(columns: Sequence[pl.Series], rows: int, pattern: str) -> list[pl.Series]:
    """Leave out the columns whose first rows hold values, none of which matches a pattern."""
    first = pl.DataFrame([column.head(rows) for column in columns])
    if not first.height:
        return []
    values = below(first.get_columns())
    there = np.logical_or.reduce(_table(values.is_not_null(), first), axis=1)
    alike = np.logical_or.reduce(_table(values.str.contains(pattern), first), axis=1)
    return [column for at, column in enumerate(columns) if alike[at] or not there[at]]


def plain_types(text: pl.DataFrame) -> dict[str, pl.DataType]:
    """Return the types of the columns that simple patterns determine; the others are left out.

    Args:
        text: columns of text; decimal marks are points, and dates are ISO 8601.
    """
    if text.width < MANY_COLUMNS:
        return {}
    if not text.height:
        return dict.fromkeys(text.columns, pl.Null())
    values = below(text.get_columns())
    there = _table(values.is_not_null(), text)
    filled: NDArray[np.bool_] = np.logical_or.reduce(there, axis=1)

    def all_of(found: pl.Series) -> NDArray[np.bool_]:
        every: NDArray[np.bool_] = np.logical_and.reduce(_table(found, text) | ~there, axis=1)
        return every & filled

    whole = all_of(values.str.contains(_WHOLE))
    number = all_of(values.str.contains(_NUMBER))
    date = all_of(csv_datetimes.dates(values).is_not_null())
    words = _table(values.str.contains(_WORD), text)
    word: NDArray[np.bool_] = np.logical_or.reduce(words, axis=1)
    found: dict[str, pl.DataType] = {}
    for at, name in enumerate(text.columns):
        if not filled[at]:
            found[name] = pl.Null()
        elif whole[at]:
            found[name] = pl.Int64()
        elif number[at]:
            found[name] = pl.Float64()
        elif date[at]:
            found[name] = pl.Date()
        elif word[at]:
            found[name] = pl.String()
    return found


def _table(values: pl.Series, text: pl.DataFrame) -> NDArray[np.bool_]:
    """Return the Booleans of concatenated columns as one row per column; nulls are false."""
    return values.fill_null(value=False).to_numpy().reshape(text.width, text.height)

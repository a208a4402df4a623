"""Many columns at once: what takes a few steps for each column takes seconds for thousands.

Where a step looks at one value after another, columns are put below each other, and it is done once
for all. With few columns that would only be a copy.
"""

from collections.abc import Callable, Sequence

from .. import one_thread  # noqa: F401 - before polars

import polars as pl  # isort: skip
import numpy as np
from numpy.typing import NDArray

from . import datetimes as csv_datetimes

#: From so many columns on.
MANY = 64

#: Numbers that are so to every parser, are no codes, and have all their digits as a float.
_WHOLE = r"^-?(?:0|[1-9][0-9]{0,14})$"
_NUMBER = r"^-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]+)?$"
#: A letter that is in no number, truth value or moment (``nan``, ``Infinity``, ``1e5``, ``TRUE``).
_WORD = r"[B-DGHJKMOPQVWb-dghjkmopqvw]"


def below(columns: Sequence[pl.Series]) -> pl.Series:
    """Put columns of one type below each other."""
    return pl.concat([column.alias("") for column in columns])


def each(
    function: Callable[[pl.Series], pl.Series], columns: Sequence[pl.Series]
) -> list[pl.Series]:
    """Call a function of values one by one once for all of some columns of one length."""
    made = function(below(columns))
    height = len(columns[0])
    return [
        made.slice(number * height, height).alias(column.name)
        for number, column in enumerate(columns)
    ]


def but(columns: Sequence[pl.Series], rows: int, pattern: str) -> list[pl.Series]:
    """Leave out columns that have values in their first rows, of which none has a pattern."""
    first = pl.DataFrame([column.head(rows) for column in columns])
    if not first.height:
        return []
    values = below(first.get_columns())
    there = np.logical_or.reduce(_table(values.is_not_null(), first), axis=1)
    alike = np.logical_or.reduce(_table(values.str.contains(pattern), first), axis=1)
    return [column for at, column in enumerate(columns) if alike[at] or not there[at]]


def plain_types(text: pl.DataFrame) -> dict[str, pl.DataType]:
    """Return the types of columns of which no closer look is needed; the others are left out.

    Args:
        text: columns of text; numbers have points, and dates are ISO 8601.
    """
    if text.width < MANY:
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
    """Return truth values by column, of those below each other; missing ones are false."""
    return values.fill_null(value=False).to_numpy().reshape(text.width, text.height)

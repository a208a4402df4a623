"""Held-out rows that stay the same while the dataset grows, so that models can be compared.

They are rows, not row numbers: once chosen they are kept as a file, and every row of a later
dataset that is equal to one of them is left out of the training.
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..protocol import InputProblemError


def apart(frame: pl.DataFrame, frozen: pl.DataFrame) -> tuple[pl.DataFrame, NDArray[np.bool_]]:
    """Take the frozen rows out of a table and put them, once, below it.

    A column that the frozen rows do not have yet is missing in them; one that the table no
    longer has is dropped from them.

    Returns:
        The table, and per row of it whether it is held out.

    Raises:
        InputProblemError: a column has changed its type, so that equal rows are not found.
    """
    names = frame.columns
    frozen = frozen.select(name for name in names if name in frozen.columns)
    kinds = [pl.col(name).cast(_common(frame[name], frozen[name])) for name in frozen.columns]
    frame, frozen = frame.with_columns(kinds), frozen.with_columns(kinds)
    rest = frame.join(
        frozen.unique(), on=frozen.columns, how="anti", nulls_equal=True, maintain_order="left"
    )
    table = pl.concat([rest, frozen], how="diagonal").select(names)
    return table, np.arange(table.height) >= rest.height


def _common(now: pl.Series, then: pl.Series) -> pl.DataType:
    """Return the type in which what was equal in the files is certainly equal.

    Not text for both: a file's 01234 and 0.50 are 1234 and 0.5 to who took them for numbers. So
    where all text is numbers, as that of codes is, it is compared as these.
    """
    if now.dtype == then.dtype or then.null_count() == len(then):
        return now.dtype
    if now.null_count() == len(now):
        return then.dtype
    if all(isinstance(each.dtype, (pl.String, pl.Categorical, pl.Enum)) for each in (now, then)):
        return pl.String()
    # A whole number becomes the same Float64 whether it was read as one or is made one here.
    if all(each.dtype.is_integer() or each.dtype == pl.Float64 for each in (now, then)):
        return pl.Float64() if pl.Float64 in {now.dtype, then.dtype} else pl.Int128()
    if now.dtype == pl.String and then.dtype.is_numeric() and _are(now, then.dtype):
        return then.dtype  # codes, which were numbers when the rows were chosen
    if all(each.dtype == pl.Datetime for each in (now, then)):
        return pl.Datetime("us")  # in UTC, with a zone or without
    raise InputProblemError(
        "holdout_type",
        f"Column {now.name!r} is {now.dtype} in the dataset, but {then.dtype} in the frozen"
        " held-out rows, which are therefore not found in it.",
        "Correct the values that changed its type, or move registry/<name>/holdout-*.parquet of"
        " the models folder away: other rows are then held out, and the next model is not"
        " compared with the one in use.",
    )


def _are(text: pl.Series, kind: pl.DataType) -> bool:
    """Return whether all values can be read as numbers of a type."""
    return text.cast(kind, strict=False).null_count() == text.null_count()

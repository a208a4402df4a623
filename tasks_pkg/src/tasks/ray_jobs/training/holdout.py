"""Held-out rows that stay the same as the dataset grows, so that models can be compared.

The rows themselves are stored in a file, not their numbers. Every row of a later dataset that
equals one of them is left out of the training.
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..protocol import InputProblemError


def apart(frame: pl.DataFrame, frozen: pl.DataFrame) -> tuple[pl.DataFrame, NDArray[np.bool_]]:
    """Remove the frozen rows from a table and append each of them once.

    A column that the frozen rows do not have yet is missing in them; one that the table no
    longer has is dropped from them.

    Returns:
        The table, and for each of its rows whether it is held out.

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
    """Return the type in which values that were equal in the files are certainly equal.

    Text would be wrong: 01234 and 0.50 in a file are 1234 and 0.5 if they were read as numbers. So
    where all text consists of numbers, as that of codes does, it is compared as numbers.
    """
    if now.dtype == then.dtype or then.null_count() == len(then):
        return now.dtype
    if now.null_count() == len(now):
        return then.dtype
    if all(isinstance(each.dtype, (pl.String, pl.Categorical, pl.Enum)) for each in (now, then)):
        return pl.String()
    # A whole number becomes the same Float64 whether it was read as one or is converted here.
    if all(each.dtype.is_integer() or each.dtype == pl.Float64 for each in (now, then)):
        return pl.Float64() if pl.Float64 in {now.dtype, then.dtype} else pl.Int128()
    if now.dtype == pl.String and then.dtype.is_numeric() and _are(now, then.dtype):
        return then.dtype  # codes, which were numbers when the rows were chosen
    if all(each.dtype == pl.Datetime for each in (now, then)):
        return pl.Datetime("us")  # in UTC, with or without a zone
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

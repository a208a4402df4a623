"""Held-out rows that stay the same while the dataset grows, so that models can be compared.

They are rows, not row numbers: once chosen they are kept as a file, and every row of a later
dataset that is equal to one of them is left out of the training.
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray


def apart(frame: pl.DataFrame, frozen: pl.DataFrame) -> tuple[pl.DataFrame, NDArray[np.bool_]]:
    """Take the frozen rows out of a table and put them, once, below it.

    A column that the frozen rows do not have yet is missing in them; one that the table no
    longer has is dropped from them.

    Returns:
        The table, and per row of it whether it is held out.
    """
    names = frame.columns
    frozen = frozen.select(name for name in names if name in frozen.columns)
    words = {name for name in frozen.columns if _is_text(frame, name) or _is_text(frozen, name)}
    keys, known = _keys(frame, frozen.columns, words), _keys(frozen, frozen.columns, words)
    index = "row"
    while index in names:
        index += "_"
    rest = keys.with_row_index(index).join(
        known.unique(), on=frozen.columns, how="anti", nulls_equal=True, maintain_order="left"
    )[index]
    text = pl.col(sorted(words)).cast(pl.String)
    both = [part.with_columns(text) if words else part for part in (frame[rest], frozen)]
    table = pl.concat(both, how="diagonal_relaxed").select(names)
    return table, np.arange(table.height) >= len(rest)


def _is_text(frame: pl.DataFrame, name: str) -> bool:
    kind = frame.schema[name]
    return not (kind.is_numeric() or kind in {pl.Boolean, pl.Null})


def _keys(frame: pl.DataFrame, names: list[str], words: set[str]) -> pl.DataFrame:
    """Give the values in a form in which 1 and 1.0 are the same."""
    return frame.select(
        pl.col(name).cast(pl.String if name in words else pl.Float64) for name in names
    )

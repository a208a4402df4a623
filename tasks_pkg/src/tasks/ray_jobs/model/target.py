"""The target of a model: classes or numbers, and their encoding for the model."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..protocol import InputProblemError
from . import number_styles

Task = Literal["classification", "regression"]

#: Whole numbers count as classes up to this many different values ...
MAX_NUMERIC_CLASSES = 20
#: ... if each occurs at least this often on average.
MIN_ROWS_PER_NUMERIC_CLASS = 5
#: Text with more classes than this is taken for names or identifiers.
MAX_CLASSES = 1000
#: Text may be meant as numbers if this share of its values are numbers.
NUMERIC_SHARE = 0.9
#: Fewer rows than this cannot be split for training and testing.
MIN_ROWS = 10


@dataclass(frozen=True)
class Target:
    """The target of all rows that have one.

    Attributes:
        task: classification or regression.
        values: the class numbers, or the numbers themselves.
        classes: the labels, ordered by class number; empty for regression.
        present: per row of the table, whether it has a target.
    """

    task: Task
    values: NDArray[np.float64]
    classes: list[str | int | float | bool]
    present: NDArray[np.bool_]


def decide(column: pl.Series) -> Task:
    """Decide between classification and regression, for ``task: auto``.

    Text, booleans and categories are classes. Numbers with a fraction are regression. Whole
    numbers (also as ``1.0``) are classes when there are two values, or at most
    :data:`MAX_NUMERIC_CLASSES` values that each occur :data:`MIN_ROWS_PER_NUMERIC_CLASS` times
    on average; otherwise regression. Dates are numbers. Text that is nearly all numbers, as
    when a missing value is written ``?``, is regression if its numbers are.
    """
    if not column.dtype.is_numeric():
        return "classification"
    values = column.drop_nulls().cast(pl.Float64)
    if not (values == values.round()).all():
        return "regression"
    distinct = values.n_unique()
    few = distinct <= MAX_NUMERIC_CLASSES
    often = len(values) >= MIN_ROWS_PER_NUMERIC_CLASS * distinct
    return "classification" if distinct == 2 or (few and often) else "regression"  # noqa: PLR2004


def encode(column: pl.Series, wanted: Literal["auto", "classification", "regression"]) -> Target:
    """Encode the target column as numbers.

    Raises:
        InputProblemError: no value, only one value, too few rows, a value that is no number in a
            regression, or a number that is too large.
    """
    kind = column.dtype
    column = _numbers_where_meant(_comparable(column), wanted)
    present = column.is_not_null().to_numpy()
    values = column.drop_nulls()
    _require_enough(column.name, values)
    task = decide(values) if wanted == "auto" else wanted
    if task == "regression":
        if not values.dtype.is_numeric():
            raise InputProblemError(
                "target_not_numeric",
                f"model_config.task is 'regression', but target {column.name!r} holds"
                f" {str(values[0])!r}.",
                _as_numbers_by(values) or "Use task 'classification', or clean the column.",
            )
        _require_range(column.cast(pl.Float64))
        return Target(task, values.cast(pl.Float64).to_numpy(), [], present)
    classes = values.unique().sort()
    if len(classes) > min(MAX_CLASSES, len(values) // 2):
        raise InputProblemError(
            "target_too_many_classes",
            f"Target {column.name!r} has {len(classes)} different values in {len(values)} rows;"
            f" at most {min(MAX_CLASSES, len(values) // 2)} classes can be learnt from so many.",
            _as_numbers_by(values) or "Is it an identifier? For numbers, set task to 'regression'.",
        )
    codes = values.replace_strict(classes, pl.Series(range(len(classes)), dtype=pl.Float64))
    return Target("classification", codes.to_numpy(), _labels(classes, kind), present)


def _as_numbers_by(values: pl.Series) -> str | None:
    """Return how text that is meant as numbers could be read as numbers."""
    how = number_styles.described(values) if values.dtype == pl.String else None
    return None if how is None else f"It is text: {how}."


def _comparable(column: pl.Series) -> pl.Series:
    """Return a column of numbers, booleans or text; NaN and infinity are missing values."""
    kind = column.dtype
    if kind.is_float() or kind == pl.Decimal:
        numbers = column.cast(pl.Float64)
        return numbers.set(~numbers.is_finite(), None)
    if kind.is_numeric() or kind in {pl.Boolean, pl.String}:
        return column
    if kind.is_temporal():
        return column.to_physical()
    if isinstance(kind, (pl.Categorical, pl.Enum, pl.Null)):
        return column.cast(pl.String)
    raise InputProblemError(
        "target_type",
        f"Target {column.name!r} is of type {kind}, which is neither a number nor a label.",
        "Choose another target column.",
    )


def _numbers_where_meant(column: pl.Series, wanted: str) -> pl.Series:
    """Return the numbers of a text column that is nearly all numbers; other values are missing."""
    if column.dtype != pl.String or wanted == "classification":
        return column
    numbers = column.cast(pl.Float64, strict=False)
    numbers = numbers.set(~numbers.is_finite(), None)
    found = len(numbers) - numbers.null_count()
    meant = found and found >= NUMERIC_SHARE * (len(column) - column.null_count())
    return numbers if meant and "regression" in {wanted, decide(numbers)} else column


def _require_enough(name: str, values: pl.Series) -> None:
    if values.is_empty():
        raise InputProblemError(
            "target_all_missing",
            f"Target {name!r} has no value in any row.",
            "Choose another target column.",
        )
    if len(values) < MIN_ROWS:
        raise InputProblemError(
            "too_few_rows",
            f"Only {len(values)} rows have a value in target {name!r}; {MIN_ROWS} are needed.",
            "Bring more data.",
        )
    if values.n_unique() == 1:
        raise InputProblemError(
            "target_one_class",
            f"Target {name!r} has the one value {values[0]!r} in all {len(values)} rows;"
            " there is nothing to learn.",
            "Choose another target column, or bring rows with other values.",
        )


def _require_range(numbers: pl.Series) -> None:
    beyond = (numbers.abs() > float(np.finfo(np.float32).max)).arg_true()
    if not beyond.is_empty():
        row = beyond[0]
        raise InputProblemError(
            "target_too_large",
            f"Target {numbers.name!r} is {numbers[row]:g} in row {row + 1}; XGBoost takes numbers"
            f" of at most 3.4e38 ({len(beyond)} values are larger).",
            "Give the target in a larger unit, or clean the column.",
        )


def _labels(classes: pl.Series, kind: pl.DataType) -> list[str | int | float | bool]:
    if kind.is_temporal():
        return [str(moment) for moment in classes.cast(kind)]
    if classes.dtype.is_float() and (classes == classes.round()).all():
        return classes.cast(pl.Int64).to_list()
    return classes.to_list()

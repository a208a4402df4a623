"""Turn a table's columns into the model's numbers, by a plan that is learnt once and stored.

The plan is learnt from training rows only, and is plain JSON: loading it cannot execute anything.

======== ========================================= =========================================
role     columns                                   becomes
======== ========================================= =========================================
number   numbers; text that is nearly all numbers  itself; missing stays missing
boolean  booleans                                  0 or 1
date     dates and times                           days since 2000-01-01
category text with few different values            a code; 0 is every value not seen often
text     other text                                its length, and counts of hashed words
======== ========================================= =========================================

Numbers and dates are centred and scaled where float32 would not tell them apart
(:mod:`model.scaling`).
"""

import re
import zlib
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..csv import codes as csv_codes
from ..protocol import InputProblemError
from . import number_styles
from .scaling import AS_IT_IS, FINE, LARGEST, Scaling, of_feature

Role = Literal["number", "boolean", "date", "category", "text"]

#: Text with at most this many different values is a category.
MAX_CATEGORIES = 64
#: Text is a number if this share of its values are numbers; its other values are missing.
NUMERIC_SHARE = 0.9
#: The number of groups in which the words of a text column are counted.
TEXT_BUCKETS = 32

_EPOCH_DAYS = 10957.0  # 2000-01-01 in days since 1970
_EXACT = 1 << 53  # up to here float64 holds every whole number
_SECONDS_PER_DAY = 86_400.0
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Column:
    """How a column is turned into numbers."""

    name: str
    role: Role
    categories: tuple[str, ...] = ()
    scaling: Scaling = AS_IT_IS

    @property
    def width(self) -> int:
        """Return the number of the model's features that this column becomes."""
        return 1 + TEXT_BUCKETS if self.role == "text" else 1


@dataclass(frozen=True)
class Plan:
    """How a whole table is turned into numbers, and which columns were left out and why.

    Attributes:
        columns: the columns that are used.
        dropped: the others, with the reason.
        notes: remarks about the columns for the caller; not stored.
    """

    columns: tuple[Column, ...]
    dropped: dict[str, str]
    notes: tuple[str, ...] = field(default=(), compare=False)

    def as_json(self) -> dict[str, Any]:
        """Return the plan in its stored form."""
        return {"columns": [asdict(column) for column in self.columns], "dropped": self.dropped}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Plan":
        """Read a stored plan."""
        columns = (
            Column(
                c["name"],
                c["role"],
                tuple(c.get("categories", ())),
                Scaling.from_json(c.get("scaling")),
            )
            for c in value["columns"]
        )
        return cls(tuple(columns), dict(value["dropped"]))

    @property
    def roles(self) -> dict[str, str]:
        """Return the role of every column, ``unused`` for those that were left out."""
        used: dict[str, str] = {column.name: column.role for column in self.columns}
        return used | dict.fromkeys(self.dropped, "unused")

    @property
    def feature_names(self) -> list[str]:
        """Return a name for every feature; the parts of a text column are numbered.

        XGBoost refuses ``[``, ``]`` and ``<`` in names, and duplicate names, so each name begins
        with the feature's position.
        """
        return [
            f"{position}.{part} " + re.sub(r"[\[\]<\s]", "_", column.name)
            for position, column in enumerate(self.columns)
            for part in range(column.width)
        ]

    @property
    def feature_types(self) -> list[str]:
        """Return XGBoost's type of every feature: ``c`` for codes, ``q`` for quantities."""
        return [
            "c" if column.role == "category" else "q"
            for column in self.columns
            for _ in range(column.width)
        ]


def learn(table: pl.DataFrame, rows: NDArray[np.bool_] | None = None) -> Plan:
    """Decide from the training rows how each column is turned into numbers.

    Args:
        table: the columns.
        rows: which rows are training rows; all by default.

    Raises:
        InputProblemError: no column is usable.
    """
    columns: list[Column] = []
    dropped: dict[str, str] = {}
    notes: list[str] = []
    chosen = None if rows is None else pl.Series(rows)
    for series in table:
        # Column by column: a copy of the whole table would double the memory.
        learnt = _learn(series if chosen is None else series.filter(chosen), notes)
        if isinstance(learnt, Column):
            columns.append(learnt)
        else:
            dropped[series.name] = learnt
    if not columns:
        shown = ", ".join(f"{name} ({why})" for name, why in dropped.items()) or "none"
        raise InputProblemError(
            "no_features",
            f"No column is left to learn from; beside the target there are: {shown}.",
            "Bring at least one column whose values differ.",
        )
    return Plan(tuple(columns), dropped, tuple(notes))


def _learn(series: pl.Series, notes: list[str]) -> Column | str:  # noqa: PLR0911 - one reason each
    """Return a column's plan, or the reason for leaving it out; add remarks to ``notes``."""
    role = _role(series)
    if role is None:
        return f"type {series.dtype} is not supported"
    if series.null_count() == len(series):
        return "it has no value in any row"
    if role != "category":
        return _learn_numbers(series, role, notes)
    values = series.cast(pl.String).drop_nulls()
    numeric = _as_numbers(values).is_not_null()
    if int(numeric.sum()) >= NUMERIC_SHARE * len(values) and not _are_codes(values):
        if not numeric.all():
            others = values.filter(~numeric)
            notes.append(
                f"column {series.name!r} is of numbers: {others[0]!r} and others that are none"
                f" ({len(others)} of the training rows) count as missing; list such words in"
                " missing, or correct them"
            )
        return _learn_numbers(series, "number", notes)
    if (how := number_styles.described(values)) is not None:
        notes.append(f"column {series.name!r} is taken for words, not for numbers: {how}")
    known = values.unique()
    if len(known) > MAX_CATEGORIES:
        return Column(series.name, "text")
    if len(known) == 1 and len(values) == len(series):
        return "it has the same value in every row"
    return Column(series.name, "category", tuple(known.sort().to_list()))


def _are_codes(values: pl.Series) -> bool:
    """Return whether text of digits would change as a number, as codes do (:mod:`csv.codes`)."""
    return csv_codes.any_code(values) or bool(values.str.contains(csv_codes.LONG).any())


def _learn_numbers(series: pl.Series, role: Role, notes: list[str]) -> Column | str:
    base = _base(series)
    numbers = _numbers(series, role, base)
    numbers[np.isinf(numbers)] = np.nan
    if np.isnan(numbers).all():
        return "it has no value in any row"
    if (numbers == numbers[0]).all():
        return "it has the same value in every row"
    scaling, kept = of_feature(numbers)
    if kept < FINE:
        notes.append(
            f"column {series.name!r}: XGBoost computes in float32, which tells apart only"
            f" {kept:.0%} of its different values; give the small differences a column of their own"
        )
    if series.dtype.is_integer():
        scaling = Scaling(base + int(scaling.offset), scaling.scale)
    return Column(series.name, role, scaling=scaling)


def _base(series: pl.Series) -> int:
    """Return the offset to subtract from whole numbers before float64 would round them."""
    if not series.dtype.is_integer():
        return 0
    low, high = series.min(), series.max()
    ends = [end for end in (low, high) if isinstance(end, int)]
    return sum(ends) // 2 if max(map(abs, ends), default=0) > _EXACT else 0


def _role(series: pl.Series) -> Role | None:
    kind = series.dtype
    if kind == pl.Boolean:
        return "boolean"
    if kind.is_temporal():
        return "date"
    if kind.is_numeric() or kind == pl.Null:
        return "number"
    return "category" if isinstance(kind, (pl.String, pl.Categorical, pl.Enum)) else None


def transform(
    frame: pl.DataFrame, plan: Plan, rows: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """Turn a table into the model's numbers, one row per row; NaN is missing.

    Args:
        frame: the columns.
        plan: the plan for the columns.
        rows: which rows; all by default.

    Raises:
        InputProblemError: the table lacks a column of the plan.
    """
    lacking = [column.name for column in plan.columns if column.name not in frame.columns]
    if lacking:
        raise InputProblemError(
            "column_missing",
            f"The model needs column {lacking[0]!r}, which the data lacks"
            f" ({len(lacking)} missing in all).",
            f"It was trained on: {', '.join(column.name for column in plan.columns)}.",
        )
    chosen = None if rows is None else pl.Series(rows)
    height = frame.height if rows is None else int(rows.sum())
    matrix = np.empty((height, len(plan.feature_types)), dtype=np.float32)
    position = 0
    for column in plan.columns:
        series = frame[column.name] if chosen is None else frame[column.name].filter(chosen)
        part = matrix[:, position : position + column.width]
        if column.role == "text":
            _fill_text(part, series.cast(pl.String))
        elif column.role == "category":
            part[:, 0] = _codes(series.cast(pl.String), column.categories)
        else:
            part[:, 0] = _scaled(series, column)
        position += column.width
    return matrix


def _as_numbers(series: pl.Series) -> pl.Series:
    return series.cast(pl.Float64, strict=False)


def _scaled(series: pl.Series, column: Column) -> NDArray[np.float64]:
    """Return the model's numbers; beyond float32 they would be infinite, which XGBoost refuses."""
    scaling, base = column.scaling, 0
    # Exact, unless training saw fractions and these values have none.
    if series.dtype.is_integer() and float(scaling.offset).is_integer():
        scaling, base = Scaling(0.0, scaling.scale), int(scaling.offset)
    with np.errstate(over="ignore"):
        numbers = scaling.apply(_numbers(series, column.role, base))
    numbers[~(np.abs(numbers) < LARGEST)] = np.nan
    return numbers


def _numbers(series: pl.Series, role: Role, base: int = 0) -> NDArray[np.float64]:
    """Return a column as floating point, minus ``base`` for whole numbers; NaN is missing."""
    if role == "date" or series.dtype.is_temporal():
        series = _days(series)
    if base:
        series = series.cast(pl.Int128) - pl.Series([base], dtype=pl.Int128)
    return _as_numbers(series).to_numpy(writable=True)


def _days(series: pl.Series) -> pl.Series:
    if series.dtype == pl.String:
        series = series.str.to_datetime(strict=False)
    if series.dtype == pl.Date:
        return series.to_physical().cast(pl.Float64) - _EPOCH_DAYS
    if series.dtype == pl.Time:
        return series.to_physical().cast(pl.Float64) / 1e9 / _SECONDS_PER_DAY
    if series.dtype == pl.Duration:
        return series.dt.total_microseconds().cast(pl.Float64) / 1e6 / _SECONDS_PER_DAY
    return series.dt.epoch("us").cast(pl.Float64) / 1e6 / _SECONDS_PER_DAY - _EPOCH_DAYS


def _codes(series: pl.Series, categories: tuple[str, ...]) -> NDArray[np.float64]:
    known = pl.Series(categories, dtype=pl.String)
    codes = series.replace_strict(
        known, pl.Series(range(1, len(categories) + 1), dtype=pl.Float64), default=0.0
    )
    return codes.set(series.is_null(), None).to_numpy()


def _fill_text(part: NDArray[np.float32], series: pl.Series) -> None:
    """Count words by group; CRC-32 is the same in every process, unlike Python's ``hash``."""
    part[:, 0] = series.str.len_chars().cast(pl.Float64).to_numpy()
    distinct = series.unique(maintain_order=True)
    counts = np.zeros((len(distinct), TEXT_BUCKETS), dtype=np.float32)
    for row, text in enumerate(distinct):
        if text is None:
            counts[row] = np.nan
        else:
            for word in _WORD.findall(text.lower()):
                counts[row, zlib.crc32(word.encode()) % TEXT_BUCKETS] += 1.0
    rows = pl.DataFrame({"text": series}).join(
        pl.DataFrame({"text": distinct}).with_row_index("row"),
        on="text",
        how="left",
        nulls_equal=True,
        maintain_order="left",
    )["row"]
    part[:, 1:] = counts[rows.to_numpy()]

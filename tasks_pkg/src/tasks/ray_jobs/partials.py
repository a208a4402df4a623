"""Aggregates of parts that can be put together: exact counts and sums, means, deviations.

The sum of squared deviations of two parts is theirs, and that of their means: Chan, Golub and
LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979.
"""

from collections.abc import Mapping, Sequence

from . import one_thread  # noqa: F401 - before polars

import polars as pl  # isort: skip

from .expressions import NUMERIC, Kind, common
from .formula_engine import DTYPES
from .protocol import InputProblemError

#: What can be asked of a column; only the first three have a meaning for text and dates.
FUNCTIONS = ("count", "min", "max", "sum", "mean", "std")
ANY_KIND = ("count", "min", "max")

ROWS = "rows"


def partial(
    frame: pl.DataFrame, keys: Sequence[str], columns: Mapping[str, Kind]
) -> pl.DataFrame:  # fmt: skip
    """Aggregate one part by ``keys``: one row for each group.

    Args:
        frame: the part.
        keys: columns to group by; none for the whole.
        columns: what to aggregate, and its type.
    """
    wanted = [pl.len().cast(pl.Int64).alias(ROWS)]
    for name, kind in columns.items():
        column = pl.col(name).cast(DTYPES[kind])
        wanted.append(column.count().cast(pl.Int64).alias(f"{name}\0count"))
        if kind in NUMERIC:
            number = column.cast(pl.Float64)
            exact = column.cast(pl.Int128) if kind == "integer" else number
            wanted += [
                exact.sum().alias(f"{name}\0sum"),
                ((number - number.mean()) ** 2).sum().alias(f"{name}\0squares"),
            ]
        ordered = column if kind != "boolean" else column.cast(pl.Int64)
        wanted += [ordered.min().alias(f"{name}\0min"), ordered.max().alias(f"{name}\0max")]
    return frame.group_by(keys).agg(wanted) if keys else frame.select(wanted)


def merge(
    parts: Sequence[pl.DataFrame], keys: Mapping[str, Kind], columns: Mapping[str, Kind]
) -> pl.DataFrame:
    """Put partial aggregates together.

    Args:
        parts: of :func:`partial`; columns that some lack count as missing there.
        keys: columns grouped by, and the type that they have in all parts.
        columns: what was aggregated, and the type that it has in all parts.

    Raises:
        InputProblemError: two groups could become one, as keys of the type of all parts.
    """
    made = []
    for part in parts:
        for name, kind in keys.items():
            if kind == "number":
                _require_exact(part[name])
        casts = [pl.col(name).cast(DTYPES[kind]) for name, kind in keys.items()]
        for name, kind in columns.items():
            casts += _casts(part.columns, name, kind)
        made.append(part.select([*casts, pl.col(ROWS)]))
    table = pl.concat(made)
    wanted = [pl.col(ROWS).sum()]
    for name, kind in columns.items():
        count = pl.col(f"{name}\0count")
        wanted += [count.sum(), pl.col(f"{name}\0min").min(), pl.col(f"{name}\0max").max()]
        if kind in NUMERIC:
            total = pl.col(f"{name}\0sum")
            mean = total.cast(pl.Float64).sum() / count.sum()
            own = total.cast(pl.Float64) / count
            apart = pl.when(count > 0).then(count * (own - mean) ** 2).otherwise(0.0)
            squares = pl.col(f"{name}\0squares").sum() + apart.sum()
            wanted += [total.sum(), squares.alias(f"{name}\0squares")]
    return table.group_by(list(keys)).agg(wanted) if keys else table.select(wanted)


def _require_exact(key: pl.Series) -> None:
    """Refuse keys of which a 64-bit float would not keep every digit."""
    if key.dtype.is_float():
        return
    again = key.cast(pl.Float64).cast(key.dtype, strict=False)
    changed = key.filter(key.ne_missing(again))
    if len(changed):
        raise InputProblemError(
            "column_type",
            f"group_by: column {key.name!r} holds {changed[0]}, which is another value as a number"
            " with decimals; two groups could become one.",
            "Write the column as text, or as whole numbers in all sources.",
        )


def _casts(there: Sequence[str], name: str, kind: Kind) -> list[pl.Expr]:
    ordered = pl.Int64() if kind == "boolean" else DTYPES[kind]
    types = {"count": pl.Int64(), "min": ordered, "max": ordered}
    if kind in NUMERIC:
        types |= {
            "sum": pl.Int128() if kind == "integer" else pl.Float64(),
            "squares": pl.Float64(),
        }
    nothing = {"count": 0, "sum": 0, "squares": 0.0}
    return [
        pl.col(f"{name}\0{what}").cast(dtype)
        if f"{name}\0{what}" in there
        else pl.lit(nothing.get(what), dtype).alias(f"{name}\0{what}")
        for what, dtype in types.items()
    ]


def value(merged: pl.DataFrame, name: str, what: str, kind: Kind) -> pl.Expr:
    """Give one function of a column from merged partials; missing where infinity leaves none."""
    if what == "mean":
        return (pl.col(f"{name}\0sum").cast(pl.Float64) / _positive(name, 1)).fill_nan(None)
    if what == "std":
        deviation = (pl.col(f"{name}\0squares") / (_positive(name, 2) - 1)).sqrt()
        return deviation.fill_nan(None)
    made = pl.col(f"{name}\0{what}")
    if what == "sum" and kind == "number":
        return made.fill_nan(None)
    if what in {"min", "max"} and kind == "boolean":
        return made.cast(pl.Boolean)
    if what == "sum" and kind == "integer":
        fits = merged[f"{name}\0sum"].cast(pl.Int64, strict=False).null_count() == 0
        return made.cast(pl.Int64 if fits else pl.Float64)
    return made


def _positive(name: str, least: int) -> pl.Expr:
    count = pl.col(f"{name}\0count")
    return pl.when(count >= least).then(count)


def shared(kinds: Sequence[Mapping[str, Kind]]) -> tuple[dict[str, Kind], list[str]]:
    """Give the type that each column has in all sources, and the columns that have none."""
    names = list(dict.fromkeys(name for found in kinds for name in found))
    joined = {name: common([found[name] for found in kinds if name in found]) for name in names}
    return (
        {name: kind for name, kind in joined.items() if kind is not None},
        [name for name, kind in joined.items() if kind is None],
    )

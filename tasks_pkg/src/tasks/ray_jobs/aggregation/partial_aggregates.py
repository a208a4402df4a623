"""Partial aggregates, which can be merged: exact counts and sums, means, deviations.

Sums of integers and of decimals are exact. Sums of floats are kept with about twice the digits of a
64-bit float and rounded once, after the last merge. Each value is split into a part whose sums are
exact and a rest (the extraction of Rump, Ogita and Oishi, "Accurate Floating-Point Summation
Part I", SIAM J. Sci. Comput. 31, 2008). So a sum with 1e17 in it does not lose the cents.

The sum of squared deviations of two merged parts is the sum of both, plus a term for the distance
between their means: Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for
Computing Sample Variances", 1979.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import cast

from .. import one_thread  # noqa: F401 - before polars

import polars as pl  # isort: skip

from ..formulas.engine import DTYPES
from ..formulas.language import NUMERIC, Kind, common
from ..protocol import InputProblemError

#: The functions of a column; only those of ANY_KIND are defined for text and dates.
FUNCTIONS = ("count", "min", "max", "sum", "mean", "std")
ANY_KIND = ("count", "min", "max")

#: The partial aggregates that each function needs.
_MADE_OF = {
    "count": {"count"},
    "min": {"min"},
    "max": {"max"},
    "sum": {"sum"},
    "mean": {"sum", "count"},
    "std": {"sum", "count", "squares"},
}

ROWS = "rows"

NANOSECONDS = pl.Datetime("ns")
#: The most digits of a decimal; polars does not report a sum that overflows them.
_DECIMAL_DIGITS = 38
#: Sums of unscaled decimals below this do not overflow, even with the rounding of the check.
_MAX_DECIMAL = 10.0 ** (_DECIMAL_DIGITS - 1)


def every(kinds: Mapping[str, Kind]) -> dict[str, Sequence[str]]:
    """Return all functions of each column."""
    return {name: of_kind(kind) for name, kind in kinds.items()}


def of_kind(kind: Kind) -> Sequence[str]:
    """Return all functions of a column of this type."""
    if kind == "other":
        return ("count",)
    return FUNCTIONS if kind in NUMERIC else ANY_KIND


# -- one part --------------------------------------------------------------------------------------


def partial(
    frame: pl.DataFrame,
    keys: Sequence[str],
    columns: Mapping[str, Kind],
    functions: Mapping[str, Sequence[str]] | None = None,
) -> pl.DataFrame:
    """Aggregate one part by ``keys``: one row for each group.

    Args:
        frame: the part.
        keys: columns to group by; none: aggregate all rows.
        columns: the columns to aggregate, with their types.
        functions: the functions of each column; all by default.
    """
    functions = functions or every(columns)
    parts = {name: _parts(functions[name], kind) for name, kind in columns.items()}
    return _aggregated(frame, keys, _prepared(frame, columns, parts), parts)


def both(
    frame: pl.DataFrame,
    keys: Sequence[str],
    columns: Mapping[str, Kind],
    functions: Mapping[str, Sequence[str]],
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Aggregate one part over all rows, and by ``keys``.

    An aggregate of all rows is merged from the groups' aggregates if they have it.

    Args:
        frame: the part.
        keys: columns to group by.
        columns: the columns to aggregate over all rows, with their types.
        functions: the functions by group, for some of these columns.
    """
    by_group = {name: _parts(what, columns[name]) for name, what in functions.items()}
    parts = {name: _parts(of_kind(kind), kind) for name, kind in columns.items()}
    values = _prepared(frame, columns, parts)
    groups = _aggregated(frame, keys, values, by_group)
    told = {name: found - {"squares"} for name, found in by_group.items()}
    others = {name: found - told.get(name, set()) for name, found in parts.items()}
    whole = _aggregated(frame, (), values, others).drop(ROWS)
    names = [f"{name}\0{what}" for name, found in told.items() for what in sorted(found)]
    names += [rest for name in told if (rest := f"{name}\0rest") in groups.columns]
    sums = groups.select(pl.col(ROWS).sum(), *(_merged(name, name, {}) for name in names))
    return pl.concat([sums, whole], how="horizontal"), groups


def _prepared(
    frame: pl.DataFrame, columns: Mapping[str, Kind], parts: Mapping[str, set[str]]
) -> dict[str, list[pl.Series]]:
    """Return each column in the type of its aggregates, and for sums of floats its two parts."""
    found: dict[str, list[pl.Series]] = {}
    for at, (name, kind) in enumerate(columns.items()):
        values = exact(frame[name], kind).alias(f"\0{at}")
        found[name] = [values]
        if "sum" in parts[name] and values.dtype.is_float():
            high, rest = _split(values)
            found[name] += [high.alias(f"\0{at}high"), rest.alias(f"\0{at}rest")]
    return found


def _aggregated(
    frame: pl.DataFrame,
    keys: Sequence[str],
    values: Mapping[str, Sequence[pl.Series]],
    parts: Mapping[str, set[str]],
) -> pl.DataFrame:
    wanted = [pl.len().cast(pl.Int64).alias(ROWS)]
    made: list[pl.Series] = []
    for name, found in parts.items():
        made += values[name]
        wanted += _aggregates(f"{name}\0", values[name][0], found)
    # A key may be aggregated too, then in another type than the key's own.
    table = frame.select(keys).with_columns(made) if keys else pl.DataFrame(made)
    if keys:  # the in-memory engine, which collects each group's values, takes 1.5 times as long
        return table.lazy().group_by(keys).agg(wanted).collect(engine="streaming")
    return table.select(wanted) if made else pl.DataFrame({ROWS: [frame.height]})


def exact(values: pl.Series, kind: Kind) -> pl.Series:
    """Return values in the type in which they are aggregated, without a loss of digits.

    Decimals stay decimals if their sums cannot overflow. Times keep nanoseconds if they have any.
    """
    dtype = values.dtype
    if kind == "other":
        return values
    if dtype == pl.Decimal:
        ends = [abs(float(end)) for end in _ends(values)]
        if max(ends, default=0.0) * 10.0 ** _scale(dtype) * len(values) < _MAX_DECIMAL:
            return values.cast(pl.Decimal(_DECIMAL_DIGITS, _scale(dtype)))
    if dtype == NANOSECONDS or (isinstance(dtype, pl.Datetime) and dtype.time_unit == "ns"):
        fine = values.cast(NANOSECONDS)  # in UTC if there is a time zone
        return fine if (fine.to_physical() % 1000 != 0).any() else fine.cast(DTYPES["datetime"])
    return values.cast(DTYPES[kind])


def _parts(functions: Iterable[str], kind: Kind) -> set[str]:
    found: set[str] = set().union(*(_MADE_OF[what] for what in functions))
    return found if kind in NUMERIC else found & set(ANY_KIND)


def _aggregates(prefix: str, values: pl.Series, parts: set[str]) -> list[pl.Expr]:
    column, dtype = pl.col(values.name), values.dtype
    wanted: dict[str, pl.Expr] = {}
    if "count" in parts:
        number = column.count() if values.null_count() else pl.len()
        wanted["count"] = number.cast(pl.Int64)
    if "sum" in parts and dtype.is_float():
        wanted["sum"] = pl.col(f"{values.name}high").sum()
        wanted["rest"] = pl.col(f"{values.name}rest").sum()
    elif "sum" in parts:
        wanted["sum"] = (column.cast(pl.Int128) if dtype.is_integer() else column).sum()
    if "squares" in parts:
        floats = column.cast(pl.Float64)
        wanted["squares"] = (floats.var(ddof=0) * floats.count()).fill_null(0.0)
    ordered = column if dtype != pl.Boolean else column.cast(pl.Int64)
    if "min" in parts:
        wanted["min"] = ordered.min()
    if "max" in parts:
        wanted["max"] = ordered.max()
    return [made.alias(prefix + what) for what, made in wanted.items()]


def of_keys(groups: pl.DataFrame, keys: Mapping[str, Kind]) -> pl.DataFrame:
    """Return the aggregates over all rows of key columns that are no numbers.

    They are those of :func:`partial`, but computed from the groups, which have fewer rows.

    Args:
        groups: the aggregates by these columns.
        keys: the columns, with their types.
    """
    ends = dict.fromkeys(keys, ("min", "max"))
    counts = groups.select(
        pl.col(ROWS).filter(pl.col(name).is_not_null()).sum().alias(f"{name}\0count")
        for name in keys
    )
    return pl.concat([partial(groups, (), keys, ends).drop(ROWS), counts], how="horizontal")


def _split(values: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Split numbers into multiples of one power of two, whose sums are exact, and the rests."""
    largest = max((abs(end) for end in _ends(values) if math.isfinite(end)), default=0.0)
    if values.is_infinite().any():
        finite = values.filter(values.is_finite())
        largest = max((abs(end) for end in _ends(finite)), default=0.0)
    power = math.frexp(largest)[1] + (len(values) + 2).bit_length()
    if power > 1023:  # noqa: PLR2004 - the largest exponent of a 64-bit float
        return values, pl.zeros(len(values), pl.Float64, eager=True)
    high = (values + 2.0**power) - 2.0**power
    # NaN occurs here only as infinity minus infinity.
    return high, (values - high).fill_nan(0.0)


def _ends(values: pl.Series) -> list[float]:
    return [cast("float", end) for end in (values.min(), values.max()) if end is not None]


def _scale(dtype: pl.DataType) -> int:
    return dtype.scale if isinstance(dtype, pl.Decimal) else 0


# -- merging parts ---------------------------------------------------------------------------------


def merge(
    parts: Sequence[pl.DataFrame],
    keys: Mapping[str, Kind],
    columns: Mapping[str, Kind],
    functions: Mapping[str, Sequence[str]] | None = None,
) -> pl.DataFrame:
    """Merge partial aggregates.

    Args:
        parts: results of :func:`partial`; a column that a part lacks counts as missing there.
        keys: columns grouped by, with their common type of all parts.
        columns: the aggregated columns, with their common type of all parts.
        functions: the functions of each column; all by default.

    Raises:
        InputProblemError: different keys could become equal in the common type.
    """
    functions = functions or every(columns)
    types: dict[str, pl.DataType] = {name: _key(parts, name, kind) for name, kind in keys.items()}
    types[ROWS] = pl.Int64()
    for name, kind in columns.items():
        types |= _types(parts, name, kind, _parts(functions[name], kind))
    table = pl.concat(
        part.select(_column(part, name, dtype) for name, dtype in types.items()) for part in parts
    )
    # Adding the parts' sums would round: they are split again, and the rests are added up.
    for name in [name for name, dtype in types.items() if _is_rounded(name, dtype)]:
        high, low = _split(table[name])
        rest = table[_rest(name)] + low
        table = table.with_columns(high.alias(f"{name}\0"), rest.alias(_rest(name)))
    wanted = []
    for name in types:
        if name not in keys:
            rounded = _is_rounded(name, types[name])
            wanted.append(_merged(name, f"{name}\0" if rounded else name, types))
    return table.group_by(list(keys)).agg(wanted) if keys else table.select(wanted)


def _is_rounded(name: str, dtype: pl.DataType) -> bool:
    return name.endswith("\0sum") and dtype.is_float()


def _rest(name: str) -> str:
    return name.removesuffix("\0sum") + "\0rest"


def _key(parts: Sequence[pl.DataFrame], name: str, kind: Kind) -> pl.DataType:
    """Return a type of a key in which different keys stay different: decimals stay decimals.

    Raises:
        InputProblemError: there is none.
    """
    if kind == "number":
        if (decimals := _decimals([part[name] for part in parts])) is not None:
            return decimals
        for part in parts:
            _require_exact(part[name])
    return _joined([part[name] for part in parts], name, kind)


def _decimals(values: Sequence[pl.Series]) -> pl.DataType | None:
    """Return the decimal type that holds all values, decimals and integers; None if none does."""
    values = [column for column in values if column.null_count() < len(column)]
    scales = [_scale(column.dtype) for column in values if isinstance(column.dtype, pl.Decimal)]
    if not scales or any(column.dtype.is_float() for column in values):
        return None
    found = pl.Decimal(_DECIMAL_DIGITS, max(scales))
    try:
        for column in values:
            column.cast(found)
    except pl.exceptions.PolarsError:  # too many digits
        return None
    return found


def _joined(values: Sequence[pl.Series], name: str, kind: Kind) -> pl.DataType:
    """Return the common type of columns: for times, one that keeps their nanoseconds.

    Raises:
        InputProblemError: there is none.
    """
    if not any(_is_fine(column) for column in values):
        return DTYPES[kind]
    try:
        for column in values:
            column.cast(NANOSECONDS)
    except pl.exceptions.InvalidOperationError:
        raise InputProblemError(
            "column_type",
            f"Column {name!r} holds times to the nanosecond in one file, and in another times"
            " before 1677 or after 2262, which have no nanoseconds.",
            "Round the former to microseconds, or aggregate the files separately.",
        ) from None
    return NANOSECONDS


def _is_fine(column: pl.Series) -> bool:
    """Return whether there are times with fractions of a microsecond."""
    dtype = column.dtype
    if not isinstance(dtype, pl.Datetime) or dtype.time_unit != "ns":
        return False
    return bool((column.to_physical() % 1000 != 0).any())


def _types(
    parts: Sequence[pl.DataFrame], name: str, kind: Kind, wanted: set[str]
) -> dict[str, pl.DataType]:
    """Return the types of a column's merged aggregates."""
    made: dict[str, pl.DataType] = {}
    for what in sorted(wanted):
        there = [part[f"{name}\0{what}"] for part in parts if f"{name}\0{what}" in part.columns]
        if what == "count":
            made[f"{name}\0{what}"] = pl.Int64()
        elif what == "squares":
            made[f"{name}\0{what}"] = pl.Float64()
        elif what == "sum" and kind == "integer":
            made[f"{name}\0{what}"] = pl.Int128()
        elif kind == "boolean":
            made[f"{name}\0{what}"] = pl.Int64()
        elif kind == "number":
            made[f"{name}\0{what}"] = _decimal(there, sums=what == "sum") or pl.Float64()
        else:
            made[f"{name}\0{what}"] = _joined(there, name, kind)
        if _is_rounded(f"{name}\0{what}", made[f"{name}\0{what}"]):
            made[f"{name}\0rest"] = pl.Float64()
    return made


def _decimal(values: Sequence[pl.Series], *, sums: bool) -> pl.DataType | None:
    """Return the decimal type that holds all values, and if needed their sum; None if none does."""
    values = [column for column in values if column.null_count() < len(column)]
    if not values or any(not isinstance(column.dtype, pl.Decimal) for column in values):
        return None
    scale = max(_scale(column.dtype) for column in values)
    ends = [abs(float(end)) for column in values for end in _ends(column)]
    number = sum(map(len, values)) if sums else 1
    return (
        pl.Decimal(_DECIMAL_DIGITS, scale)
        if max(ends) * 10.0**scale * number < _MAX_DECIMAL
        else None
    )


def _column(part: pl.DataFrame, name: str, dtype: pl.DataType) -> pl.Series:
    """Return a part's column in a type; a column of nulls or zeros if the part lacks it."""
    if name.endswith("\0rest"):
        total = part.get_column(name.removesuffix("\0rest") + "\0sum", default=None)
        if total is not None and total.dtype == pl.Int128:
            lost: pl.Series = total - total.cast(pl.Float64).cast(pl.Int128)
            return lost.cast(pl.Float64).alias(name)
    if name in part.columns:
        column = part[name]
        if name.endswith("\0sum") and column.dtype.is_float() and not dtype.is_float():
            message = f"{name!r}: a sum of numbers cannot be one of {dtype}"
            raise TypeError(message)
        return column.cast(dtype)
    nothing = None if name.endswith(("\0min", "\0max")) else 0
    return pl.repeat(nothing, part.height, dtype=dtype, eager=True).alias(name)


def _merged(name: str, column: str, types: Mapping[str, pl.DataType]) -> pl.Expr:
    values = pl.col(column)
    if name.endswith("\0min"):
        return values.min().alias(name)
    if name.endswith("\0max"):
        return values.max().alias(name)
    if not name.endswith("\0squares"):
        return values.sum().alias(name)
    owner = name.removesuffix("\0squares")
    count, total = pl.col(f"{owner}\0count"), pl.col(f"{owner}\0sum").cast(pl.Float64)
    if f"{owner}\0rest" in types:
        total = total + pl.col(f"{owner}\0rest")
    apart = count * (total / count - total.sum() / count.sum()) ** 2
    return (values.sum() + pl.when(count > 0).then(apart).otherwise(0.0).sum()).alias(name)


def _require_exact(key: pl.Series) -> None:
    """Refuse keys that a 64-bit float would not hold exactly."""
    if key.dtype.is_float():
        return
    try:
        again = key.cast(pl.Float64).cast(key.dtype, strict=False)
        changed = key.filter(key.ne_missing(again))
    except pl.exceptions.PolarsError:
        # A value that was rounded up has more digits than the decimal type.
        rounded = [value is not None and Decimal(float(value)) != value for value in key]
        changed = key.filter(pl.Series(rounded, dtype=pl.Boolean))
    if len(changed):
        raise InputProblemError(
            "column_type",
            f"group_by: column {key.name!r} holds {changed[0]}, which a 64-bit float does not hold"
            " exactly; two groups could become one.",
            "Write the column as text, or as whole numbers in all sources.",
        )


def value(merged: pl.DataFrame, name: str, what: str, kind: Kind) -> pl.Expr:
    """Return one function of a column from merged aggregates; null if infinities leave no value."""
    if what == "mean":
        return (_total(merged, name) / _positive(name, 1)).fill_nan(None)
    if what == "std":
        deviation = (pl.col(f"{name}\0squares") / (_positive(name, 2) - 1)).sqrt()
        return deviation.fill_nan(None)
    made = pl.col(f"{name}\0{what}")
    if what == "sum" and kind == "number":
        exactly = isinstance(merged.schema[f"{name}\0sum"], pl.Decimal)
        return made if exactly else _total(merged, name).fill_nan(None)
    if what in {"min", "max"} and kind == "boolean":
        return made.cast(pl.Boolean)
    if what == "sum" and kind == "integer":
        fits = merged[f"{name}\0sum"].cast(pl.Int64, strict=False).null_count() == 0
        return made.cast(pl.Int64 if fits else pl.Float64)
    return made


def _total(merged: pl.DataFrame, name: str) -> pl.Expr:
    """Return a sum as a float, rounded once."""
    total = pl.col(f"{name}\0sum").cast(pl.Float64)
    return total + pl.col(f"{name}\0rest") if f"{name}\0rest" in merged.columns else total


def _positive(name: str, least: int) -> pl.Expr:
    count = pl.col(f"{name}\0count")
    return pl.when(count >= least).then(count)


def shared(kinds: Sequence[Mapping[str, Kind]]) -> tuple[dict[str, Kind], list[str]]:
    """Return the common type of each column in all sources, and the columns without one."""
    names = list(dict.fromkeys(name for found in kinds for name in found))
    joined = {name: _common([found[name] for found in kinds if name in found]) for name in names}
    return (
        {name: kind for name, kind in joined.items() if kind is not None},
        [name for name, kind in joined.items() if kind is None],
    )


def _common(kinds: Sequence[Kind]) -> Kind | None:
    # A column that can only be counted in one part can only be counted in all.
    return "other" if "other" in kinds else common(kinds)

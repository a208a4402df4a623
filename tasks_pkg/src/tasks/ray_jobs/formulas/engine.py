"""Turn a parsed formula into a polars expression. Operations on a missing value give missing.

A result that is no number (0 / 0, the logarithm of -1) is missing: polars' NaN is greater than any
number and equal to itself, so a filter would let it pass.
"""

import datetime as dt
from collections.abc import Callable, Mapping
from functools import reduce

import polars as pl

from ..protocol import InputProblemError
from .language import TEMPORAL, Formula, Kind, Node, common, kind_of

DTYPES: dict[Kind, pl.DataType] = {
    "integer": pl.Int64(),
    "number": pl.Float64(),
    "text": pl.String(),
    "boolean": pl.Boolean(),
    "date": pl.Date(),
    "datetime": pl.Datetime("us"),
    "missing": pl.Null(),
}

#: Whole numbers are computed in 128 bits; the conversion back to 64 fails instead of wrapping.
_WIDE = pl.Int128()


def kinds(schema: Mapping[str, pl.DataType]) -> dict[str, Kind]:
    """Return each column's type in the language; a type that it lacks counts as text."""
    return {name: _kind(dtype) for name, dtype in schema.items()}


def _kind(dtype: pl.DataType) -> Kind:
    if dtype.is_integer():
        return "integer"
    if dtype.is_numeric():
        return "number"
    if dtype == pl.Datetime:
        return "datetime"
    same: dict[object, Kind] = {pl.Boolean: "boolean", pl.Date: "date", pl.Null: "missing"}
    return next((kind for known, kind in same.items() if dtype == known), "text")


def build(formula: Formula, columns: Mapping[str, Kind]) -> tuple[pl.Expr, Kind]:
    """Return the expression of a formula, and the type of its values.

    Raises:
        InputProblemError: a column does not exist, or types do not match.
    """
    formula.require_columns(list(columns))
    kind = kind_of(formula, formula.tree, columns)
    return _Builder(formula, columns).expression(formula.tree, kind), kind


class _Builder:
    def __init__(self, formula: Formula, columns: Mapping[str, Kind]) -> None:
        self.formula, self.columns = formula, columns

    def kind(self, node: Node) -> Kind:
        return kind_of(self.formula, node, self.columns)

    def expression(self, node: Node, wanted: Kind | None = None) -> pl.Expr:
        """Return a node's expression, with values of the type ``wanted``."""
        kind = self.kind(node)
        if node.op == "literal":
            made = pl.lit(node.value, DTYPES[kind])
        elif node.op == "column":
            made = pl.col(str(node.value))
            made = _utc(made) if kind == "datetime" else made
            # A column without values has an arbitrary type, and matches any.
            made = made if kind == "missing" else made.cast(DTYPES[kind])
            made = made.fill_nan(None) if kind == "number" else made
        else:
            made = self._call(node, kind)
        return made if wanted is None or wanted == kind else made.cast(DTYPES[wanted])

    def _call(self, node: Node, kind: Kind) -> pl.Expr:
        if node.op in {"and", "or", "not"}:
            args = [self.expression(arg, "boolean") for arg in node.args]
            return ~args[0] if node.op == "not" else _LOGIC[node.op](args[0], args[1])
        if node.op in _COMPARE or node.op == "in":
            return self._comparison(node)
        if node.op in _ARITHMETIC or node.op in {"negate", "plus"}:
            return self._arithmetic(node, kind)
        if node.op in {"min", "max", "coalesce", "if"}:
            return self._choice(node, kind)
        return self._function(node, kind)

    def _comparison(self, node: Node) -> pl.Expr:
        found = [self.kind(arg) for arg in node.args]
        temporal = any(kind in TEMPORAL for kind in found)
        kind: Kind = "datetime" if temporal else common(found) or "text"
        left, *others = [
            self._moment(arg) if temporal and arg.op == "literal" else self.expression(arg, kind)
            for arg in node.args
        ]
        if node.op == "in":
            return reduce(lambda a, b: a | b, (left == other for other in others))
        return _COMPARE[node.op](left, others[0])

    def _moment(self, node: Node) -> pl.Expr:
        try:
            value = dt.datetime.fromisoformat(str(node.value))
        except ValueError:
            what = f"{node.value!r} is no date such as '2026-01-31' or '2026-01-31 23:59:00'"
            self.formula.refuse(node, what)
        if value.tzinfo is not None:
            value = value.astimezone(dt.UTC).replace(tzinfo=None)
        return pl.lit(value, DTYPES["datetime"])

    def _arithmetic(self, node: Node, kind: Kind) -> pl.Expr:
        if node.op == "-" and common([self.kind(arg) for arg in node.args]) in TEMPORAL:
            left, right = (self.expression(arg, "datetime") for arg in node.args)
            return (left - right).dt.total_microseconds() / 86_400_000_000
        if kind == "text":
            left, right = (self.expression(arg, "text") for arg in node.args)
            return left + right
        args = [self.expression(arg, kind) for arg in node.args]
        if node.op == "plus":
            return args[0]
        if kind == "integer":
            args = [arg.cast(_WIDE) for arg in args]
        if node.op == "negate":  # polars cannot negate 128 bits
            made = pl.lit(0, _WIDE) - args[0] if kind == "integer" else -args[0]
        else:
            made = _ARITHMETIC[node.op](args[0], args[1])
        return made.cast(pl.Int64, strict=True) if kind == "integer" else made.fill_nan(None)

    def _choice(self, node: Node, kind: Kind) -> pl.Expr:
        if node.op == "if":
            condition, yes, no = node.args
            chosen = pl.when(self.expression(condition, "boolean"))
            return chosen.then(self.expression(yes, kind)).otherwise(self.expression(no, kind))
        args = [self.expression(arg, kind) for arg in node.args]
        if node.op == "coalesce":
            return pl.coalesce(*args)
        return pl.min_horizontal(*args) if node.op == "min" else pl.max_horizontal(*args)

    def _function(self, node: Node, kind: Kind) -> pl.Expr:
        if node.op in _ON_TEXT or node.op == "concat":
            args = [self.expression(arg, "text") for arg in node.args]
            return pl.concat_str(args) if node.op == "concat" else _ON_TEXT[node.op](args)
        if node.op in {"sqrt", "log", "log10", "exp"}:
            args = [self.expression(arg, "number") for arg in node.args]
            made = args[0].log(args[1]) if len(args) > 1 else _MATHS[node.op](args[0])
            return made.fill_nan(None)
        first, *rest = node.args
        made = self.expression(first)
        if node.op in {"round", "substring"}:
            made = made.cast(DTYPES[kind])
            return _CUT[node.op](made, [int(arg.value or 0) for arg in rest])
        if node.op in _MATHS:  # abs, floor, ceil
            return self._rounding(node.op, made, kind)
        return self._conversion(node, made, kind)

    def _rounding(self, op: str, made: pl.Expr, kind: Kind) -> pl.Expr:
        if kind != "integer":
            return _MATHS[op](made.cast(DTYPES[kind]))
        return made.cast(_WIDE).abs().cast(pl.Int64, strict=True) if op == "abs" else made

    def _conversion(self, node: Node, made: pl.Expr, kind: Kind) -> pl.Expr:
        if node.op == "is_missing":
            return made.is_null()
        if node.op in _PARTS:
            made = made.cast(DTYPES["datetime"]) if self.kind(node.args[0]) == "missing" else made
            return _PARTS[node.op](made).cast(pl.Int64)
        if node.op == "date" and self.kind(node.args[0]) == "text":
            return made.str.to_date("%Y-%m-%d", strict=False)
        made = made.cast(DTYPES[kind], strict=False)  # date, number, text
        return made.fill_nan(None) if kind == "number" else made


def _utc(moment: pl.Expr) -> pl.Expr:
    # A time with a zone is converted to UTC; one without a zone stays as it is.
    return moment.map_batches(
        lambda s: (
            s.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
            if getattr(s.dtype, "time_zone", None)
            else s
        ),
        return_dtype=pl.Datetime("us"),
    )


_Two = Callable[[pl.Expr, pl.Expr], pl.Expr]
_One = Callable[[pl.Expr], pl.Expr]

_LOGIC: dict[str, _Two] = {"and": lambda a, b: a & b, "or": lambda a, b: a | b}
_COMPARE: dict[str, _Two] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
_ARITHMETIC: dict[str, _Two] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a.cast(pl.Float64) / b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "**": lambda a, b: a.cast(pl.Float64).pow(b.cast(pl.Float64)),
}
_MATHS: dict[str, _One] = {
    "sqrt": lambda a: a.sqrt(),
    "log": lambda a: a.log(),
    "log10": lambda a: a.log10(),
    "exp": lambda a: a.exp(),
    "abs": lambda a: a.abs(),
    "floor": lambda a: a.floor(),
    "ceil": lambda a: a.ceil(),
}
_ON_TEXT: dict[str, Callable[[list[pl.Expr]], pl.Expr]] = {
    "lower": lambda a: a[0].str.to_lowercase(),
    "upper": lambda a: a[0].str.to_uppercase(),
    "strip": lambda a: a[0].str.strip_chars(),
    "length": lambda a: a[0].str.len_chars().cast(pl.Int64),
    "contains": lambda a: a[0].str.contains(a[1], literal=True),
    "starts_with": lambda a: a[0].str.starts_with(a[1]),
    "ends_with": lambda a: a[0].str.ends_with(a[1]),
    "replace": lambda a: a[0].str.replace_all(a[1], a[2], literal=True),
}
_CUT: dict[str, Callable[[pl.Expr, list[int]], pl.Expr]] = {
    "round": lambda a, digits: a.round(sum(digits)),  # whole numbers stay as they are
    "substring": lambda a, at: a.str.slice(*at),
}
_PARTS: dict[str, _One] = {
    "year": lambda a: a.dt.year(),
    "month": lambda a: a.dt.month(),
    "day": lambda a: a.dt.day(),
    "weekday": lambda a: a.dt.weekday(),
    "hour": lambda a: a.dt.hour(),
    "minute": lambda a: a.dt.minute(),
    "second": lambda a: a.dt.second(),
}


def overflow(error: pl.exceptions.InvalidOperationError) -> InputProblemError:
    """Return the error for a result beyond 64-bit whole numbers, in the formula's terms."""
    return InputProblemError(
        "formula_overflow",
        f"A formula's result does not fit a 64-bit whole number ({str(error).splitlines()[0]}).",
        "Multiply one side by 1.0 to compute with fractions.",
    )

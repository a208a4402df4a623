"""The formulas: what they mean, what is refused, and that nothing of them is ever executed."""

import datetime as dt
import math
import operator
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.ray_jobs.formulas import engine as formula_engine
from tasks.ray_jobs.formulas import language as formulas
from tasks.ray_jobs.formulas.language import Node, parse
from tasks.ray_jobs.protocol import InputProblemError

FRAME = pl.DataFrame(
    {
        "a": [1, -7, None, 0],
        "b": [2.5, 2.0, 4.0, None],
        "unit price": [10, 20, 30, 40],
        "sensor.temp": [1.5, None, -2.0, 8.0],
        "who": ["Ann ", "bob", None, ""],
        "ok": [True, False, None, True],
        "day": [dt.date(2026, 1, 31), dt.date(2025, 12, 1), None, dt.date(2026, 3, 2)],
    }
)
KINDS = formula_engine.kinds(FRAME.schema)


def value(text: str, frame: pl.DataFrame = FRAME) -> list[Any]:
    made, _ = formula_engine.build(parse(text, "f"), formula_engine.kinds(frame.schema))
    return frame.with_columns(_x=made)["_x"].to_list()


def refused(text: str) -> str:
    with pytest.raises(InputProblemError) as caught:
        value(text)
    assert "\n" not in str(caught.value).replace(text, "")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("df['a'] * df['b']", [2.5, -14.0, None, None]),
        ('df["unit price"] + 1', [11, 21, 31, 41]),
        ("`unit price` // 3", [3, 6, 10, 13]),
        ("col('sensor.temp') * 2", [3.0, None, -4.0, 16.0]),
        ("sensor.temp > 0 and a >= 1", [True, False, False, False]),
        ("df.a + 1", [2, -6, None, 1]),
        ("a / 2", [0.5, -3.5, None, 0.0]),
        ("-a % 4", [3, 3, None, 0]),
        ("2 ** -1 * 4", [2.0] * 4),
        ("-2 ** 2", [-4.0] * 4),
        ("0 < a <= 1", [True, False, None, False]),
        ("(a > 0) & (b < 3) | ok", [True, False, None, True]),
        ("not ok", [False, True, None, False]),
        ("who in ('bob', 'eve')", [False, True, None, False]),
        ("a not in (1, -7)", [False, False, None, True]),
        ("upper(strip(who))", ["ANN", "BOB", None, ""]),
        ("contains(who, 'n')", [True, False, None, False]),
        ("length(who)", [4, 3, None, 0]),
        ("if(is_missing(a), 0, a)", [1, -7, 0, 0]),
        ("coalesce(a, `unit price`)", [1, -7, 30, 0]),
        ("min(a, b)", [1.0, -7.0, 4.0, 0.0]),
        ("np.abs(a)", [1, 7, None, 0]),
        ("round(b)", [2.0, 2.0, 4.0, None]),
        ("year(day) * 100 + month(day)", [202601, 202512, None, 202603]),
        ("day > '2026-01-01'", [True, False, None, True]),
        ("day - date('2026-01-01')", [30.0, -31.0, None, 60.0]),
        ("number('12') + number('x')", [None] * 4),
        ("who + '!'", ["Ann !", "bob!", None, "!"]),
        ("a == 1 or None", [True, None, None, None]),
        ("substring(who, 1, 2)", ["nn", "ob", None, ""]),
        ("replace(who, 'b', '.')", ["Ann ", ".o.", None, ""]),
        (r"who == 'it\'s'", [False, False, None, False]),
    ],
)  # fmt: skip
def test_formulas_mean_what_they_say(text: str, expected: list[Any]) -> None:
    assert value(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "character 1: a value, a column or a function was expected"),
        ("a +", "and here is 'the end'"),
        ("prise * 2", "no column 'prise'"),
        ("`unit prise`", "Did you mean 'unit price'?"),
        ("df['a'", "']' was expected"),
        ("sqr(a)", "Did you mean sqrt?"),
        ("__import__('os')", "no function '__import__'"),
        ("__import__('os').system('id')", "character 17: '.' has no meaning here"),
        ("().__class__", "'.' has no meaning here"),
        ("a.__class__", "no column 'a.__class__'"),
        ("[x for x in a]", "character 1"),
        ("lambda: 1", "character 7"),
        ("a = 1", "Compare by =="),
        ("a; b", "character 2: ';' has no meaning here"),
        ("'abc", "the quote ' is never closed"),
        ("who * 2", "column 'who' is text"),
        ("a > 'x'", "cannot compare integer with text"),
        ("a > 1 & b < 2", "in parentheses"),
        ("a == None", "is_missing"),
        ("day > 'soon'", "no date such as"),
        ("round(a, b)", "plain whole number"),
        ("9" * 30, "at most 18 digits"),
        ("1e999", "too large"),
        ("(" * 60 + "a" + ")" * 60, "nested more than"),
        ("+".join("a" * 600), "more than 500 parts"),
        ("a" * 5000, "characters long"),
    ],
)
def test_what_is_no_formula_is_refused_with_its_place(text: str, words: str) -> None:
    assert words in refused(text)


def test_a_tower_of_powers_costs_nothing() -> None:
    assert value("9 ** 9 ** 9") == [math.inf] * 4
    deep = "**".join(["2"] * 60)
    assert "nested" in refused(deep)


def test_whole_numbers_never_wrap_round() -> None:
    frame = pl.DataFrame({"a": [1 << 62, 5]})
    for text in ("a * 4", "a + a + a", "-a * 2 - a", "a - -a - -a"):
        with pytest.raises(pl.exceptions.InvalidOperationError) as caught:
            value(text, frame)
        assert "64-bit" in str(formula_engine.overflow(caught.value))
    assert value("a * 4.0", frame)[0] == float(1 << 64)


JUNK = st.text(max_size=80) | st.text("abdfcol[]()'\"`.*+-/%<>=!&|~,0123456789 nor_e", max_size=60)


@given(JUNK)
@settings(max_examples=1000, deadline=None)
def test_any_text_is_a_formula_or_a_told_mistake(text: str) -> None:
    before = set(sys.modules)
    with suppress(InputProblemError):  # and nothing else
        formula_engine.build(parse(text, "f"), KINDS)
    assert not set(sys.modules) - before - {"zoneinfo"}


# -- against an interpreter of its own ---------------------------------------------------------

COLUMNS: dict[str, formulas.Kind] = {
    **dict.fromkeys("ij", "integer"),
    **dict.fromkeys("xy", "number"),
    "p": "boolean",
}
ROWS = st.fixed_dictionaries(
    {
        **{name: st.none() | st.integers(-50, 50) for name in "ij"},
        **{name: st.none() | st.floats(-50, 50).map(lambda f: round(f, 2)) for name in "xy"},
        "p": st.none() | st.booleans(),
    }
)
OPERATORS = st.sampled_from(["+", "-", "*", "/", "//", "%"])
COMPARED = st.sampled_from(["<", ">=", "=="])
NUMBERS = st.recursive(
    st.sampled_from("ijxy") | st.integers(0, 20).map(str) | st.sampled_from(["0.5", "2.25"]),
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, OPERATORS, inner),
        st.builds("-{}".format, inner),
        st.builds("abs({})".format, inner),
        st.builds("coalesce({}, {})".format, inner, inner),
        st.builds("max({}, {})".format, inner, inner),
    ),
    max_leaves=8,
)
TRUTHS = st.recursive(
    st.just("p") | st.builds("{} {} {}".format, NUMBERS, COMPARED, NUMBERS),
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from(["and", "or"]), inner),
        st.builds("not ({})".format, inner),
    ),
    max_leaves=4,
)


FORMULA = parse("i", "for messages")
BINARY: dict[str, Callable[..., Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "<": operator.lt,
    ">=": operator.ge,
    "==": operator.eq,
    "not": operator.not_,
    "negate": operator.neg,
    "abs": abs,
}


def interpret(node: Node, row: dict[str, Any]) -> Any:  # noqa: ANN401
    """One value of one row, by Python's own arithmetic: slow, and written without the engine."""
    if node.op in {"literal", "column"}:
        return node.value if node.op == "literal" else row[str(node.value)]
    args = [interpret(arg, row) for arg in node.args]
    known = [arg for arg in args if arg is not None]
    if node.op in {"and", "or"}:
        decides = node.op == "or"
        return decides if decides in known else None if len(known) < 2 else not decides
    if node.op in {"coalesce", "max"}:
        result = None if not known else known[0] if node.op == "coalesce" else max(known)
    elif None in args:
        return None
    else:
        result = BINARY[node.op](*args) if node.op in BINARY else divide(node.op, *args)
    if result is not None and formulas.kind_of(FORMULA, node, COLUMNS) == "number":
        return None if math.isnan(result) else float(result)
    if isinstance(result, int) and not -(1 << 63) <= result < 1 << 63:
        raise OverflowError
    return result


def divide(op: str, a: float, b: float) -> float | None:
    if b == 0:
        if op != "/" and isinstance(a, int) and isinstance(b, int):
            return None  # whole numbers know no infinity
        return None if a == 0 or op == "%" else math.copysign(math.inf, a) * math.copysign(1, b)
    if op == "/":
        return a / b
    if isinstance(a, int) and isinstance(b, int):
        return a // b if op == "//" else a % b
    whole = math.floor(a / b) if math.isfinite(a / b) else a / b
    return whole if op == "//" else a - b * whole


@given(NUMBERS | TRUTHS, st.lists(ROWS, min_size=1, max_size=5))
@example("0 < 0 and 0 < coalesce(i, 0)", [dict.fromkeys(COLUMNS)] * 2)  # eager polars gives one row
@settings(max_examples=600, deadline=None)
def test_the_engine_agrees_with_an_interpreter(text: str, rows: list[dict[str, Any]]) -> None:
    formula = parse(text, "f")
    dtypes = {name: formula_engine.DTYPES[kind] for name, kind in COLUMNS.items()}
    frame = pl.DataFrame(rows, schema=dtypes)
    try:
        expected: list[Any] | None = [interpret(formula.tree, row) for row in rows]
    except OverflowError:
        expected = None
    made, _ = formula_engine.build(formula, COLUMNS)
    if expected is None:
        with pytest.raises(pl.exceptions.InvalidOperationError):
            frame.lazy().select(x=made).collect()
        return
    got = frame.lazy().with_columns(_x=made).collect()["_x"].to_list()  # lazily, as jobs do
    for ours, theirs in zip(got, expected, strict=True):
        assert ours == theirs or ours == pytest.approx(theirs, rel=1e-9, abs=1e-9), text


def test_every_function_has_an_engine() -> None:
    sample = {
        "round": "round(b, 1)", "log": "log(b, 2)", "substring": "substring(who, 1)",
        "if": "if(ok, 1, 2.5)", "replace": "replace(who, 'a', 'b')", "date": "date('2026-01-01')",
    }  # fmt: skip
    texts = {"lower", "upper", "strip", "length", "contains", "starts_with", "ends_with"}
    times = {"hour", "minute", "second"}
    frame = FRAME.with_columns(now=pl.lit(dt.datetime(2026, 1, 2, 3, 4, 5)))  # noqa: DTZ001
    for name, function in formulas.FUNCTIONS.items():
        column = "who" if name in texts else "now" if name in times else "b"
        column = "day" if name in {"year", "month", "day", "weekday"} else column
        text = sample.get(name, f"{name}({', '.join([column] * function.least)})")
        assert len(value(text, frame)) == 4, text

"""Text that people read as numbers is said to be text, with what would read it."""

from typing import Literal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ray_jobs.model import features, number_styles, target
from tasks.ray_jobs.protocol import InputProblemError

#: Thousands separator, decimal point, and what is said.
STYLES = (
    (",", ".", ("thousands ','",)),
    (".", ",", ("decimal ','",)),
    (" ", ".", ("thousands ' '",)),
    ("\u202f", ",", ("decimal ','", "thousands ' '")),
    ("'", ".", ('thousands "\'"',)),
)
SIGNS = ("${}", "{} €", "-{} %", "CHF {}", "{}")


def written(value: float, thousands: str, point: str) -> str:
    return f"{value:,.2f}".translate(str.maketrans(",.", thousands + point))


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(st.floats(1000.5, 1e9), min_size=1, max_size=20),
    style=st.sampled_from(STYLES),
    sign=st.sampled_from(SIGNS),
)
def test_a_column_of_written_numbers_is_told_with_what_reads_it(
    values: list[float], style: tuple[str, str, tuple[str, ...]], sign: str
) -> None:
    thousands, point, arguments = style
    text = [sign.format(written(value, thousands, point)) for value in values]
    plan = features.learn(pl.DataFrame({"price": [*text, "$7"], "n": range(len(text) + 1)}))
    (said,) = plan.notes
    assert said.startswith(f"column 'price' is taken for words, not for numbers: {text[0]!r}")
    assert all(each in said for each in arguments)
    if sign != "{}":
        assert f"take {sign.strip('{} -')!r}"[:-1] in said or "'$'" in said


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["12 %", "3.5 %"], "'12 %' is its first such value; to read numbers, take '%' out"),
        (["7", "1,234", "5,678"], "'1,234' is .*give thousands ',' or decimal ',', whichever"),
        (["1,5", "2,25"], "give decimal ','$"),
        (["abc", "x1", "$5"], None),
        (["1", "2.5"], None),
        (["2024-01-02", "10:30"], None),
        (["192.168.1.1", "1,2,3"], None),
        (["SKU 123", "SKU 7"], None),
        ([], None),
    ],
)
def test_what_is_said_and_of_what_nothing(values: list[str], words: str | None) -> None:
    said = number_styles.described(pl.Series("a", values, dtype=pl.String))
    if words is None:
        assert said is None
    else:
        assert said is not None
        assert pl.Series([said]).str.contains(words).all(), said


def test_a_target_of_written_numbers_is_refused_with_what_reads_it() -> None:
    prices = pl.Series("y", [f"${i},{i:03}" for i in range(1, 40)])
    tasks: tuple[Literal["auto", "regression"], ...] = ("auto", "regression")
    for task in tasks:
        with pytest.raises(InputProblemError, match=r"take '\$' out of the file, and give thous"):
            target.encode(prices, task)


def test_words_among_numbers_count_as_missing_and_are_named() -> None:
    plan = features.learn(pl.DataFrame({"a": [*map(str, range(50)), "unknown", "none yet"]}))
    assert plan.columns[0].role == "number"
    (said,) = plan.notes
    assert said.startswith("column 'a' is of numbers: 'unknown' and others that are none (2 of")


@pytest.mark.parametrize("code", ["02494", "+4915112345678", "2E10", "00475833115879003", "9" * 20])
def test_codes_are_words_to_a_model_too(code: str) -> None:
    frame = pl.DataFrame({"code": [*map(str, range(20)), code]})
    plan = features.learn(frame)
    assert plan.columns[0].role == "category"
    assert code in plan.columns[0].categories

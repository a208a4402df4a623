"""Dates by their bytes: what Python takes for one and no other text, wherever it stands."""

import datetime as dt
import re

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.ray_jobs.csv import datetimes as csv_datetimes

#: Text that is a date, nearly one, or anything.
NEARLY = st.from_regex(r"\A[0-9]{4}[-/][0-9]{2}-[0-9]{2}\Z") | st.text(max_size=12)
TEXT = st.none() | st.dates().map(str) | NEARLY | st.text("0123456789- +", max_size=11)


def date_of(text: str | None) -> dt.date | None:
    if text is None or not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        return None
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        return None


@given(
    st.lists(TEXT.filter(lambda text: not (text or "").startswith("0000")), max_size=20),
    st.integers(0, 20),
    st.integers(0, 20),
)
def test_a_date_is_what_python_takes_for_one(
    values: list[str | None], start: int, cut: int
) -> None:
    text = pl.Series("d", values, dtype=pl.String)
    there = text[cut:].clone().append(text[:cut])[start:]  # a part of a column in two chunks
    found = csv_datetimes.dates(there)
    assert (found.name, str(found.dtype)) == ("d", "Date")
    assert found.to_list() == [date_of(value) for value in [*values[cut:], *values[:cut]][start:]]


def test_every_day_there_is_is_read() -> None:
    days = pl.date_range(dt.date(1, 1, 1), dt.date(9999, 12, 31), eager=True).alias("d")
    assert csv_datetimes.dates(days.cast(pl.String)).equals(days)


@pytest.mark.parametrize(
    "text", ["2023-02-29", "1900-02-29", "2026-13-01", "2026-00-10", "2026-01-00"]
)
def test_a_day_that_is_none_is_missing(text: str) -> None:
    around = csv_datetimes.dates(pl.Series([text, "2024-02-29", "9999-12-31", "2000-02-29"]))
    assert around.to_list() == [
        None, dt.date(2024, 2, 29), dt.date(9999, 12, 31), dt.date(2000, 2, 29),
    ]  # fmt: skip

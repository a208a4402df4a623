"""Files of many columns: what is done for all columns at once gives what it gives one by one."""

import csv
import io

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from tasks.ray_jobs.csv import byte_ranges
from tasks.ray_jobs.csv import parsing as csv_parsing
from tasks.ray_jobs.csv import plan as csv_plan
from tasks.ray_jobs.csv import wide as csv_wide
from tasks.ray_jobs.csv.dialect import CsvOptions

#: Values of every type, near misses of each, and what may be missing.
ODD = (
    *("", "0", "-0", "7", "007", "-7", "+7", "1.5", ".5", "5.", "1e5", "1.0E10", "1E05", "1e16"),
    *("123456789012345", "1234567890123456", "9007199254740993", "9223372036854775808", "0.1"),
    *("123456789012345678901", "00.1", "nan", "NaN", "inf", "-Infinity", "true", "FALSE"),
    *("2024-01-31", "2024-02-30", "2024-01-31T23:59", "2024-01-31 23:59:00.5", "2024-01-31Z"),
    *("2024-01-31T00:00:00+01:00", "01/02/2024", "31.12.2024", "1,234", "$5", "1.234,5", "NA"),
    *("null", " 7", "7 ", "a", "word", "0x1F", "Zoë", 'said "x"', "two\nlines", "٣"),
)
VALUES = st.one_of(
    st.sampled_from(ODD),
    st.integers().map(str),
    st.floats().map(str),
    st.dates().map(str),
    st.datetimes().map(str),
    st.text(alphabet="0123456789+-.eE ", max_size=6),
)
TABLES = st.integers(1, 5).flatmap(
    lambda height: st.lists(st.lists(VALUES, min_size=height, max_size=height), min_size=2)
)


def read(columns: list[list[str]], missing: list[str] | None) -> tuple[csv_parsing.Form, object]:
    """Return what the reader finds: the form by the first record, and all records parsed by it."""
    written = io.StringIO(newline="")
    csv.writer(written, lineterminator="\n").writerows(zip(*columns, strict=True))
    data = written.getvalue().encode()
    names = [f"c{number}" for number in range(len(columns))]
    said = csv_plan.said(CsvOptions(missing=missing))
    marks, regular = byte_ranges.toggles(data, said.byte)
    piece = byte_ranges.Piece(0, len(data), data, marks, regular)
    sample = data[: byte_ranges.last_record(data[: len(data) // 2], marks)]
    form = csv_parsing.fitted(sample or data, names, said)
    return form, csv_parsing.parse(piece, form)


@pytest.mark.slow
@settings(deadline=None)
@given(columns=TABLES, missing=st.sampled_from([None, [], ["", "7", "word"]]))
@example(columns=[["true", "false"], ["inf", "1"], ["nan", "NaN"]], missing=[])
@example(columns=[["2024-01-31", "2024-01-31T23:59"], ["", "1.5"], ["", ""]], missing=None)
def test_columns_are_read_alike_at_once_and_one_by_one(
    columns: list[list[str]], missing: list[str] | None
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_wide, "MANY_COLUMNS", 1)
        form, block = read(columns, missing)
        patch.setattr(csv_wide, "MANY_COLUMNS", 1 << 30)
        expected_form, expected = read(columns, missing)
    assert form == expected_form
    assert isinstance(block, csv_parsing.Block)
    assert isinstance(expected, csv_parsing.Block)
    assert_frame_equal(block.frame, expected.frame)
    assert (block.rows, block.rejects) == (expected.rows, expected.rejects)
    assert (block.needed, block.notes) == (expected.needed, expected.notes)


@pytest.mark.slow
def test_columns_below_each_other_come_back_as_they_were() -> None:
    columns = [pl.Series("a", ["x", None]), pl.Series("b", ["", "y"])]
    found = csv_wide.each(lambda text: text.str.to_uppercase(), columns)
    assert [(column.name, column.to_list()) for column in found] == [
        ("a", ["X", None]),
        ("b", ["", "Y"]),
    ]

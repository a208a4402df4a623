"""One file, the same rows whoever reads it: the readers of all tasks beside Python's csv.

The tasks' own reading functions are called in this process, without Ray.
"""

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from celray_csv import converted
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tasks.ray_jobs.aggregation import job as aggregation_job
from tasks.ray_jobs.csv import text as csv_text
from tasks.ray_jobs.csv.dialect import Written
from tasks.ray_jobs.inputs.sources import Source
from tasks.ray_jobs.protocol import InputProblemError
from tasks.ray_jobs.tables import reading

#: What stands in one of 400 rows, twice: a quote that ends inside its field, by whatever writer.
ODD = [
    '"NORTH SHORE " SUPPLY LTD."',
    '"said \\" once"',
    '5" pipe',
    'O"Brian',
    '"a"b"c"',
    '""x"',
]


def training(path: Path) -> int:
    """As training, search, predictions from files and retraining do."""
    return reading.read(Source((path,), "csv")).height


def aggregation(path: Path) -> int:
    return aggregation_job.summarise(
        aggregation_job.Wanted((), None), aggregation_job.Item(path.name, path)
    ).rows


def conversion(path: Path) -> int:
    """As ``process_large_csv`` and ``process_new_data`` do, range by range."""
    return converted(path, 3, separator=",").height


def narrowly(path: Path) -> int:
    """As aggregates of some columns do; these are what they are among all."""
    first = csv_text.begin(path, Written(","), "data_sources")[0].columns[0]
    item = aggregation_job.Item(path.name, path)
    some = aggregation_job.summarise(aggregation_job.Wanted((), {first: ["count"]}), item)
    every = aggregation_job.summarise(aggregation_job.Wanted((), None), item)
    assert aggregation_job.describe(some) == {first: aggregation_job.describe(every)[first]}
    return some.rows


READERS: list[Callable[[Path], int]] = [training, aggregation, conversion, narrowly]


def records(content: bytes) -> list[list[str]]:
    """Return a file's rows as Python's csv module sees them."""
    text = io.StringIO(content.decode("utf-8-sig"), newline="")
    return [record for record in csv.reader(text) if record][1:]


def told(reader: Callable[[Path], int], path: Path) -> int | InputProblemError:
    try:
        return reader(path)
    except InputProblemError as error:
        return error


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("at", [(10, 380), (10, 200, 380), (0, 1), (399,)])
@pytest.mark.parametrize("odd", ODD)
def test_no_row_vanishes_for_a_quote_within_a_field(
    tmp_path: Path, reader: Callable[[Path], int], at: tuple[int, ...], odd: str
) -> None:
    rows = [f"{i},{i / 7:.3f},{odd if i in at else 'plain'},{i % 2}" for i in range(400)]
    (tmp_path / "a.csv").write_text("\n".join(["id,x,name,target", *rows]) + "\n")
    assert reader(tmp_path / "a.csv") == 400
    kept = reading.read(Source((tmp_path / "a.csv",), "csv"))
    assert kept["id"].to_list() == list(range(400))
    expected = [record[2] for record in records((tmp_path / "a.csv").read_bytes())]
    assert kept["name"].to_list() == expected


#: Pieces of which a file is made: what decides where records and fields end, and what does not.
BITS = st.sampled_from(
    [b'"', b'""', b",", b"\n", b"\r\n", b"\n\n", b"a", b"1", b"2.5", b"NA", b"\\", b" ",
     b"\xc3\xa4", b";", b"\t", b"007", b"2024-01-31", b"x,y\n", b'"q",1\n', b"\xff", b"\0", b"\r"]
)  # fmt: skip


@pytest.mark.slow
@given(st.integers(1, 3), st.lists(BITS, min_size=1, max_size=40).map(b"".join))
@example(2, b'1,"a " b"\n2,c\n3,"d " e"\n')
@example(1, b'""\n\n""\n')
@example(2, b'1,"x\n2,y"\n')
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_bytes_are_the_same_rows_to_every_task_or_an_error_that_says_where(
    tmp_path: Path, columns: int, content: bytes
) -> None:
    """Never fewer rows without a word: Python's csv module has the last one."""
    path = tmp_path / "any.csv"
    path.write_bytes(b",".join([b"a", b"b", b"c"][:columns]) + b"\n" + content)
    answers = [told(reader, path) for reader in READERS]
    counts = [answer for answer in answers if isinstance(answer, int)]
    errors = [answer for answer in answers if isinstance(answer, InputProblemError)]
    assert not counts or not errors, answers
    if counts:
        expected = records(path.read_bytes())
        assert set(counts) == {len(expected)}
        assert all(len(record) == columns for record in expected)
    for error in errors:  # of two faults in a file each may name the other
        assert "\n" not in str(error)
        assert str(path) in str(error)
        assert error.kind != "row_invalid" or re.search(r"any\.csv, row [0-9]+: ", str(error))


def test_a_header_that_is_all_there_is_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"a,b\n")
    for reader in READERS:
        error = told(reader, tmp_path / "a.csv")
        assert isinstance(error, InputProblemError)
        assert error.kind == "file_empty"


def test_a_wide_table_is_read_as_quickly_as_a_long_one_of_as_many_values(tmp_path: Path) -> None:
    """In polars' calls, not in seconds: the schema of all columns is not made for each of them."""
    made = 0

    class Counted(pl.Schema):
        def __init__(self, *args: object, **more: object) -> None:
            nonlocal made
            made += 1
            super().__init__(*args, **more)  # type: ignore[arg-type]

    rows = [",".join(str(i * j) for i in range(400)) for j in range(12)]
    header = ",".join(f"c{i}" for i in range(400))
    (tmp_path / "wide.csv").write_text("\n".join([header, *rows]) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("polars.dataframe.frame.Schema", Counted)
        assert reading.read(Source((tmp_path / "wide.csv",), "csv")).width == 400
    assert 0 < made < 100

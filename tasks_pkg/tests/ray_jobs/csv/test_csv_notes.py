"""Where a rule had to choose, every task's warnings name column, first value, row and way out."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from celray_jobs import ALL, Place, Task, place_in

from tasks.ray_jobs.csv import plan as csv_plan
from tasks.ray_jobs.csv.dialect import CsvOptions
from tasks.ray_jobs.csv.files import MISSING
from tasks.ray_jobs.inputs.sources import Source
from tasks.ray_jobs.tables import reading

#: As many countries write their code, and as many programs a value that is not there.
TABLE = "a,b,day,country,n,share,target\n" + "".join(
    f"{i},{i % 7},2024-01-{i % 28 + 1:02},{('DE', 'NA', 'FR', '')[i % 4]},"
    f"{'?' if i == 30 else i},{i}.5%,{'xy'[i % 2]}\n"
    for i in range(60)
)
SAID = {
    "column 'country' is text: 'NA' (noted.csv, row 2) counts as a missing value.": "missing ['']",
    "column 'n' is text: '?' (noted.csv, row 31) is no number, and most others": "with '?' in it",
    "column 'share' is text: '0.5%' (noted.csv, row 1) is no number as": "take the sign '%' out",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place_in(tmp_path_factory.mktemp("noted") / "place") as made:
        (made.datasets / "noted.csv").write_text(TABLE)
        (made.datasets / "numbers").mkdir()
        made.model = made.call("distributed_training", "noted.csv")["model_path"]
        yield made


def warnings(task: str, place: Place, name: str, **said: object) -> str:
    every = {"aggregations": None} if task == Task.AGGREGATE else {}
    shutil.rmtree(place.root / "models/registry/m", ignore_errors=True)  # each a first version
    result = place.call(task, name, **every, **said)
    return "\n".join(
        result["models"][0]["warnings"] if task == Task.RETRAIN else result["warnings"]
    )


@pytest.mark.parametrize("task", ALL)
def test_every_task_says_what_it_chose(place: Place, task: str) -> None:
    (place.datasets / "numbers" / "noted.csv").write_text(TABLE.replace("?", "7"))
    # What the model takes for a number must be one.
    said = warnings(task, place, "numbers/noted.csv" if task == Task.PREDICT else "noted.csv")
    for words, way in SAID.items():
        if task == Task.PREDICT and "missing" not in words:
            continue
        (line,) = [text for text in said.split("\n") if words in text]
        assert way in line


@pytest.mark.parametrize("task", ALL)
def test_nothing_is_said_of_missing_words_that_were_named(place: Place, task: str) -> None:
    words = "counts as a missing value"
    assert words not in warnings(task, place, "noted.csv", missing=["", "?"])
    if task in {Task.CSV, Task.INBOX}:
        output = place.datasets / "out.parquet"
        if task == Task.INBOX:
            output = max(
                (place.datasets / "processed").glob("*.parquet"), key=lambda p: p.stat().st_mtime_ns
            )
        frame = pl.read_parquet(output)
        assert "NA" in frame["country"].to_list()
        assert frame["n"].dtype == pl.Int64


@pytest.mark.parametrize("task", [task for task in ALL if task != Task.PREDICT])
def test_a_first_line_that_seems_to_be_a_row_is_said(place: Place, task: str) -> None:
    name = f"row_{task}.csv"
    values = [f"{i},{i % 7},2024-01-01,x,{i}.25,{'xy'[i % 2]}\n" for i in range(1, 41)]
    (place.datasets / name).write_text("a,b,day,country,17.25,target\n" + "".join(values))
    assert "seems to be a row" not in warnings(task, place, name)  # a and b are numbers too
    values = [f"r{i},w{i % 7},2024-01-01,x,{i}.25,{'xy'[i % 2]}\n" for i in range(1, 41)]
    (place.datasets / name).write_text("a,b,day,country,17.25,target\n" + "".join(values))
    if task not in {Task.CSV, Task.AGGREGATE}:  # whose filters and keys need numbers
        (line,) = [s for s in warnings(task, place, name).split("\n") if "seems to be a row" in s]
        assert f"{name}: its first line was taken for the header" in line
        assert "a column is called '17.25'" in line


@pytest.mark.parametrize("word", [word for word in MISSING if word])
@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("odd", ["", '6,"x "y\n'])
def test_each_word_is_said_whichever_way_a_piece_is_parsed(
    tmp_path: Path, word: str, quick: bool, odd: str
) -> None:
    """A word among numbers, a quote or a blank line each take another way through the parser."""
    number = "5" if quick else word
    rows = f"1,\n{number},b\n\n3,{word}\n4,{word}\n{odd}"
    (tmp_path / "a.csv").write_text(f"n,t\n{rows}")
    told: list[str] = []
    frame = reading.read(Source((tmp_path / "a.csv",), "csv"), (), told)
    assert frame["n"].dtype == pl.Int64
    assert frame["t"].to_list()[:4] == [None, "b", None, None]
    (line,) = told
    assert line.startswith(f"column 't' is text: {word!r} (a.csv, row 3) counts as a missing value")
    kept = reading.read(
        Source((tmp_path / "a.csv",), "csv"), (), told, csv_plan.said(CsvOptions(missing=["", "-"]))
    )
    assert kept["t"].to_list()[:4] == [None, "b", word, word]
    assert len(told) == 1

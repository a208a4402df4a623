"""Rows read = used + filtered + rejected, in every task's result, with reasons and first places."""

import gzip
import json
from collections.abc import Iterator
from typing import Any

import polars as pl
import pytest
from celray_jobs import ALL, HEADER, ROWS, TABLES, Place, Task, place_in

from tasks.contracts import InvalidArgumentsError
from tasks.ray_jobs.accounting import account
from tasks.ray_jobs.aggregation import job as aggregation_job
from tasks.ray_jobs.tables import reading


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place_in(tmp_path_factory.mktemp("rows") / "place") as made:
        yield made


def of(result: dict[str, Any], task: str) -> dict[str, Any]:
    return result["models"][0] if task == Task.RETRAIN else result


@pytest.mark.parametrize("task", [*TABLES, Task.AGGREGATE])
def test_every_row_is_accounted_for(place: Place, task: str) -> None:
    odd = ["100,1,2024-01-01,", '101,2,2024-01-02,"x "', "102,3,2024-01-03,NA"]
    rows = [*ROWS[:10], *odd, *ROWS[10:], *ROWS[:5]]
    name = f"rows_{task}.csv"
    (place.datasets / name).write_text(HEADER + "\n".join(rows) + "\n")
    found = of(place.call(task, name), task)
    assert found["rows_read"] == len(rows)
    assert (
        found["rows_read"] == found["rows_used"] + found["rows_filtered"] + found["rows_rejected"]
    )
    learns = task not in {Task.PREDICT, Task.AGGREGATE}
    lacking = [one for one in found["left_out"] if one["reason"] == "it has no target"]
    assert lacking == ([{"reason": "it has no target", "rows": 2, "first": 11}] if learns else [])
    assert found["rows_filtered"] == sum(one["rows"] for one in found["left_out"])
    if task == Task.RETRAIN:
        (apart,) = [one for one in found["left_out"] if "held out" in one["reason"]]
        assert apart["rows"] > 0
        assert 1 <= apart["first"] <= len(rows)
    elif learns:
        assert found["rows_used"] == len(rows) - 2


def test_a_row_that_nobody_can_account_for_ends_the_job() -> None:
    with pytest.raises(RuntimeError, match="400 rows were read, 30 used, 0 left out"):
        account(400, 30, {})


# -- bad rows that are put aside -------------------------------------------------------------------

#: The 11th row, the 12th, and the 33rd: short, not in UTF-8, long.
BAD = {10: b"100,1", 11: b"101,2,2024-01-02,\xff", 32: b"102,3,2024-01-03,x,9"}


def with_bad_rows() -> bytes:
    rows = [row.encode() for row in ROWS]
    for at, row in BAD.items():
        rows.insert(at, row)
    return HEADER.encode() + b"\n".join(rows) + b"\n"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("task", ALL)
def test_bad_rows_are_put_aside_and_said_where_that_is_asked(
    place: Place, monkeypatch: pytest.MonkeyPatch, task: str, packed: bool
) -> None:
    monkeypatch.setattr(reading, "BLOCK_BYTES", 256)
    name = f"bad_{task}.csv" + (".gz" if packed else "")
    content = with_bad_rows()
    (place.datasets / name).write_bytes(gzip.compress(content) if packed else content)
    if task in {Task.CSV, Task.AGGREGATE, Task.INBOX, Task.RETRAIN}:
        assert "row 11: 2 fields, not 4" in refusal(place, task, name)
    else:  # of which the worker sees that not all is text
        assert "line 13: byte 0xff is not UTF-8" in refusal(place, task, name)
    result = place.call(task, name, bad_rows="reject")
    found = result["files"][0] if task == Task.INBOX else of(result, task)
    assert found["rows_rejected"] == 3
    if task == Task.INBOX:
        assert found["rows"] == 60
    if task in {Task.CSV, Task.INBOX}:  # theirs are a file
        rejects = pl.read_csv(found["rejects_file"], infer_schema=False)
        assert rejects["row"].to_list() == ["11", "12", "33"]
        return
    assert found["rows_read"] == 63
    assert found["rows_used"] + found["rows_filtered"] == 60
    assert [(one["row"], one["reason"]) for one in found["rejected"]] == [
        (11, "2 fields, not 4"),
        (12, "not UTF-8; where the whole file is not, say its encoding"),
        (33, "5 fields, not 4"),
    ]
    assert all(one["file"].endswith(name) for one in found["rejected"])
    said = f"3 of 63 rows of {name} were rejected (bad_rows)"
    assert sum(text.startswith(said) for text in found["warnings"]) == 1
    if task == Task.PREDICT:  # a row's number is its place in the file, rejected ones included
        ids = pl.read_parquet(found["predictions_path"])["id"].to_list()
        assert ids == [row for row in range(63) if row not in BAD]
    if task == Task.RETRAIN:
        text = (place.root / "models/registry/m/versions.json").read_text()
        assert json.loads(text)["versions"][-1]["parameters"]["bad_rows"] == "reject"


def refusal(place: Place, task: str, name: str, **csv: object) -> str:
    try:
        result = place.call(task, name, **csv)
    except InvalidArgumentsError as error:
        return str(error)
    return str(result["files" if task == Task.INBOX else "models"][0]["reason"])


@pytest.mark.parametrize("task", [task for task in ALL if task != Task.CSV])
def test_a_file_of_which_much_is_bad_is_not_what_it_was_taken_for(place: Place, task: str) -> None:
    rows = [*ROWS, *["1,2,2024-01-01"] * 7]
    (place.datasets / "much.csv").write_text(HEADER + "\n".join(rows) + "\n")
    before = place.files()
    said = refusal(place, task, "much.csv", bad_rows="reject")
    assert "7 of 67 rows are bad, and at most 10% of a file" in said
    assert "the first, row 61: 3 fields, not 4" in said
    left = {file for file in place.files() - before if not file.startswith("models/registry")}
    assert not left


def test_places_in_an_account_count_rejected_rows_too(place: Place) -> None:
    """A row's number is its place in the file, whatever became of those above it."""
    rows = [*ROWS[:20], "1,2", *ROWS[20:30], "5,6,2024-01-01,", *ROWS[30:]]
    (place.datasets / "places.csv").write_text(HEADER + "\n".join(rows) + "\n")
    result = place.call("distributed_training", "places.csv", bad_rows="reject")
    assert result["left_out"] == [{"reason": "it has no target", "rows": 1, "first": 32}]
    assert (result["rows_read"], result["rows_used"], result["rows_rejected"]) == (62, 60, 1)


@pytest.mark.parametrize("task", [task for task in ALL if task != Task.PREDICT])
def test_a_value_that_is_not_of_its_declared_type_makes_a_bad_row(place: Place, task: str) -> None:
    rows = [*ROWS[:20], "many,2,2024-01-01,x", *ROWS[20:]]
    name = f"declared_{task}.csv"
    (place.datasets / name).write_text(HEADER + "\n".join(rows) + "\n")
    said: dict[str, Any] = {"schema": {"a": "integer"}}
    assert "row 21: column 'a': 'many' is not" in refusal(
        place, task, name, bad_rows="fail", **said
    )
    result = place.call(task, name, bad_rows="reject", **said)
    found = result["files"][0] if task == Task.INBOX else of(result, task)
    assert found["rows_rejected"] == 1
    if task not in {Task.CSV, Task.INBOX}:
        (one,) = found["rejected"]
        assert (one["row"], one["column"]) == (21, "a")


def test_a_value_that_the_model_cannot_take_makes_a_bad_row_of_predictions(place: Place) -> None:
    """Over files, beside rows that are bad as records; numbers are places in all files."""
    folder = place.datasets / "values"
    folder.mkdir()
    first = [*ROWS[:5], "1,2", *ROWS[5:10], "many,2,2024-01-01,x", *ROWS[10:30]]
    second = ["1,none,2024-01-01,x", *ROWS[30:50], "1,2,yesterday,x", *ROWS[50:]]
    for number, rows in enumerate((first, second)):
        (folder / f"{number}.csv").write_text(HEADER + "\n".join(rows) + "\n")
    assert "is not a number" in refusal(place, Task.PREDICT, "values/1.csv")
    paths = ["values", "values"]
    result = place.local.run(
        Task.PREDICT, model_path=place.model, data_batches=paths, bad_rows="reject"
    )
    assert (result["rows_read"], result["rows_used"], result["rows_rejected"]) == (128, 120, 8)
    told = [
        (one["file"][-5:], one["row"], one["column"], one["reason"]) for one in result["rejected"]
    ]
    assert told[:4] == [
        ("0.csv", 6, "", "2 fields, not 4"),
        ("0.csv", 12, "a", "'many' is not a number"),
        ("1.csv", 1, "b", "'none' is not a number"),
        ("1.csv", 22, "day", "'yesterday' is not a date"),
    ]
    assert told[4:] == told[:4]
    ids = pl.read_parquet(result["predictions_path"])["id"].to_list()
    bad = {5, 11, 32, 53}
    assert ids == [n for n in range(128) if n % 64 not in bad]
    assert [text[:40] for text in result["warnings"] if "(bad_rows)" in text] == [
        "2 of 32 rows of 0.csv were rejected (bad", "2 of 32 rows of 1.csv were rejected (bad",
    ] * 2  # fmt: skip
    alone = place.call(Task.PREDICT, "good.csv")
    values = pl.read_parquet(alone["predictions_path"])["prediction"].to_list()
    assert pl.read_parquet(result["predictions_path"])["prediction"].to_list() == values * 2


def test_a_large_file_rejects_in_every_range(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges are read at once; places count over the whole file all the same."""
    monkeypatch.setattr(aggregation_job, "RANGE_BYTES", 1000)
    rows = [row for block in range(20) for row in (*ROWS, f"{block},1")]
    (place.datasets / "large.csv").write_text(HEADER + "\n".join(rows) + "\n")
    result = place.call(Task.AGGREGATE, "large.csv", bad_rows="reject")
    assert (result["rows_read"], result["rows_rejected"]) == (1220, 20)
    assert [one["row"] for one in result["rejected"]] == [61 * n for n in range(1, 11)]
    sums = pl.read_parquet(result["output_file"])
    assert sums["rows"].sum() == 1200

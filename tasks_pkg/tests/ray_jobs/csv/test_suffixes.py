"""Whatever a file is called and however it is packed: the same rows and values to every task.

The jobs run in this process, without Ray. What a file is to a task is held against what the plain
``.csv`` of the same table is to it: outputs by their rows, models by their bytes.
"""

import csv
import gzip
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from celray_jobs import ALL, PATHS, TABLES, Place, Task, place_in

from tasks.contracts import InvalidArgumentsError
from tasks.ray_jobs.accounting import ACCOUNT
from tasks.ray_jobs.inputs import sources

NAMES = ["a", "b", "day", "code", "word", "target"]
WORDS = ["plain", 'a "b"', "x\ty,z", "two\nlines", "NA", "é"]
ROWS = [
    [i, i % 7 + 0.5, f"2024-01-{i % 28 + 1:02}", f"{i % 4:03}", WORDS[i % 6], "xy"[i % 2]]
    for i in range(60)
]


def written(suffix: str, rows: list[list[Any]] = ROWS, end: str = "\n") -> bytes:
    """Write the table as a file of such a name is."""
    out = io.StringIO(newline="")
    tabs = ".tsv" in suffix.lower()
    writer = csv.writer(out, delimiter="\t" if tabs else ",", lineterminator=end)
    writer.writerow(NAMES)
    writer.writerows(rows)
    return packed(suffix, out.getvalue().encode())


def packed(suffix: str, content: bytes) -> bytes:
    """Pack it as its name says, into other bytes for each: no result shall be one of before."""
    how = sources.COMPRESSIONS.get(Path(f"a{suffix}").suffix.lower())
    number = sum(suffix.encode())
    if how == "gzip":
        return gzip.compress(content, mtime=number)
    if how == "zstd":
        frame = pa.compress(content, codec="zstd", asbytes=True)
        return bytes(frame) + b"\x50\x2a\x4d\x18\x02\0\0\0" + number.to_bytes(2)  # a note
    return content


SUFFIXES = [
    f"{kind}{packing}"
    for kind in sources.CSV_SUFFIXES
    for packing in ("", *sources.COMPRESSIONS)
    if kind + packing != ".csv"
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place_in(tmp_path_factory.mktemp("suffixes") / "place") as made:
        (made.datasets / "good.csv").write_bytes(written(".csv"))
        made.model = made.call("distributed_training", "good.csv")["model_path"]
        yield made


def call(place: Place, task: str, path: str) -> object:
    """Call a task on a file or folder that it has not seen; give what that is to it."""
    for name in ("m", "m.toml"):  # each is a first version
        old = place.root / "models" / "registry" / name
        if task == Task.RETRAIN and old.exists():
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    every: dict[str, Any] = {}
    if task == Task.AGGREGATE:
        every = {"group_by": ["code"], "aggregations": None}
    result = place.local.run(task, **{**place.arguments(task, path), **every})
    assert not result["reused"]
    return essence(task, result)


def essence(task: str, result: dict[str, Any]) -> object:
    """Return what a result says of the rows and values that were read, to the last bit."""
    if task == Task.CSV:
        account = {name: result[name] for name in ("rows_read", "rows_written", "rows_rejected")}
        return account, pl.read_parquet(result["output_file"]).rows(), result["columns"]
    if task == Task.INBOX:
        (file,) = result["files"]
        assert file["status"] == "done", file
        return file["rows"], pl.read_parquet(file["output"]).rows()
    if task == Task.RETRAIN:
        (result,) = result["models"]
    account = {name: result[name] for name in ACCOUNT}
    if task == Task.AGGREGATE:
        columns = [summary["columns"] for summary in result["summaries"]]
        return account, columns, pl.read_parquet(result["output_file"]).rows()
    if task == Task.PREDICT:
        return account, pl.read_parquet(result["predictions_path"]).rows()
    model = json.loads((Path(result["model_path"]) / "manifest.json").read_text())
    return account, model["signature"], model["result"]["metrics"], model["files"]


@pytest.fixture(scope="module")
def plain(place: Place) -> Callable[[str], object]:
    """Return what the plain file means to a task."""
    known: dict[str, object] = {}

    def give(task: str) -> object:
        if task not in known:
            (place.datasets / "plain.csv").write_bytes(written(".csv", end="\r\n"))
            known[task] = call(place, task, "plain.csv")
        return known[task]

    return give


@pytest.mark.parametrize("task", ALL)
@pytest.mark.parametrize("suffix", [*SUFFIXES, ".TSV.GZ"])
def test_a_table_is_the_same_to_every_task_whatever_it_is_called(
    place: Place, plain: Callable[[str], object], task: str, suffix: str
) -> None:
    expected = plain(task)
    name = f"{task}{suffix}"
    # Another end of lines than the plain one's: the same bytes would be the same request.
    content = written(suffix, end="\n" if suffix == ".TSV.GZ" else "\r\n")
    if suffix == ".txt":
        content += b"\r\n"
    (place.datasets / name).write_bytes(content)
    assert call(place, task, name) == expected


FOLDERS = [task for task in PATHS if task != Task.CSV]


@pytest.mark.parametrize("task", FOLDERS)
def test_a_folder_may_mix_them(place: Place, plain: Callable[[str], object], task: str) -> None:
    expected = plain(task)
    for name in ("mixed", "p"):
        shutil.rmtree(place.datasets / name, ignore_errors=True)
    folder = place.datasets / "mixed"
    folder.mkdir()
    parts = [".csv", ".tsv", ".csv.gz", ".tsv.zst"]
    for number, suffix in enumerate(parts):
        rows = ROWS[number * 15 : (number + 1) * 15]
        (folder / f"{number}{suffix}").write_bytes(written(suffix, rows))
        (place.datasets / f"p_part_{number}{suffix}").write_bytes(written(suffix, rows[::-1]))
    # What is no part of the data: a note, a copy of another kind, what somebody still writes.
    (folder / "readme.txt").write_text("See the wiki.\n")
    (folder / "4.csv.bz2").write_bytes(b"BZ")
    (folder / ".5.csv").write_text("x\n")
    assert call(place, task, "mixed") == expected
    result = place.local.run(task, **place.arguments(task, "p"))
    of = result["models"][0] if task == Task.RETRAIN else result
    assert (of["rows_read"], of["rows_rejected"]) == (60, 0)
    # Aggregates took packed files before.
    number = 2 if task == Task.AGGREGATE else 3
    told = f"{number} of 4 files, such as p_part_1.tsv, are read now"
    assert any(text.startswith(told) for text in of["warnings"])


@pytest.mark.parametrize("task", FOLDERS)
def test_the_same_rows_twice_are_refused(place: Place, task: str) -> None:
    folder = place.datasets / "twice"
    folder.mkdir(exist_ok=True)
    for suffix in (".csv", ".csv.gz"):
        (folder / f"a{suffix}").write_bytes(written(suffix))
        (place.datasets / f"q_part_0{suffix}").write_bytes(written(suffix))
    assert "a.csv.gz are the same file, compressed differently" in refused(place, task, "twice")
    assert "part 0 is there twice, as q_part_0.csv and as q_part_0.csv.gz" in refused(
        place, task, "q"
    )


def refused(place: Place, task: str, path: str) -> str:
    try:
        result = place.call(task, path)
    except InvalidArgumentsError as error:
        return str(error)
    entries = result["models"] if task == Task.RETRAIN else result["files"]
    assert [entry.get("outcome", entry.get("status")) for entry in entries] == ["failed"]
    return str(entries[0]["reason"])


@pytest.mark.parametrize("task", ALL)
@pytest.mark.parametrize("name", ["a.xlsx", "a.csv.bz2", "a.parquet.gz", "a.gz", "a"])
def test_a_suffix_that_no_task_takes_is_one_error_with_the_list(
    place: Place, task: str, name: str
) -> None:
    (place.datasets / name).write_bytes(written(".csv"))
    assert sources.CSV_NAMES in refused(place, task, name)


def test_a_note_alone_in_a_folder_is_no_table(place: Place) -> None:
    (place.datasets / "notes").mkdir()
    (place.datasets / "notes" / "a.txt").write_bytes(written(".txt"))
    for task in FOLDERS:
        assert "or a .txt file by itself" in refused(place, task, "notes")


@pytest.mark.parametrize("task", TABLES)
@pytest.mark.parametrize("suffix", [".csv.gz", ".tsv.zst"])
def test_what_was_done_before_is_found_again(place: Place, task: str, suffix: str) -> None:
    name = f"again-{task}{suffix}"
    (place.datasets / name).write_bytes(written(suffix, ROWS[:50]))
    call(place, task, name)
    result = place.local.run(task, **place.arguments(task, name))
    if task == Task.RETRAIN:
        assert result["models"][0]["outcome"] == "unchanged"
    else:
        assert result["reused"]
        if task != Task.PREDICT:
            assert re.fullmatch(f"again-{task}-[0-9a-f]{{12}}", Path(result["model_path"]).name)

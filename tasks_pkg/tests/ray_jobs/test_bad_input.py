"""Bad input, task by task: one readable line, before the job where it can be known, no leavings.

The jobs run in this process, without Ray: their own code, from the task's arguments to its files.
"""

import gzip
import io
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from celray_jobs import ALL, GOOD, HEADER, PATHS, ROWS, TABLES, Place, Task, place_in

from tasks.contracts import InvalidArgumentsError
from tasks.ray_jobs.aggregation import job as aggregation_job
from tasks.ray_jobs.csv import byte_ranges
from tasks.ray_jobs.large_csv import job as large_csv_job
from tasks.ray_jobs.tables import reading

#: A row of more is too long here; elsewhere the limit is 16 MiB, and the code the same.
RECORD_LIMIT = 1 << 16


def refused(
    place: Place,
    task: str,
    path: str,
    besides: str = "models/registry/m.toml",
    **more: Any,  # noqa: ANN401
) -> str:
    """Call a task on a file that it must not take; give its one line.

    Nothing is left of it but what begins with ``besides``.
    """
    before = place.files()
    try:
        result = place.call(task, path, **more)
    except InvalidArgumentsError as error:
        said = str(error)
    else:
        said = _told(task, result)
    finally:
        shutil.rmtree(place.datasets / "new", ignore_errors=True)
    assert "\n" not in said
    assert len(said) < 1000
    assert all(file.startswith(besides) for file in place.files() - before)
    return said


def _told(task: str, result: dict[str, Any]) -> str:
    """Return the reason in the result of a task whose failures are by model or by file."""
    if task == Task.RETRAIN:
        assert result["status"] == "failed", result
        (model,) = result["models"]
        assert model["outcome"] == "failed"
        return str(model["reason"])
    assert task == Task.INBOX, result
    assert (result["done"], result["failed"]) == (0, 1), result
    return str(result["files"][0]["reason"])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(byte_ranges, "RECORD_LIMIT_BYTES", RECORD_LIMIT)
        for module in (large_csv_job, aggregation_job):
            patch.setattr(module, "RANGE_BYTES", 1 << 15)
        patch.setattr(reading, "BLOCK_BYTES", 1 << 15)
        with place_in(tmp_path_factory.mktemp("bad") / "place") as made:
            yield made


def test_what_is_right_passes_everywhere(place: Place) -> None:
    for task in ALL:
        assert place.call(task, "good.csv")["status"] == "success"
    shutil.rmtree(place.datasets / "new")
    shutil.rmtree(place.datasets / "processed")


# -- paths -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", PATHS)
def test_a_path_must_be_one_under_the_roots(place: Place, task: str) -> None:
    (place.root / "secret.csv").write_text(GOOD)
    for name, target in (("link.csv", "secret.csv"), ("way", ".")):
        if not (place.datasets / name).is_symlink():
            (place.datasets / name).symlink_to(place.root / target)
    (place.datasets / "bare").mkdir(exist_ok=True)
    if not (place.datasets / "pipe.csv").exists():
        os.mkfifo(place.datasets / "pipe.csv")
    (place.datasets / "table.xlsx").write_bytes(b"PK")
    one = task == Task.CSV  # it takes one file, and more kinds of CSV
    for path, words in {
        "../secret.csv": "outside",
        "/etc/passwd": "outside",
        "link.csv": "outside",
        "way/secret.csv": "outside",
        " ": "is not a path",
        "x" * 5000 + ".csv": "is 5004 bytes long",
        "s3://bucket/x.csv": "is a URL",
        "goood.csv": "Did you mean 'good.csv'?",
        "bare": "is not a regular file" if one else "is a folder with no .csv",
        "pipe.csv": "is not a regular file",
        "table.xlsx": "is no CSV file by its name" if one else "does not end in .csv",
    }.items():
        assert words in refused(place, task, path), path
        assert place.here.started == (task == Task.RETRAIN), path
    if task != Task.RETRAIN:  # what TOML and JSON from other clients cannot hold
        for path in ("a\0b.csv", "\ud800.csv"):
            assert "is not a path" in refused(place, task, path)
            assert not place.here.started


def test_a_folder_for_deliveries_that_leads_out_is_not_followed(place: Place) -> None:
    (place.root / "elsewhere").mkdir()
    (place.root / "elsewhere" / "x.csv").write_text(GOOD)
    (place.datasets / "new").symlink_to(place.root / "elsewhere")
    try:
        with pytest.raises(InvalidArgumentsError, match="outside"):
            place.local.run(Task.INBOX, settle_seconds=0.0)
    finally:
        (place.datasets / "new").unlink()
    assert [path.name for path in (place.root / "elsewhere").iterdir()] == ["x.csv"]


@pytest.mark.parametrize("task", [Task.CSV, Task.AGGREGATE])
def test_an_output_must_be_a_file_under_the_roots(place: Place, task: str) -> None:
    if not (place.datasets / "away").is_symlink():
        (place.datasets / "away").symlink_to(place.root)
    (place.datasets / "mine.csv").write_text("a\n1\n")
    first = {"file_path": "good.csv"}
    given = first if task == Task.CSV else {"data_sources": ["good.csv"]}
    for output, words in {
        "../out.csv": "outside",
        "away/out.csv": "outside",
        "out.xlsx": "ends neither in .csv nor in .parquet",
        "good.csv": "is the input file itself",
        "mine.csv": "celray did not write it",
    }.items():
        before = place.files()
        with pytest.raises(InvalidArgumentsError) as caught:
            place.local.run(task, output_path=output, **given)
        assert words in str(caught.value)
        assert place.files() == before


# -- what is in the file ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """A file that cannot be used.

    Attributes:
        name: of the file.
        content: of the file.
        said: words of the error, by task or by group of tasks (``tables``, ``ranges``); those
            that are not named can use the file.
        late: the tasks or groups of which the job finds it, and not the worker.
    """

    name: str
    content: bytes
    said: dict[str, str]
    late: tuple[str, ...] = ()

    def words(self, task: str) -> str | None:
        return self.said.get(task, self.said.get(_group(task)))

    def is_late(self, task: str) -> bool:
        always = {Task.RETRAIN, Task.INBOX}  # theirs is a result, not an error
        return task in always or bool({task, _group(task)} & set(self.late))


def _group(task: str) -> str:
    return "tables" if task in TABLES else "ranges"


def both(words: str) -> dict[str, str]:
    return {"tables": words, "ranges": words}


def parquet(**columns: object) -> bytes:
    buffer = io.BytesIO()
    pl.DataFrame(columns).write_parquet(buffer)
    return buffer.getvalue()


def twice() -> bytes:
    buffer = io.BytesIO()
    one = pa.array([1] * 30)
    pq.write_table(pa.table([one, one, one], names=["a", "a", "b"]), buffer)
    return buffer.getvalue()


def with_line(line: str | bytes) -> bytes:
    """Put one line between good ones: the 62nd, or the 61st row."""
    middle = line.encode() if isinstance(line, str) else line
    return GOOD.encode() + middle + b"\n" + "\n".join(ROWS).encode() + b"\n"


def behind_a_megabyte(line: bytes) -> bytes:
    return (HEADER + "\n".join(ROWS * 1000) + "\n").encode() + line + b"\n"


LATE = ("tables", "ranges")
#: Tasks of which the worker looks into the file's first MiB.
SENT = [task for task in TABLES if task != Task.RETRAIN]
FAULTS = [
    Fault("empty.csv", b"", both("is empty (0 bytes)")),
    Fault("header.csv", HEADER.encode(), both("has a header and no rows")),
    Fault(
        "short.csv",
        with_line("1,2"),
        both("row 61: 2 fields, not 4") | {"tables": "row 61: 2 fields, not 4: '1,2'"},
        LATE,
    ),
    Fault(
        "long.csv",
        with_line("1,2,2024-01-01,x,9"),
        both("row 61: 5 fields, not 4"),
        LATE,
    ),
    Fault(
        "latin_header.csv",
        GOOD.replace("day", "t\xe4g").encode("latin-1"),
        both("header: byte 0xe4 is not UTF-8"),
    ),
    Fault(
        "latin.csv",
        with_line(b"1,2,2024-01-01,\xe4"),
        both("row 61: not UTF-8") | dict.fromkeys(SENT, "line 62: byte 0xe4 is not UTF-8"),
        ("ranges",),  # which may put the row aside
    ),
    Fault(
        "latin_late.csv",
        behind_a_megabyte(b"1,2,2024-01-01,\xe4"),
        both("row 60001: not UTF-8"),
        LATE,
    ),
    Fault("utf16.csv", GOOD.encode("utf-16")[:-1], both("not in the encoding 'utf-16'")),
    Fault("cr.csv", GOOD.replace("\n", "\r").encode(), both("ends its lines with CR alone")),
    Fault("nul_header.csv", GOOD.replace("day", "d\0y").encode(), both("header: a NUL byte")),
    Fault(
        "nul.csv",
        with_line("1,2,2024-01-01,\0"),
        both("row 61: a NUL byte") | dict.fromkeys(SENT, "line 62: a NUL byte"),
        ("ranges",),
    ),
    Fault(
        "nul_late.csv",
        behind_a_megabyte(b"1,2,2024-01-01,\0"),
        both("row 60001: a NUL byte"),
        LATE,
    ),
    Fault("one_line.csv", b"x" * (2 << 20), both("no line end in its first 1 MiB")),
    Fault(
        "long_line.csv",
        with_line("1,2,2024-01-01," + "x" * (4 * RECORD_LIMIT)),
        both("long_line.csv: the record at byte 1085 is longer than"),
        LATE,
    ),
    Fault(
        "quote.csv",
        with_line('1,2,2024-01-01,"x'),
        both("quote.csv: the quote at byte 1100 is never closed"),
        LATE,
    ),
    Fault("twice.csv", GOOD.replace("a,b", "a,a").encode(), both("column 'a' occurs 2 times")),
    Fault(
        "name.csv",
        GOOD.replace("day", "d" * 200_000).encode(),
        both("column 3 has a name of 200000 characters"),
    ),
    Fault(
        "no_target.csv",
        (HEADER + "\n".join(f"{i},1,2024-01-01," for i in range(60))).encode(),
        dict.fromkeys((t for t in TABLES if t != Task.PREDICT), "has no value in any row"),
        LATE,
    ),
    Fault(
        "words.csv",
        with_line("many,2,2024-01-01,x"),
        {
            Task.PREDICT: "'many' is not a number, which column 'a' of the model is",
            Task.CSV: "cannot compare text with integer",
            Task.AGGREGATE: "aggregations.a: sum needs numbers, and the column is text",
        },
        LATE,
    ),
    Fault(
        "lacks.csv",
        GOOD.replace("a,b", "c,d").encode(),
        {
            Task.PREDICT: "lacks column 'a', which the model",
            Task.CSV: "there is no column 'a'",
            Task.AGGREGATE: "column 'b' is not in",
        },
    ),
    Fault(
        "cut.csv.gz",
        gzip.compress((GOOD + "\n".join(ROWS * 300)).encode())[:-99],
        both("cannot be decompressed"),
    ),
    Fault("junk.csv.gz", b"no archive", both("cannot be decompressed")),
    Fault("junk.csv.zst", b"no archive", both("cannot be decompressed"), LATE),
    Fault(
        "junk.parquet",
        b"no Parquet file",
        both("cannot be read as Parquet") | {Task.CSV: "no CSV file by its name"},
    ),
    Fault(
        "cut.parquet",
        b"PAR1" + parquet(a=[1])[90:],
        both("cannot be read as Parquet") | {Task.CSV: "no CSV file by its name"},
        ("tables", Task.AGGREGATE),  # whose library workers do not have
    ),
    Fault(
        "twice.parquet",
        twice(),
        both("column 'a' occurs 2 times") | {Task.CSV: "no CSV file by its name"},
        ("tables", Task.AGGREGATE),
    ),
    Fault(
        "no_rows.parquet",
        parquet(a=[], b=[]),
        both("has no rows") | {Task.CSV: "no CSV file by its name"},
        ("tables", Task.AGGREGATE),
    ),
    Fault(
        "nested.parquet",
        parquet(a=[[1]], b=[1]),
        {Task.AGGREGATE: "column 'a' is of type List"},
        LATE,
    ),
]


@pytest.mark.parametrize(
    ("task", "fault"),
    [
        pytest.param(task, fault, id=f"{task}-{fault.name}")
        for fault in FAULTS
        for task in ALL
        if fault.words(task)
    ],
)
def test_a_bad_file_is_one_line_and_leaves_nothing(place: Place, task: str, fault: Fault) -> None:
    (place.datasets / fault.name).write_bytes(fault.content)
    try:
        said = refused(place, task, fault.name)
    finally:
        (place.datasets / fault.name).unlink()
    assert (fault.words(task) or "") in said
    assert place.here.started == fault.is_late(task)


@pytest.mark.parametrize("task", [task for task in PATHS if task != Task.CSV])
def test_parts_must_go_together(place: Place, task: str) -> None:
    for name, second, words, late in (
        ("gap", None, "gap_part_1 is missing", False),
        ("columns", GOOD.replace("day", "night"), "'day'", task != Task.PREDICT),
        ("types", GOOD.replace("2024-01-", "7"), "in .*types_part_", True),
    ):
        (place.datasets / f"{name}_part_0.csv").write_text(GOOD)
        number = 1 if second else 2
        (place.datasets / f"{name}_part_{number}.csv").write_text(second or GOOD)
        # Aggregates read the columns alone that are asked for.
        every: dict[str, Any] = {"aggregations": None} if task == Task.AGGREGATE else {}
        said = refused(place, task, name, **every)
        assert re.search(words, said), said
        assert place.here.started == (late or task == Task.RETRAIN)


@pytest.mark.parametrize("task", ALL)
def test_a_column_without_a_value_is_no_fault(place: Place, task: str) -> None:
    gone = "\n".join(f",{i % 7},,{'xy'[i % 2]}" for i in range(60))
    (place.datasets / "gone.csv").write_text(f"{HEADER}{gone}\n")
    assert place.call(task, "gone.csv")["status"] == "success"
    if task in {Task.CSV, Task.INBOX}:
        return
    # Beside a part in which the column has values, too.
    (place.datasets / "half_part_0.csv").write_text(GOOD)
    shutil.copy(place.datasets / "gone.csv", place.datasets / "half_part_1.csv")
    every = {"aggregations": None} if task == Task.AGGREGATE else {}
    result = place.call(task, "half", **every)
    assert result["status"] == "success"
    if task == Task.AGGREGATE:
        assert result["summaries"][0]["columns"]["day"]["missing"] == 60
        assert result["mismatches"] == []


def test_a_dataset_of_nothing_but_held_out_rows_is_told(place: Place) -> None:
    (place.datasets / "same.csv").write_text(HEADER + "\n".join(ROWS[:10] * 40) + "\n")
    shutil.rmtree(place.root / "models" / "registry" / "m", ignore_errors=True)
    said = refused(place, Task.RETRAIN, "same.csv", "models/registry/m")
    assert "is equal to one that is held out" in said


# -- arguments -------------------------------------------------------------------------------------

GIVEN: dict[str, dict[str, Any]] = {
    "distributed_training": {"model_config": {}, "dataset_path": "good.csv"},
    "hyperparameter_search": {"param_grid": [{"max_depth": 2}], "dataset_path": "good.csv"},
    Task.PREDICT: {"model_path": "m", "data_batches": "good.csv"},
    Task.RETRAIN: {},
    "rollback_model": {"name": "m"},
    Task.CSV: {"file_path": "good.csv", "output_path": "out.csv"},
    Task.AGGREGATE: {"data_sources": ["good.csv"], "output_path": "out.csv"},
    Task.INBOX: {},
}


@pytest.mark.parametrize(
    ("task", "change", "words"),
    [
        *((task, {"colour": "red"}, "unexpected keyword argument 'colour'; it") for task in GIVEN),
        *((task, {next(iter(given)): None}, "got None") for task, given in GIVEN.items() if given),
        ("distributed_training", {"dataset_path": 5}, "dataset_path: Input should be a valid str"),
        ("distributed_training", {"model_config": {"max_depth": "6"}}, "model_config.max_depth"),
        ("distributed_training", {"model_config": {"max_dept": 6}}, "mean 'max_depth'"),
        ("distributed_training", {"model_config": {"target": "b", "task": "x"}}, "config.task"),
        ("hyperparameter_search", {"param_grid": [{"max_depth": "6"}]}, r"[0].max_depth"),
        ("hyperparameter_search", {"search_config": {"fold": 3}}, "mean 'folds'"),
        (Task.PREDICT, {"data_batches": {"a": 1}}, "data_batches"),
        (Task.PREDICT, {"model_path": "../m"}, "outside"),
        (Task.PREDICT, {"model_path": "\ud800"}, "is not a path"),
        (Task.PREDICT, {"model_path": "no-such"}, "no finished model"),
        (Task.RETRAIN, {"names": "m"}, "names: Input should be a valid list"),
        (Task.RETRAIN, {"names": ["../m"]}, "'../m' is not registered"),
        (Task.RETRAIN, {"force": "yes"}, "force: Input should be a valid boolean"),
        ("rollback_model", {"name": "../../datasets"}, "is no name of a model"),
        ("rollback_model", {"version": "1"}, "version: Input should be a valid integer"),
        (Task.CSV, {"transformations": {"filters": {}}}, "mean 'filter'"),
        (Task.CSV, {"transformations": {"num_chunks": 0}}, "transformations.num_chunks"),
        (Task.CSV, {"transformations": {"new_columns": {"c": "__import__('os')"}}}, "no function"),
        (Task.CSV, {"transformations": {"schema": {"a": "int"}}}, "transformations.schema.a"),
        (Task.AGGREGATE, {"data_sources": []}, "data_sources"),
        (Task.AGGREGATE, {"aggregations": {"a": ["median"]}}, "aggregations.a.0"),
        (Task.AGGREGATE, {"schema": {"a": "int"}}, "schema.a"),
        (
            Task.AGGREGATE,
            {"schema": {"aa": "text"}},
            "schema: column 'aa' is not in any of the sources",
        ),
        (Task.AGGREGATE, {"separator": ";;"}, "separator: "),
        (Task.INBOX, {"settle_seconds": "30"}, "settle_seconds: Input should be a valid"),
        (Task.INBOX, {"stale_seconds": 1}, "stale_seconds"),
    ],
)
def test_wrong_arguments_are_refused_before_a_job(
    place: Place, task: str, change: dict[str, Any], words: str
) -> None:
    place.here.started = False
    with pytest.raises(InvalidArgumentsError) as caught:
        place.local.run(task, **{**GIVEN[task], **change})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not place.here.started


def test_what_must_be_numbers_must_be_numbers(place: Place) -> None:
    config = {"task": "regression", "n_estimators": 2}
    for task, given in (
        ("distributed_training", {"model_config": config}),
        ("hyperparameter_search", {"param_grid": [{"max_depth": 2}], "search_config": config}),
    ):
        with pytest.raises(InvalidArgumentsError, match="'regression', but target 'target' holds"):
            place.local.run(task, dataset_path="good.csv", **given)
    with pytest.raises(InvalidArgumentsError, match="'day': '2024-01-01' is not a 64-bit whole"):
        place.local.run(
            Task.CSV,
            file_path="good.csv",
            output_path="out.csv",
            transformations={"schema": {"day": "integer"}, "bad_rows": "fail"},
        )
    assert not list(place.datasets.glob("*out.csv*"))

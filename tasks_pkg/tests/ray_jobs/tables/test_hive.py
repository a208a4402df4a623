"""``year=2024/month=01/``: a folder whose names hold columns, in every task that takes a folder."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from celray_jobs import PATHS, ROWS, TABLES, Place, Task, place_in, run_job_in

from tasks.contracts import InvalidArgumentsError
from tasks.preconditions import datasets
from tasks.ray_jobs.aggregation import job as aggregation_job
from tasks.ray_jobs.csv.dialect import CsvOptions
from tasks.ray_jobs.csv.files import MISSING
from tasks.ray_jobs.csv.plan import said
from tasks.ray_jobs.inputs import sources
from tasks.ray_jobs.protocol import InputProblemError
from tasks.ray_jobs.tables import reading

Aggregate = Callable[..., dict[str, Any]]
TABLE = pa.table(
    {
        "year": [2023, 2024, 2024, 2024],
        "region": ["a/b c", "NA", "é=1", "é=1"],
        "x": [1, 2, 3, 4],
        "target": [0.5, 1.5, 2.5, 3.5],
    }
)


@pytest.fixture
def run(root: Path, one_process: pytest.MonkeyPatch) -> Aggregate:
    one_process.setattr(aggregation_job, "RANGE_BYTES", 40)

    def call(source: str, **given: object) -> dict[str, Any]:
        defaults: dict[str, Any] = {"aggregations": None, "group_by": [], "overwrite": True}
        defaults |= {"schema": {}, "missing": list(MISSING), "separator": ","}
        parameters = {**defaults, **given, "data_sources": [source], "output_path": "out.parquet"}
        return run_job_in(root, aggregation_job.main, parameters)

    return call


def hive(root: Path, kind: str) -> sources.Source:
    """Write the table as pyarrow does: values in percent code where they need it."""
    fields = pa.schema([("year", pa.int64()), ("region", pa.string())])
    partitioning = ds.partitioning(fields, flavor="hive")
    ds.write_dataset(TABLE, root / "h", format=kind, partitioning=partitioning)
    return sources.resolve("h", (str(root), str(root.parent / "models")))


def rows(frame: pl.DataFrame) -> list[tuple[Any, ...]]:
    return frame.select("year", "region", "x", "target").sort("x").rows()


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_keys_are_columns_to_training_and_the_like(root: Path, kind: str) -> None:
    source = hive(root, kind)
    frame = reading.read(source, said=said(CsvOptions(missing=[""])))
    assert rows(frame) == rows(pl.DataFrame(TABLE))
    assert reading.read(source)["region"].null_count() == 1  # NA, where nobody says otherwise
    assert reading.read(source, ["year"])["year"].dtype == pl.String
    declared = reading.read(source, said=said(CsvOptions(schema={"year": "text", "x": "number"})))
    assert all(declared.schema[name] == pl.String for name in ("year", "region"))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_keys_are_columns_to_aggregates(run: Aggregate, root: Path, kind: str) -> None:
    hive(root, kind)
    asked = {"x": ["sum"], "region": ["max"]}
    result = run("h", group_by=["year"], aggregations=asked, missing=[""])
    assert pl.read_parquet(root / "out.parquet").rows() == [
        (2023, 1, 1, "a/b c"), (2024, 3, 9, "é=1"),
    ]  # fmt: skip
    assert result["summaries"][0]["files"] == 3
    whole = run("h")["summaries"][0]["columns"]
    assert (whole["year"]["sum"], whole["region"]["missing"], whole["x"]["sum"]) == (8095, 1, 10)
    run("h", group_by=["year"], aggregations={}, schema={"year": "text"})
    assert pl.read_parquet(root / "out.parquet")["year"].to_list() == ["2023", "2024"]
    with pytest.raises(InputProblemError, match=r"region=.*not of the declared type"):
        run("h", schema={"region": "integer"})


def test_keys_are_typed_as_values_are(root: Path) -> None:
    for zipcode in ("02494", "7", "__HIVE_DEFAULT_PARTITION__", ""):
        folder = root / "z" / f"zip={zipcode}"
        folder.mkdir(parents=True)
        (folder / "a.csv").write_text("x\n1\n")
    frame = reading.read(sources.resolve("z", (str(root),)))
    assert sorted(frame["zip"].to_list(), key=str) == ["02494", "7", None, None]


def test_the_same_files_under_other_keys_are_another_dataset(root: Path) -> None:
    source = hive(root, "csv")
    before = reading.fingerprints(source)
    (root / "h" / "year=2023").rename(root / "h" / "year=2022")
    after = reading.fingerprints(sources.resolve("h", (str(root),)))
    assert len({mark.sha256 for mark in (*before, *after)}) == 4  # one of three is another


def test_a_worker_knows_the_keys(root: Path) -> None:
    hive(root, "csv")
    settings: Any = type("Settings", (), {})()
    settings.datasets_dir, settings.models_dir = root, root.parent / "models"
    datasets.check("h", {"year": "model_config.target"}, settings)
    with pytest.raises(InvalidArgumentsError, match=r"'yeer' is not in.*Did you mean 'year'"):
        datasets.check("h", {"yeer": "model_config.target"}, settings)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["year=1/a.csv", "a.csv"], "lies in folders that name"),
        (["year=1/a.csv", "month=1/a.csv"], "lies in folders that name"),
        (["year=1/year=2/a.csv"], "which a folder above it names too"),
        (["x=1/a.csv"], "column 'x' is in the file and in the name of its folder"),
        (["plain/a.csv"], "a folder with no .csv, .tsv or .parquet file"),
        (["=1/a.csv"], "a folder with no .csv, .tsv or .parquet file"),
    ],
)
def test_what_is_no_partitioning_is_refused(root: Path, files: list[str], words: str) -> None:
    for name in files:
        (root / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "d" / name).write_text("x\n1\n")
    with pytest.raises(InputProblemError) as caught:
        reading.read(sources.resolve("d", (str(root),)))
    assert words in str(caught.value)


def test_a_partition_cannot_lead_out_of_the_roots(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.csv").write_text("x\n1\n")
    (root / "d").mkdir()
    (root / "d" / "year=1").symlink_to(outside)
    with pytest.raises(InputProblemError, match=r"outside|not in|leads"):
        sources.resolve("d", (str(root),))


# -- whole tasks -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A folder by ``b`` and ``target``, of the rows of the other tests' table."""
    with place_in(tmp_path_factory.mktemp("hive") / "place") as made:
        for row in ROWS:
            a, b, day, target = row.split(",")
            folder = made.datasets / "parts" / f"b={b}" / f"target={target}"
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / "part-0.csv").open("a") as part:
                part.write(("" if part.tell() else "a,day\n") + f"{a},{day}\n")
        yield made


@pytest.mark.parametrize("task", [task for task in PATHS if task != Task.CSV])
def test_a_folder_with_keys_goes_through_every_task_that_takes_a_folder(
    place: Place, task: str
) -> None:
    result = place.call(task, "parts")
    model = result["models"][0] if task == Task.RETRAIN else result
    assert (model["rows_read"], model["rows_rejected"]) == (len(ROWS), 0)
    if task == Task.AGGREGATE:
        sums = pl.read_parquet(result["output_file"]).sort("b")
        assert sums["b"].to_list() == list(range(7))
        assert sums["a_sum"].sum() == sum(range(60))
    if task in TABLES and task != Task.PREDICT:
        manifest = json.loads((Path(model["model_path"]) / "manifest.json").read_text())
        assert {"a", "b", "day"} == {one["name"] for one in manifest["columns"]}


def test_a_task_of_one_file_names_the_folder(place: Place) -> None:
    with pytest.raises(InvalidArgumentsError, match=r"parts.* is not a regular file|no CSV file"):
        place.call(Task.CSV, "parts")

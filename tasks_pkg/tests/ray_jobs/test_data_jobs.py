"""The data jobs on a real Ray, and on plain processes: the same results, told errors, progress."""

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from celray_jobs import request_in
from polars.testing import assert_frame_equal

from tasks.contracts import InvalidArgumentsError
from tasks.ray_jobs.protocol import Progress
from tasks.samples import SAMPLES
from tasks.schemas.data import transformations_from
from tasks.submission.local import LocalJobs
from tasks.submission.ray import RayJobs

pytestmark = pytest.mark.timeout(600)

Job = Callable[..., dict[str, Any]]


@pytest.fixture(params=["ray", "plain"])
def job(request: pytest.FixtureRequest, folders: Path) -> Job:
    """Run a job to its end on one of the two engines."""
    runner: RayJobs | LocalJobs = (
        request.getfixturevalue("jobs") if request.param == "ray" else LocalJobs("plain")
    )

    def run(entrypoint: str, told: list[Progress] | None = None, **given: object) -> dict[str, Any]:
        heard = told if told is not None else []
        task = f"{request.param}-{uuid.uuid4().hex}"
        return runner.run(
            task,
            entrypoint,
            lambda name: request_in(folders, name, given),
            lambda _, p: heard.append(p),
        ).result

    return run


@pytest.fixture(scope="module")
def table(folders: Path) -> pl.DataFrame:
    """A table of several ranges, with newlines inside quotes at their edges."""
    n = 400_000
    frame = pl.DataFrame(
        {
            "a": range(n),
            "b": [i % 1000 / 4 for i in range(n)],
            "note": [f'line "{i}"\nand, more\n\n' for i in range(n)],
        }
    )
    frame.write_csv(folders / "datasets" / "table.csv")
    return frame


@pytest.mark.slow
def test_a_large_file_comes_out_right(
    job: Job, table: pl.DataFrame, datasets: Path, request: pytest.FixtureRequest
) -> None:
    output = f"{request.node.callspec.params['job']}.parquet"
    change: dict[str, Any] = {"filter": {"a": 1000}, "new_columns": {"c": "df['a'] * df['b']"}}
    parameters = (
        transformations_from({**change, "num_chunks": 9}).request("table.csv", output).as_json()
    )
    told: list[Progress] = []
    result = job("process_csv", told, **parameters)
    expected = table.filter(pl.col("a") > 1000).with_columns(c=pl.col("a") * pl.col("b"))
    assert_frame_equal(pl.read_parquet(datasets / output), expected)
    assert (result["rows_read"], result["rows_filtered"]) == (400_000, 1001)
    assert result["num_chunks"] == 9
    # On Ray it is looked at now and then, and a busy machine may pass over a phase.
    totals = {progress["total"] for progress in told if progress["phase"] == "processing"}
    assert totals == {9} or (told and request.node.callspec.params["job"] == "ray")
    assert job("process_csv", **parameters)["reused"]

    summary = job(
        "aggregate", data_sources=["table.csv", output], output_path=f"{output}.csv",
        group_by=[], aggregations={"a": ["sum"]}, overwrite=False,
    )  # fmt: skip
    total = pl.read_csv(datasets / f"{output}.csv")["a_sum"][0]
    assert total == int(table["a"].sum()) + int(expected["a"].sum())
    assert summary["mismatches"][0]["adds"] == ["c"]


def test_a_mistake_in_the_data_is_one_line(job: Job, datasets: Path) -> None:
    (datasets / "bad.csv").write_text("a,b\n1,2\n3\n")
    parameters = transformations_from({}).request("bad.csv", "bad.parquet").as_json()
    with pytest.raises(InvalidArgumentsError, match=r"bad\.csv, row 2: 1 field, not 2") as caught:
        job("process_csv", **parameters)
    assert "\n" not in str(caught.value)
    assert not list(datasets.glob("*bad.parquet*"))


def test_delivered_files_are_processed(job: Job, datasets: Path) -> None:
    (datasets / "new").mkdir(exist_ok=True)
    (datasets / "new" / "d.csv").write_text(f"x\n{uuid.uuid4()}\n")
    (datasets / "new" / "e.csv").write_text("x,y\n1\n")
    result = job("inbox", settle_seconds=0.0, stale_seconds=900.0)
    assert (result["done"], result["failed"]) == (1, 1)
    assert not list((datasets / "new").glob("*.csv"))


@pytest.mark.slow
def test_the_samples_are_right(job: Job, datasets: Path) -> None:
    sample = SAMPLES["tasks.data_tasks.process_large_csv"].kwargs
    change = transformations_from(sample["transformations"])
    asked = change.request(sample["file_path"], sample["output_path"])
    result = job("process_csv", **asked.as_json())
    assert 0 < result["rows_written"] < 6497
    assert "free share" in pl.read_parquet(datasets / sample["output_path"]).columns
    sample = SAMPLES["tasks.data_tasks.aggregate_data"].kwargs
    result = job("aggregate", aggregations=None, overwrite=False, **sample)
    assert pl.read_csv(datasets / sample["output_path"])["rows"].sum() == 6497
    sample = SAMPLES["tasks.data_tasks.process_new_data"].kwargs
    assert job("inbox", stale_seconds=900.0, **sample)["status"] == "success"

"""Outputs of tasks lie below the datasets alone: what training trusts cannot be written over.

The kind: every argument of every task that names a place to write to, by every way there.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from tasks.client import catalogue
from tasks.contracts import InvalidArgumentsError
from tasks.preconditions import datasets
from tasks.ray_jobs.csv.dialect import CsvOptions, Written
from tasks.ray_jobs.csv.files import output_file
from tasks.ray_jobs.protocol import InputProblemError
from tasks.ray_jobs.requests import AggregateRequest, ProcessCsvRequest
from tasks.schemas.data import transformations_from
from tasks.settings import Settings

HOLDOUT = b"what the next model is judged by"
#: The check that a worker makes before a job starts, with the arguments that it needs.
CHECKS: dict[str, tuple[Callable[[Any, Settings], None], ProcessCsvRequest | AggregateRequest]] = {
    "tasks.data_tasks.process_large_csv": (
        datasets.check_csv,
        transformations_from({"overwrite": True}).request("rows.csv", ""),
    ),
    "tasks.data_tasks.aggregate_data": (
        datasets.check_sources,
        AggregateRequest(
            data_sources=["rows.csv"],
            output_path="",
            group_by=[],
            aggregations=None,
            overwrite=True,
            csv=CsvOptions(missing=[], written=Written(separator=",")),
        ),
    ),
}


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """The datasets and the models, with a held-out file and ways from the one to the other."""
    data, models = tmp_path / "datasets", tmp_path / "models"
    for folder in (data / "sub", models / "wine"):
        folder.mkdir(parents=True)
    (models / "wine" / "holdout.parquet").write_bytes(HOLDOUT)
    (data / "rows.csv").write_text("a,b\n1,2\n")
    (data / "link").symlink_to(models)
    (data / "sub" / "deep").symlink_to(models / "wine")
    (data / "file.parquet").symlink_to(models / "wine" / "holdout.parquet")
    return data, models


WAYS = [
    "{models}/wine/holdout.parquet",
    "{models}/new.csv",
    "../models/wine/holdout.parquet",
    "{data}/../models/wine/holdout.parquet",
    "link/wine/holdout.parquet",
    "link/new.csv",
    "sub/deep/holdout.parquet",
    "sub/deep/not/there/yet.csv",
    "file.parquet",
]


def test_every_task_with_an_output_is_in_this_test(app: Celery) -> None:  # noqa: ARG001
    named = {
        name
        for name, task in catalogue.installed().items()
        if task.contract
        and any(word in each for each in task.contract.annotations for word in ("output", "target"))
    }
    assert named == set(CHECKS)


@pytest.mark.parametrize("way", WAYS)
def test_no_way_leads_below_the_models(places: tuple[Path, Path], way: str) -> None:
    data, models = places
    with pytest.raises(InputProblemError) as told:
        output_file(way.format(data=data, models=models), "output_path", str(data), str(models))
    assert told.value.kind == "path_outside_roots"
    assert (models / "wine" / "holdout.parquet").read_bytes() == HOLDOUT


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("task", CHECKS)
def test_a_worker_refuses_it_before_a_job_starts(
    places: tuple[Path, Path], configure: Callable[..., Settings], task: str, way: str
) -> None:
    data, models = places
    settings = configure(datasets_dir=str(data), models_dir=str(models))
    check, request = CHECKS[task]
    asked = replace(request, output_path=way.format(data=data, models=models))
    with pytest.raises(InvalidArgumentsError, match="output_path"):
        check(asked, settings)


def test_models_that_lie_among_the_datasets_are_no_place_either(tmp_path: Path) -> None:
    """As in `celray run`, where datasets are the current folder and models are in it."""
    models = tmp_path / "models"
    models.mkdir()
    with pytest.raises(InputProblemError):
        output_file("models/new.csv", "output_path", str(tmp_path), str(models))
    fine = output_file("new.csv", "output_path", str(tmp_path), str(models))
    assert fine == tmp_path / "new.csv"

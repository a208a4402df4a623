"""Call every task that runs a job on one file: in this process, or with a given runner."""

import gzip
import importlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pytest

from tasks import orchestration
from tasks.contracts import InvalidArgumentsError
from tasks.local import Local
from tasks.ray_jobs import cluster
from tasks.ray_jobs.job import Main, Reporter
from tasks.ray_jobs.protocol import (
    ENGINE_VARIABLE,
    REQUEST_VARIABLE,
    InputProblemError,
    JobRequest,
    Progress,
    Record,
)
from tasks.submission.jobs import JobResult, submission_id

HEADER = "a,b,day,target\n"
ROWS = [f"{i},{i % 7},2024-01-{i % 28 + 1:02},{'xy'[i % 2]}" for i in range(60)]
GOOD = HEADER + "\n".join(ROWS) + "\n"


class Task:
    """Names of tasks that many tests use."""

    PREDICT = "batch_predictions"
    CSV = "process_large_csv"
    AGGREGATE = "aggregate_data"
    RETRAIN = "retrain_models"
    INBOX = "process_new_data"


#: The tasks that read a whole table, the tasks that take a path, and all that run a job.
TABLES = ("distributed_training", "hyperparameter_search", Task.PREDICT, Task.RETRAIN)
PATHS = (*TABLES, Task.CSV, Task.AGGREGATE)
ALL = (*PATHS, Task.INBOX)


def request_in(folders: Path, name: str, parameters: dict[str, Any]) -> JobRequest:
    """Return the request of a job whose datasets and models are in ``folders``."""
    models = folders / "models"
    return JobRequest(
        submission_id=name,
        runs_dir=str(models / ".runs"),
        datasets_dir=str(folders / "datasets"),
        models_dir=str(models),
        code_version="test",
        parameters=parameters,
    )


def request_beside(root: Path, name: str, parameters: dict[str, Any]) -> JobRequest:
    """Return the request of a job on the datasets folder ``root``; other folders are beside it."""
    request = request_in(root.parent, name, parameters)
    return replace(request, datasets_dir=str(root), runs_dir=str(root.parent / "runs"))


def run_job_in(root: Path, main: Main, parameters: dict[str, Any]) -> dict[str, Any]:
    """Call a job's main function on the datasets folder ``root``; the models are beside it."""
    request = request_beside(root, "t", parameters)
    return main(request, Reporter(root.parent / "runs"))


def write_compressed(path: Path, text: str) -> None:
    """Write a text to a file, compressed according to its suffix."""
    if path.suffix == ".zst":
        with pa.CompressedOutputStream(str(path), "zstd") as out:
            out.write(text.encode())
    else:
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


class _Telling(Reporter):
    """Passes progress to a function, which a job's process would print for its submitter."""

    def __init__(self, run_dir: Path, on_progress: Callable[[Progress], None]) -> None:
        super().__init__(run_dir)
        self._on_progress = on_progress

    def send(self, record: Record) -> None:
        self.keep(record)
        if record["type"] == "progress":
            self._on_progress(record["progress"])


def run_here(
    task_id: str,
    entrypoint: str,
    request: Callable[[str], JobRequest],
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> dict[str, Any]:
    """Run a job in this process; ``LocalJobs("plain")`` starts a process, which takes seconds.

    Raises:
        InvalidArgumentsError: the job refused the request.
    """
    name = submission_id(task_id)
    main = importlib.import_module(f"tasks.ray_jobs.jobs.{entrypoint}").main
    try:
        given = {ENGINE_VARIABLE: "plain", REQUEST_VARIABLE: request(name).encode()}
        # One thread: on a busy machine, two that wait for each other take ten times as long.
        with patch.dict(os.environ, given), patch.object(cluster, "cpus", lambda: 1):
            asked = JobRequest.from_environment()
            result = main(asked, _Telling(Path(asked.runs_dir) / name, on_progress))
    except InputProblemError as error:
        raise InvalidArgumentsError(str(error)) from None
    # A result travels as JSON.
    return json.loads(json.dumps(result))  # type: ignore[no-any-return]


class Here:
    """Runs a job's main function in this process, and remembers the request."""

    def __init__(self) -> None:
        self.started = False
        self.asked: tuple[str, JobRequest] | None = None

    def run(
        self,
        task_id: str,
        entrypoint: str,
        request: Callable[[str], JobRequest],
        _on_progress: object,
    ) -> JobResult:
        name = submission_id(task_id)
        request(name).encode()
        self.started = True
        self.asked = entrypoint, request(name)
        try:
            result = self.again()
        except InputProblemError as error:
            raise InvalidArgumentsError(str(error)) from None
        return JobResult(name, attached=False, result=result, startup_seconds=0, engine_seconds=0)

    def again(self, attempt: str = "") -> dict[str, Any]:
        """Run the last job again, as after Ray's head has lost it."""
        assert self.asked is not None
        entrypoint, request = self.asked
        name = f"{request.submission_id}{attempt}"
        # A fresh copy: a job may change its request.
        asked = replace(request, submission_id=name, parameters={**request.parameters})
        main = importlib.import_module(f"tasks.ray_jobs.jobs.{entrypoint}").main
        result: dict[str, Any] = main(asked, Reporter(Path(asked.runs_dir) / name))
        return result

    def stop(self, _task_id: str) -> list[str]:
        return []


@dataclass
class Place:
    """Folders, a model that was trained in them, and the tasks."""

    root: Path
    local: Local
    here: Here
    model: str = ""

    @property
    def datasets(self) -> Path:
        return self.root / "datasets"

    def files(self) -> set[str]:
        """Return all files except those of a failed task too: runs, locks, ledgers, reports."""
        kept = (".runs", "retraining", ".retraining", ".ledger", ".claims", "failed", ".lock")
        found = (path.relative_to(self.root) for path in self.root.rglob("*") if path.is_file())
        return {str(path) for path in found if not set(path.parts) & set(kept)}

    def arguments(self, task: str, path: str, **csv: object) -> dict[str, Any]:
        """Return a task's arguments for a file; if needed, copy the file or register the model.

        Args:
            task: the task.
            path: the file.
            csv: the CSV options, by argument.
        """
        config = {"n_estimators": 2, **csv}
        if task == Task.RETRAIN:
            text = f"dataset_path = {_toml(path)}\n[model_config]\nn_estimators = 2\n"
            text += "".join(f"{name} = {_toml_of(value)}\n" for name, value in csv.items())
            (self.root / "models" / "registry" / "m.toml").write_text(text)
            return {}
        if task == Task.INBOX:
            (self.datasets / "new").mkdir(exist_ok=True)
            shutil.copy(self.datasets / path, self.datasets / "new" / path)
            return {"settle_seconds": 0.0, **csv}
        given: dict[str, dict[str, Any]] = {
            "distributed_training": {"model_config": config, "dataset_path": path},
            "hyperparameter_search": {
                "param_grid": [{"max_depth": 2}],
                "dataset_path": path,
                "search_config": {**config, "folds": 0},
            },
            Task.PREDICT: {"model_path": self.model, "data_batches": path, **csv},
            Task.CSV: {
                "file_path": path,
                "output_path": "out.parquet",
                "transformations": {"filter": {"a": 1}, **csv},
            },
            Task.AGGREGATE: {
                "data_sources": [path],
                "output_path": "sums.parquet",
                "group_by": ["b"],
                "aggregations": {"a": ["sum"]},
                **csv,
            },
        }
        return given[task]

    def call(self, task: str, path: str, **csv: object) -> dict[str, Any]:
        """Call a task on a file with CSV options; return its result."""
        self.here.started = False
        return self.local.run(task, **self.arguments(task, path, **csv))  # type: ignore[no-any-return]


def _toml(text: str) -> str:
    """Return a text as a TOML string."""
    return '"' + "".join(f"\\U{ord(sign):08x}" for sign in text) + '"'


def _toml_of(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(k)} = {_toml_of(v)}" for k, v in value.items()) + "}"
    value = "" if value is None else value  # TOML has no null
    return _toml(value) if isinstance(value, str) else json.dumps(value)


@contextmanager
def place_in(root: Path) -> Iterator[Place]:
    """Yield a place whose jobs run in this process, without Ray."""
    for name in ("datasets", "models/registry", "models/.runs"):
        (root / name).mkdir(parents=True)
    here = Here()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENGINE_VARIABLE, "plain")
        patch.setattr(cluster, "cpus", lambda: 1)
        patch.setattr(orchestration, "runner", lambda _: here)
        place = Place(root, Local(root / "datasets", root / "models", ray=False), here)
        (place.datasets / "good.csv").write_text(GOOD)
        place.model = place.call("distributed_training", "good.csv")["model_path"]
        yield place

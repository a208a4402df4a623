"""The client beside a real Ray: progress, log, trace, and a cancellation that ends the job."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from celray_testing import PACKAGE, RedisServer, StartWorker, wait_for

from tasks.client import Client, TaskCancelledError
from tasks.submission.jobs import submission_id
from tasks.submission.ray import RayJobs

pytestmark = pytest.mark.timeout(600)

WINE = "examples/winequality.csv"
ENDLESS = {"n_estimators": 10_000, "max_depth": 12, "target": "quality", "num_partitions": 2}


@pytest.fixture
def connection(
    redis: RedisServer,
    ray_cluster: Any,  # noqa: ANN401 - a class of conftest.py
) -> dict[str, str]:
    return {
        "CELERY_BROKER_URL": redis.url(0),
        "CELERY_RESULT_BACKEND": redis.url(1),
        "RAY_ADDRESS": ray_cluster.address,
        "RAY_AUTH_TOKEN": ray_cluster.token_file.read_text(),
    }


@pytest.fixture
def ours(connection: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    for name, value in connection.items():
        monkeypatch.setenv(name, value)
    with Client() as made:
        yield made


def run(connection: dict[str, str], *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *words],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(PACKAGE / "src"), **connection},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_a_training_is_watched_with_its_log_and_traced(
    connection: dict[str, str], ours: Client, start_worker: StartWorker
) -> None:
    start_worker("ml", "ml")
    words = ["-m", "tasks.cli", "submit", "distributed_training", f"dataset_path={WINE}"]
    # So many rounds that the client, which looks every second, sees some of them.
    words += ["model_config.target=quality", "model_config.n_estimators=600", "--log"]
    done = run(connection, *words)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["status"] == "success"
    assert "Ray job celray-" in done.stderr
    assert "boosting rounds" in done.stderr
    assert "@@celray" not in done.stderr
    # Ours has none; Ray's own processes may tell of one, with their name before it.
    assert not [line for line in done.stderr.splitlines() if line.startswith("Traceback")]

    task = ours.task(result["ray_submission_id"].removeprefix("celray-"))
    trace = task.trace()
    assert trace["ray"]["status"] == "SUCCEEDED"
    assert trace["ray"]["code"] == "test"
    assert trace["artefacts"]["manifest_path"] == result["manifest_path"]
    assert set(trace["times"]) == {"queue_seconds", "startup_seconds", "engine_seconds"}
    assert trace["worker"]["node"].startswith("ml@")
    assert trace["versions"]["worker"]["code"] == "test"
    assert "@@celray" in task.log()


def test_a_training_is_seen_to_move_and_its_ray_job_ends_when_it_is_cancelled(
    ours: Client, start_worker: StartWorker, jobs: RayJobs
) -> None:
    start_worker("ml", "ml")
    task = ours.submit("distributed_training", dataset_path=WINE, model_config=ENDLESS)

    def rounds_pass() -> bool:
        step = task.status().progress or {}
        return step.get("phase") == "training" and 0 < step["done"] < step["total"] == 10_000

    wait_for(rounds_pass, 200)  # told by Ray's workers, through the driver's log and ours
    done = task.cancel()
    assert done.cancelled
    assert done.ray_job == submission_id(task.id)
    with pytest.raises(TaskCancelledError):
        task.result(timeout=10)
    wait_for(lambda: str(jobs._status(submission_id(task.id))) == "STOPPED", 120)


def test_without_a_worker_the_client_ends_the_job_itself(
    ours: Client, start_worker: StartWorker, jobs: RayJobs
) -> None:
    worker = start_worker("ml", "ml")
    task = ours.submit("distributed_training", dataset_path=WINE, model_config=ENDLESS)
    wait_for(lambda: str(jobs._status(submission_id(task.id))) == "RUNNING", 200)
    worker.kill()
    done = task.cancel()
    assert done.ray_job == submission_id(task.id)
    wait_for(lambda: str(jobs._status(submission_id(task.id))) == "STOPPED", 120)


@pytest.mark.slow
def test_the_example_follows_a_training(
    connection: dict[str, str], start_worker: StartWorker
) -> None:
    start_worker("ml", "ml")
    done = run(connection, str(PACKAGE / "examples" / "follow_a_training.py"))
    assert done.returncode == 0, done.stderr
    assert "PROGRESS training" in done.stdout
    assert "engine_seconds" in done.stdout

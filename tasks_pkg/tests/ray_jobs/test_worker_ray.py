"""The whole way, with real workers, a real Redis and a real Ray."""

import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery
from celray_testing import StartWorker, wait_for

from tasks.submission.jobs import submission_id
from tasks.submission.ray import RayJobs

# Ray starts a dozen processes for a job: on a busy machine that takes its time.
pytestmark = pytest.mark.timeout(600)

TASK = "tasks.ml_tasks.distributed_training"
WINE = "examples/winequality.csv"
#: Far longer than any test lasts.
ENDLESS = {"n_estimators": 10_000, "max_depth": 12, "target": "quality", "num_partitions": 2}


@pytest.fixture
def send(client: Celery) -> Callable[..., Any]:
    def send(config: dict[str, object], dataset_path: str = WINE) -> Any:  # noqa: ANN401
        kwargs = {"model_config": config, "dataset_path": dataset_path}
        return client.send_task(TASK, kwargs=kwargs, queue="ml")

    return send


def status_of(jobs: RayJobs, task_id: str) -> str:
    return str(jobs._status(submission_id(task_id)))


def jobs_of(jobs: RayJobs, task_id: str) -> int:
    known = jobs._patiently(lambda client: client.list_jobs())
    return sum(task_id in (job.submission_id or "") for job in known)


def test_a_killed_worker_loses_nothing_and_the_next_attaches(
    start_worker: StartWorker, send: Callable[..., Any], jobs: RayJobs
) -> None:
    first = start_worker("ml", "ml")
    sent = send({"n_estimators": 30, "target": "quality", "num_partitions": 2})
    wait_for(lambda: status_of(jobs, sent.id) in {"PENDING", "RUNNING"}, 120)
    os.killpg(first.popen.pid, signal.SIGKILL)
    start_worker("ml", "ml")
    result = sent.get(timeout=400)
    assert result["status"] == "success"
    assert result["ray_submission_id"] == submission_id(sent.id)
    assert jobs_of(jobs, sent.id) == 1
    assert {"avg_score", "total_samples", "num_partitions", "model_path", "manifest_path"} <= set(
        result
    )


def test_a_stopped_worker_leaves_the_job_running_and_a_revoked_task_ends_it(
    start_worker: StartWorker, send: Callable[..., Any], client: Celery, jobs: RayJobs
) -> None:
    first = start_worker("ml", "ml")
    sent = send(ENDLESS)
    wait_for(lambda: status_of(jobs, sent.id) == "RUNNING", 120)
    first.terminate()
    time.sleep(4)  # a stop, had it been sent, would have ended the job within 3 s
    assert status_of(jobs, sent.id) == "RUNNING"

    received = first.text.count(f"{sent.id}] received")
    second = start_worker("ml", "ml")  # it writes to the same log
    wait_for(lambda: second.text.count(f"{sent.id}] received") > received, 60)
    time.sleep(1)
    wait_for(lambda: sent.state == "PROGRESS", 200)
    client.control.revoke(sent.id, terminate=True)
    wait_for(lambda: status_of(jobs, sent.id) == "STOPPED", 120)
    time.sleep(2)
    assert sent.state == "REVOKED"
    second.says(f"stopped {submission_id(sent.id)}")
    assert jobs_of(jobs, sent.id) == 1


def test_a_task_revoked_while_it_waits_to_be_redelivered_ends_its_job(
    start_worker: StartWorker, send: Callable[..., Any], client: Celery, jobs: RayJobs
) -> None:
    first = start_worker("ml", "ml")
    sent = send(ENDLESS)
    wait_for(lambda: status_of(jobs, sent.id) == "RUNNING", 120)
    os.killpg(first.popen.pid, signal.SIGKILL)
    start_worker("ml", "ml")
    client.control.revoke(sent.id)
    wait_for(lambda: status_of(jobs, sent.id) == "STOPPED", 200)
    assert sent.state == "REVOKED"


@pytest.mark.parametrize(
    ("config", "path", "words"),
    [
        ({"n_estimator": 5}, WINE, "did you mean 'n_estimators'"),
        ({"target": "qualty"}, WINE, "Did you mean 'quality'"),
        ({}, "/etc/passwd", "outside"),
        ({}, "examples/winequalty.csv", "Did you mean 'winequality.csv'"),
    ],
)
def test_a_mistake_is_refused_before_ray_hears_of_it(  # noqa: PLR0913, PLR0917
    start_worker: StartWorker,
    send: Callable[..., Any],
    jobs: RayJobs,
    config: dict[str, object],
    path: str,
    words: str,
) -> None:
    worker = start_worker("ml", "ml")
    sent = send(config, path)
    with pytest.raises(Exception, match=words) as caught:
        sent.get(timeout=120)
    assert type(caught.value).__name__ == "InvalidArgumentsError"
    assert jobs_of(jobs, sent.id) == 0
    assert "Traceback" not in worker.text


def test_a_run_is_idle_while_ray_is_away_and_says_why(
    start_worker: StartWorker, send: Callable[..., Any]
) -> None:
    worker = start_worker("ml", "ml", CELRAY_RAY_ADDRESS="http://127.0.0.1:1")
    sent = send({"target": "quality"})
    wait_for(lambda: sent.state == "STARTED", 60)
    time.sleep(3)
    assert sent.state == "STARTED"
    assert json.dumps(sent.state)
    assert "Traceback" not in worker.text


def test_the_other_tasks_are_refused_or_run_in_the_same_way(
    start_worker: StartWorker, client: Celery, jobs: RayJobs
) -> None:
    worker = start_worker("ml", "ml")
    for task, kwargs, words in (
        ("batch_predictions", {"model_path": "x", "data_batches": []}, "holds no row"),
        ("hyperparameter_search", {"param_grid": [], "dataset_path": WINE}, "no combination"),
        ("retrain_models", {"names": ["no-such"]}, "'no-such' is not registered"),
        ("rollback_model", {"name": 5}, "should be a valid string"),
    ):
        refused = client.send_task(f"tasks.ml_tasks.{task}", kwargs=kwargs, queue="ml")
        with pytest.raises(Exception, match=words) as caught:
            refused.get(timeout=60)
        assert type(caught.value).__name__ == "InvalidArgumentsError"
        assert jobs_of(jobs, refused.id) == 0
    done = client.send_task("tasks.ml_tasks.retrain_models", queue="ml")
    result = done.get(timeout=300)
    assert (result["status"], result["models"]) == ("success", [])
    assert result["ray_submission_id"] == submission_id(done.id)
    assert {"manifest_path", "queue_seconds", "startup_seconds", "engine_seconds"} <= set(result)
    assert "Traceback" not in worker.text

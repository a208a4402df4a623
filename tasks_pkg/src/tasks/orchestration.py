"""Run a task's Ray job: submit it, report progress, retry, and stop it with the task.

A task's module holds its contract and its request; this module holds the rest::

    @ray_task("tasks.ml_tasks.distributed_training")
    @validated
    def distributed_training(self: Untyped, ...) -> TrainingResult:
        return run_job(self, "train", request)
"""

import hashlib
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from celery import shared_task, signals
from celery.exceptions import SoftTimeLimitExceeded
from celery.utils.log import get_logger
from celery.worker import state as worker_state

from tasks.contracts import InvalidArgumentsError, Untyped, require_task_id
from tasks.credentials import ConfigurationError
from tasks.message_headers import PUBLISHED_AT
from tasks.ray_jobs.protocol import JobRequest, Progress
from tasks.ray_jobs.requests import Request
from tasks.settings import Settings, get_settings
from tasks.submission.errors import JobFailedError, JobStoppedError, RayUnavailableError
from tasks.submission.runner import runner

log = get_logger(__name__)

#: Pause before a task tries again because Ray, or another service it needs, was unavailable.
RETRY_SECONDS = 30

#: Failures whose one-line text is complete: no traceback in the worker's log.
EXPECTED = (InvalidArgumentsError, JobFailedError, JobStoppedError, ConfigurationError)

#: An attribute of a request: its task has called run_job. A second job would be mistaken for the
#: first.
_HAS_JOB = "celray_has_job"

_ray_tasks: set[str] = set()


def ray_task(name: str, **options: Any) -> Callable[[Callable[..., Any]], Untyped]:  # noqa: ANN401
    """Register a bound task whose Ray job is stopped when the task is revoked.

    Args:
        name: the task's full name.
        options: further options of :func:`celery.shared_task`.
    """
    _ray_tasks.add(name)
    return shared_task(name=name, bind=True, throws=EXPECTED, **options)  # type: ignore[no-any-return]


@contextmanager
def tried_again(task: Untyped) -> Iterator[None]:
    """Retry a task, a limited number of times, while something it needs is unavailable.

    Raises:
        RayUnavailableError: it stayed unavailable.
    """
    try:
        yield
    except RayUnavailableError as error:
        raise task.retry(exc=error, countdown=RETRY_SECONDS) from None


def run_job(task: Untyped, entrypoint: str, parameters: Request | dict[str, Any]) -> dict[str, Any]:
    """Submit a task's Ray job, or attach to it, and follow it to its end.

    Meanwhile the task's state is ``PROGRESS``, with ``phase``, ``done``, ``total``, ``message`` and
    ``ray_submission_id``. A task has one Ray job, whose submission id is derived from the task's
    id.

    Args:
        task: the bound task.
        entrypoint: the module of :mod:`tasks.ray_jobs` to run, or the full name of a module in
            another package's package of jobs (``my_package.jobs.count``), which is then uploaded.
        parameters: the job's request; for a job of another package, a dict of JSON types.

    Returns:
        The job's result with ``ray_submission_id``, ``queue_seconds`` (publishing to the task's
            start; None if the client does not stamp its messages), ``startup_seconds`` (submission
            to the first line of the job's code) and ``engine_seconds`` (that line to its result).

    Raises:
        InvalidArgumentsError: the job rejected its arguments or data, or the task's id cannot name
            a Ray job, or already names one for something else; never retried.
        JobFailedError: it failed for good.
        JobStoppedError: somebody stopped it.
        RayUnavailableError: Ray stayed unavailable through all retries; the job may still be
            running.
        RuntimeError: the task has already called this function.
    """
    started = time.time()
    published = task.request.get(PUBLISHED_AT)
    settings = get_settings()
    require_task_id(task.request.id)
    asked = _asked(task, entrypoint)
    if getattr(task.request, _HAS_JOB, False):
        message = "run_job: this task has had its Ray job; make another task of what comes after it"
        raise RuntimeError(message)
    setattr(task.request, _HAS_JOB, True)

    def request(name: str) -> JobRequest:
        return job_request(name, parameters, settings, asked)

    def report(name: str, progress: Progress) -> None:
        task.update_state(state="PROGRESS", meta={**progress, "ray_submission_id": name})

    jobs = runner(settings)
    try:
        with tried_again(task):
            done = jobs.run(task.request.id, entrypoint, request, report)
    except SoftTimeLimitExceeded:
        jobs.stop(task.request.id)
        raise
    waited = started - published if isinstance(published, int | float) else None
    return {
        **done.result,
        "ray_submission_id": done.submission_id,
        "queue_seconds": None if waited is None or waited < 0 else round(waited, 6),
        "startup_seconds": done.startup_seconds,
        "engine_seconds": done.engine_seconds,
    }


def _asked(task: Untyped, entrypoint: str) -> str:
    """Return 16 digits of a digest of the caller's message: an id may be used for another one."""
    args, kwargs = list(task.request.args or ()), dict(task.request.kwargs or {})
    sent = [task.name, entrypoint, args, sorted(kwargs.items())]
    return hashlib.sha256(json.dumps(sent, default=str).encode()).hexdigest()[:16]


def job_request(
    name: str, parameters: Request | dict[str, Any], settings: Settings, asked: str = ""
) -> JobRequest:
    """Build the request of the job ``name``; ``asked`` is :attr:`JobRequest.asked`."""
    return JobRequest(
        submission_id=name,
        runs_dir=str(settings.runs_dir),
        datasets_dir=str(settings.datasets_dir),
        models_dir=str(settings.models_dir),
        code_version=settings.code_version,
        parameters=parameters.as_json() if isinstance(parameters, Request) else parameters,
        asked=asked,
    )


@signals.task_revoked.connect  # type: ignore[untyped-decorator]
def _stop_with_task(sender: Untyped = None, request: Untyped = None, **_: object) -> None:
    """Stop the Ray job of a task that was revoked, whether it was running or waiting.

    The signal is sent in the worker's main process. A worker that shuts down kills its child
    processes in the same way, but their jobs must continue, for the next delivery to find them.
    Only the id of a revoked task is in the worker's set of revoked ids.

    A separate program does the work, so that the main process neither waits nor loads Ray.
    """
    if sender.name in _ray_tasks and request.id in worker_state.revoked:
        threading.Thread(target=_stop, args=(request.id,), name=f"stop-{request.id}").start()


def _stop(task_id: str) -> None:
    outcome = subprocess.run(  # noqa: S603 - our own program; the id is one that Celery gave
        [sys.executable, "-m", "tasks.submission.stop", task_id],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    said = (outcome.stdout + outcome.stderr).strip() or "it had no Ray job running"
    level = logging.INFO if outcome.returncode == 0 else logging.ERROR
    log.log(level, "Revoked task %s: %s", task_id, said)

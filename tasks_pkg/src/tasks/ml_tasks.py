"""The machine-learning tasks: each checks, submits one Ray job, follows it, and reports."""

import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from celery import shared_task, signals
from celery.exceptions import SoftTimeLimitExceeded
from celery.utils.log import get_logger
from celery.worker import state as worker_state

from tasks import datasets
from tasks.contracts import InvalidArgumentsError, Untyped, validated
from tasks.headers import PUBLISHED_AT
from tasks.ray_jobs.protocol import JobRequest, Progress
from tasks.schemas_ml import TrainingResult, model_config_from
from tasks.settings import ConfigurationError, get_settings
from tasks.submission import JobFailedError, JobStoppedError, RayJobs, RayUnavailableError

log = get_logger(__name__)

#: Tasks whose Ray job must end with them.
RAY_TASKS = frozenset({"tasks.ml_tasks.distributed_training"})

#: A task that found Ray away looks again after so long.
RETRY_SECONDS = 30

EXPECTED = (InvalidArgumentsError, JobFailedError, JobStoppedError, ConfigurationError)


@shared_task(name="tasks.ml_tasks.distributed_training", bind=True, throws=EXPECTED)  # type: ignore[untyped-decorator]
@validated
def distributed_training(
    self: Untyped,
    model_config: dict[str, Any],
    dataset_path: str,
) -> TrainingResult:
    """Train one gradient-boosted model on one dataset, on several Ray workers at once.

    While it runs its state is ``PROGRESS``, with ``phase``, ``done``, ``total``, ``message`` and
    ``ray_submission_id``. Revoking it with ``terminate=True`` stops the Ray job.

    Args:
        self: the bound task.
        model_config: see :class:`tasks.schemas_ml.ModelConfig`.
        dataset_path: a ``.csv`` or ``.parquet`` file, a folder of them, or the prefix of
            ``<dataset_path>_part_<i>.csv``; under the datasets or the models folder, relative to
            the former.

    Returns:
        See :class:`tasks.schemas_ml.TrainingResult`.

    Raises:
        InvalidArgumentsError: a mistake in the arguments or the data; never retried.
        JobFailedError: the Ray job failed for good.
        JobStoppedError: somebody stopped the Ray job.
        RayUnavailableError: Ray stayed away through all retries; the job may still be running.
    """
    started = time.time()
    published = self.request.get(PUBLISHED_AT)
    settings = get_settings()
    config = model_config_from(model_config)
    wanted = {config.target: "model_config.target"} | dict.fromkeys(
        config.exclude_columns, "model_config.exclude_columns"
    )
    datasets.check(dataset_path, wanted, settings)

    def request(name: str) -> JobRequest:
        return JobRequest(
            submission_id=name,
            runs_dir=str(settings.runs_dir),
            datasets_dir=str(settings.datasets_dir),
            models_dir=str(settings.models_dir),
            code_version=settings.code_version,
            parameters=config.parameters(dataset_path),
        )

    def report(name: str, progress: Progress) -> None:
        self.update_state(state="PROGRESS", meta={**progress, "ray_submission_id": name})

    jobs = RayJobs(settings.ray_address)
    try:
        with _terminable():
            done = jobs.run(self.request.id, "train", request, report)
    except RayUnavailableError as error:
        raise self.retry(exc=error, countdown=RETRY_SECONDS) from None
    except SoftTimeLimitExceeded:
        jobs.stop(self.request.id)
        raise
    waited = started - published if isinstance(published, int | float) else None
    return cast(
        "TrainingResult",
        {
            **done.result,
            "ray_submission_id": done.submission_id,
            "queue_seconds": None if waited is None or waited < 0 else round(waited, 6),
            "startup_seconds": done.startup_seconds,
            "engine_seconds": done.engine_seconds,
        },
    )


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM, which is what ``revoke(terminate=True)`` sends, end this process.

    With ``REMAP_SIGTERM`` Celery has its children ignore it. A task that then goes on following
    writes its progress, and its failure at the end, over the state REVOKED.
    """
    ignored = signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    if ignored:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    finally:
        if ignored:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)


@signals.task_revoked.connect  # type: ignore[untyped-decorator]
def _stop_with_task(sender: Untyped = None, request: Untyped = None, **_: object) -> None:
    """Stop the Ray job of a task that was revoked, whether it was running or waiting.

    The signal comes in the worker's parent process. A worker that shuts down kills its children
    in the same way, and their jobs must go on, to be found by the next delivery; the difference
    is that the id of a revoked task is in the worker's set of revoked ids.

    Done by a program of its own, so that the parent neither waits nor loads Ray.
    """
    if sender.name in RAY_TASKS and request.id in worker_state.revoked:
        threading.Thread(target=_stop, args=(request.id,), name=f"stop-{request.id}").start()


def _stop(task_id: str) -> None:
    outcome = subprocess.run(  # noqa: S603 - our own program; the id is one that Celery gave
        [sys.executable, "-m", "tasks.submission", "stop", task_id],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    said = (outcome.stdout + outcome.stderr).strip() or "it had no Ray job running"
    level = logging.INFO if outcome.returncode == 0 else logging.ERROR
    log.log(level, "Revoked task %s: %s", task_id, said)

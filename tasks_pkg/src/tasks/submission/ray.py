"""Submit, attach to, follow and stop one Ray job, on behalf of a Celery task.

A task has at most one Ray run at a time. Its submission id is derived from the Celery task id, and
Ray refuses a second job with the same id. So a task that is redelivered, because its worker died or
stopped, finds its job and continues to follow it.

The job's code travels as a zip of :mod:`tasks.ray_jobs`, named by its content and uploaded once per
cluster. Its request travels as JSON in the job's environment, and its records are lines of the
driver's log (:mod:`tasks.ray_jobs.protocol`). All of this uses the Jobs API: a worker and Ray share
nothing but its address and token.
"""

import json
import logging
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tasks.contracts import InvalidArgumentsError
from tasks.credentials import ConfigurationError
from tasks.ray_jobs import protocol
from tasks.ray_jobs.protocol import JobRequest, Progress, Record
from tasks.settings import RayRuntimeEnv
from tasks.submission.archive import PACKAGE, package
from tasks.submission.errors import (
    AttemptFailedError,
    JobFailedError,
    JobStoppedError,
    NoSuchJobError,
    RayUnavailableError,
)
from tasks.submission.jobs import JobResult, MakeRequest, OnProgress, submission_id

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

T = TypeVar("T")

log = logging.getLogger(__name__)

#: How Ray's message begins when pip could not install a job's packages: pip's command in a
#: traceback.
_PIP_FAILED = re.compile(r"\Aruntime_env setup failed: .*'-m', 'pip', 'install'", re.DOTALL)

#: The metadata key under which Ray stores what the job's caller had sent
#: (:attr:`JobRequest.asked`).
_ASKED = "celray_asked"

#: The longest interval between two reads of the progress, in seconds, however slow the log is.
_LOG_SECONDS = 15.0


@dataclass(frozen=True)
class Patience:
    """The time limits of the submission.

    Attributes:
        poll_seconds: the interval between two checks of a running job.
        connect_seconds: the limit for a connection to the Jobs API.
        answer_seconds: the limit for an answer from it.
        away_seconds: how long in total it may fail to answer, as during a restart.
        attempts: the most runs of one job, the first included.
    """

    poll_seconds: float = 1.0
    connect_seconds: float = 5.0
    answer_seconds: float = 30.0
    away_seconds: float = 300.0
    attempts: int = 3


class RayJobs:
    """The Jobs API of one Ray cluster, as one task uses it.

    Args:
        address: ``http://host:8265``; ``RAY_AUTH_MODE`` and ``RAY_AUTH_TOKEN_PATH`` are read by
            Ray's client itself.
        patience: the time limits.
        runtime_env: what every job receives besides its code.
    """

    def __init__(
        self,
        address: str,
        patience: Patience | None = None,
        runtime_env: RayRuntimeEnv | None = None,
    ) -> None:
        self.address = address
        self.runtime_env = runtime_env or RayRuntimeEnv()
        self.patience = patience or Patience()
        self._client: JobSubmissionClient | None = None

    # -- the public methods --------------------------------------------------------------------

    def run(
        self, task_id: str, entrypoint: str, request: MakeRequest, on_progress: OnProgress
    ) -> JobResult:
        """Submit a task's job, or attach to it, and follow it to its end.

        Args:
            task_id: the Celery task's id.
            entrypoint: the module of :mod:`tasks.ray_jobs` to run, or the full name of a module
                in another package's package of jobs.
            request: builds the request for a submission id.
            on_progress: called with the submission id and the progress, whenever that changes.

        Raises:
            InvalidArgumentsError: the job rejected its arguments or data, or the task's id was used
                before for something else.
            JobFailedError: the job failed, and no attempts are left.
            JobStoppedError: it was stopped.
            RayUnavailableError: the cluster was unavailable for too long; the job may still run.
        """
        for attempt in range(self.patience.attempts):
            # A job that had ended before Ray's head or the job's supervisor died has had its
            # effects.
            ended = _stored_result(request(submission_id(task_id, attempt)))
            if ended is not None and self._status(ended.submission_id) is None:
                return ended
        failure = ""
        for attempt in range(self._latest(task_id), self.patience.attempts):
            name = submission_id(task_id, attempt)
            wanted = request(name)
            attached = self.submit_or_attach(name, entrypoint, wanted)
            try:
                return self.follow(name, on_progress, attached=attached)
            except AttemptFailedError as error:
                failure = str(error)
            except NoSuchJobError:
                failure = "Ray was restarted and lost the job"
            if ended := _stored_result(wanted):
                log.warning("Ray job %s had ended before this: %s", name, failure)
                return ended
            log.warning("Ray job %s failed, attempt %d: %s", name, attempt + 1, failure)
        message = f"The Ray job failed {self.patience.attempts} times; the last time: {failure}"
        raise JobFailedError(message)

    def submit_or_attach(self, name: str, entrypoint: str, request: JobRequest) -> bool:
        """Make sure that exactly one job ``name`` exists.

        Ray stores the id before it starts anything, and refuses an id that is stored. So of any
        number of simultaneous submissions one starts the job and the others attach.

        Returns:
            Whether the job existed already.

        Raises:
            InvalidArgumentsError: the request is too long, or the job was submitted for another
                request.
            RayUnavailableError: see :class:`Patience`.
        """
        try:
            environment = {
                **protocol.ENVIRONMENT,
                **self.runtime_env.env_vars,
                protocol.REQUEST_VARIABLE: request.encode(),
            }
        except protocol.InputProblemError as error:
            raise InvalidArgumentsError(str(error)) from None

        def submit(client: "JobSubmissionClient") -> bool:
            with suppress(NoSuchJobError), _translated(self.address):
                found = client.get_job_info(name)
                _require_same(request, (found.metadata or {}).get(_ASKED))
                return True
            with tempfile.TemporaryDirectory() as folder:
                code = Path(folder) / f"{PACKAGE}.zip"
                code.write_bytes(package(entrypoint))
                try:
                    client.submit_job(
                        entrypoint=f"exec python -m {PACKAGE} {entrypoint}",
                        submission_id=name,
                        runtime_env={
                            "working_dir": str(code),
                            "env_vars": environment,
                            **({"pip": pip} if (pip := list(self.runtime_env.pip)) else {}),
                        },
                        metadata={
                            "celray_code_version": request.code_version,
                            _ASKED: request.asked,
                        },
                    )
                except RuntimeError as error:
                    if "already exists" in str(error):
                        return submit(client)
                    raise
            return False

        return self._patiently(submit)

    def follow(self, name: str, on_progress: OnProgress, *, attached: bool = True) -> JobResult:
        """Wait for a job's end and report its progress.

        Raises:
            InvalidArgumentsError, JobFailedError, JobStoppedError, RayUnavailableError: see
                :meth:`run`.
        """
        told: Progress | None = None
        look_again_at, pause = 0.0, 0.2
        records: list[Record] = []
        while True:
            details = self._patiently(lambda client: client.get_job_info(name))
            ended = details.status.is_terminal()
            now = time.monotonic()
            if ended or (details.status == "RUNNING" and now >= look_again_at):
                records = self._records(name, details)
                # Each read transfers the whole log, so a long one is read less often.
                look_again_at = now + min(20 * (time.monotonic() - now), _LOG_SECONDS)
            progress = _latest_progress(records)
            if progress != told:
                told = progress
                on_progress(name, progress)
            if ended:
                return _conclude(name, details, records, attached=attached)
            time.sleep(pause)
            pause = min(pause * 1.5, self.patience.poll_seconds)

    def stop(
        self, task_id: str, *, seconds: float = 30.0, appear_seconds: float = 5.0
    ) -> list[str]:
        """Stop every run of a task, and wait until they have ended.

        Args:
            task_id: the Celery task's id.
            seconds: how long to wait for the end.
            appear_seconds: how long to wait for a job to appear: the submission in which the task
                was killed may not have completed.

        Returns:
            The submission ids that were stopped.
        """
        stopped: list[str] = []
        started = time.monotonic()
        while True:
            names = [submission_id(task_id, n) for n in range(self.patience.attempts)]
            running = [
                name
                for name in names
                if (status := self._status(name)) is not None and not status.is_terminal()
            ]
            for name in running:
                self._stop_one(name)
            stopped += [name for name in running if name not in stopped]
            waited = time.monotonic() - started
            if not running and (stopped or waited >= appear_seconds):
                return stopped
            if waited >= seconds:
                log.error("Ray job %s did not stop within %.0f s", running or task_id, seconds)
                return stopped
            time.sleep(0.5)

    # -- internals --------------------------------------------------------------------------------

    def _latest(self, task_id: str) -> int:
        """Return the number of the latest run that Ray knows, 0 if there is none."""
        for attempt in reversed(range(1, self.patience.attempts)):
            if self._status(submission_id(task_id, attempt)) is not None:
                return attempt
        return 0

    def _stop_one(self, name: str) -> None:
        with suppress(NoSuchJobError):
            self._patiently(lambda client: client.stop_job(name))

    def _status(self, name: str) -> "JobStatus | None":
        """Return a job's status, None if Ray does not know it."""
        try:
            return self._patiently(lambda client: client.get_job_status(name))
        except NoSuchJobError:
            return None

    def _records(self, name: str, details: "JobDetails") -> list[Record]:
        """Read a job's records; if its log is gone, those that Ray quotes in the status."""
        try:
            text: str = self._patiently(lambda client: client.get_job_logs(name), seconds=10.0)
        except (RayUnavailableError, NoSuchJobError):
            text = details.message or ""
        return list(protocol.decode(text))

    def _patiently(
        self, ask: Callable[["JobSubmissionClient"], T], *, seconds: float | None = None
    ) -> T:
        """Send a request to the Jobs API, and repeat it while the API does not answer.

        Raises:
            RayUnavailableError: no answer for ``seconds`` (by default ``away_seconds``).
            ConfigurationError: it does not accept the token.
            NoSuchJobError: it does not know the job.
        """
        limit = self.patience.away_seconds if seconds is None else seconds
        since: float | None = None
        while True:
            try:
                with _translated(self.address):
                    if self._client is None:
                        self._client = _connect(self.address, self.patience)
                    return ask(self._client)
            except RayUnavailableError as error:
                now = time.monotonic()
                since = now if since is None else since
                if now - since >= limit:
                    message = f"{error} (for {now - since:.0f} s)"
                    raise RayUnavailableError(message) from None
                time.sleep(min(1.0, limit / 10))


def _connect(address: str, patience: Patience) -> "JobSubmissionClient":
    """Build Ray's own client with time limits; by itself it would wait forever for an answer.

    Importing Ray takes 1.7 s, and its core must not be loaded before Celery forks (ray#31157).
    """
    from ray.job_submission import JobSubmissionClient  # noqa: PLC0415

    class BoundedClient(JobSubmissionClient):
        def _do_request(self, method: str, endpoint: str, **kwargs: Any) -> Any:  # noqa: ANN401
            kwargs.setdefault("timeout", (patience.connect_seconds, patience.answer_seconds))
            return super()._do_request(method, endpoint, **kwargs)

    # Its logger reports every package that is uploaded or already present.
    logging.getLogger("ray.dashboard.modules.dashboard_sdk").setLevel(logging.WARNING)
    return BoundedClient(address)


@contextmanager
def _translated(address: str) -> Iterator[None]:
    """Turn the errors of Ray's client into errors that tell the caller what to do.

    The client distinguishes HTTP statuses only in its messages.
    """
    import requests  # noqa: PLC0415 - see _connect
    from ray.exceptions import AuthenticationError  # noqa: PLC0415

    try:
        yield
    except AuthenticationError as error:
        message = (
            f"CELRAY_RAY_ADDRESS: Ray at {address} does not accept the token"
            f" ({str(error).splitlines()[0]}); deploy again, which writes it on both sides"
        )
        raise ConfigurationError(message) from None
    except (requests.exceptions.RequestException, ConnectionError) as error:
        message = f"Ray's Jobs API at {address} does not answer ({type(error).__name__})"
        raise RayUnavailableError(message) from None
    except RuntimeError as error:
        match = re.search(r"status code (\d+)", str(error))
        code = int(match[1]) if match else 0
        if code == 404:  # noqa: PLR2004
            raise NoSuchJobError(str(error)) from None
        if code >= 500:  # noqa: PLR2004
            message = f"Ray's Jobs API at {address} answers with status {code}: {error}"
            raise RayUnavailableError(message[:500]) from None
        raise


def _latest_progress(records: list[Record]) -> Progress:
    reported = [record["progress"] for record in records if record["type"] == "progress"]
    return (
        reported[-1]
        if reported
        else {"phase": "starting", "done": 0, "total": 1, "message": "the Ray job is starting"}
    )


def _require_same(request: JobRequest, asked: str | None) -> None:
    """Refuse a job that was submitted for something else; a job without a recorded caller fits any.

    This does not compare the parameters: a worker with newer code may make others of the same
    message.

    Raises:
        InvalidArgumentsError: the task's id was used before for something else.
    """
    if request.asked and asked and asked != request.asked:
        message = (
            f"Ray job {request.submission_id} was submitted for another task or with other"
            f" arguments: task id {request.run.removeprefix('celray-')!r} was used before. Send the"
            " task under an id of its own, or without one"
        )
        raise InvalidArgumentsError(message)


def _stored_result(request: JobRequest) -> JobResult | None:
    """Return the result in a job's run folder, if the job has ended and stored one.

    Raises:
        InvalidArgumentsError: the result belongs to another request.
    """
    folder = Path(request.runs_dir) / request.submission_id
    records: dict[str, Record] = {}
    for kind in ("started", "result"):
        with suppress(OSError, ValueError):
            records[kind] = json.loads((folder / f"{kind}.json").read_text(encoding="utf-8"))
    if len(records) < 2:  # noqa: PLR2004 - both
        return None
    _require_same(request, records["started"].get("asked"))
    took = records["result"]["at"] - records["started"]["at"]
    return JobResult(
        submission_id=request.submission_id,
        attached=True,
        result=records["result"]["result"],
        startup_seconds=0.0,
        engine_seconds=round(took, 3),
    )


def _conclude(
    name: str, details: "JobDetails", records: list[Record], *, attached: bool
) -> JobResult:
    """Return the result from a job's last state, or raise the matching error."""
    last = {record["type"]: record for record in records}
    if details.status == "STOPPED":
        message = f"Ray job {name} was stopped"
        raise JobStoppedError(message)
    if "error" in last:
        error = last["error"]
        if error["retry"]:
            raise AttemptFailedError(error["message"])
        if error["kind"] == "internal":
            message = f"Ray job {name} failed: {error['message']}; its log has the rest"
            raise JobFailedError(message)
        raise InvalidArgumentsError(error["message"])
    if details.status == "SUCCEEDED" and "result" in last and "started" in last:
        started = last["started"]["at"]
        return JobResult(
            submission_id=name,
            attached=attached,
            result=last["result"]["result"],
            startup_seconds=round(max(0.0, started - (details.start_time or 0) / 1000), 3),
            engine_seconds=round(last["result"]["at"] - started, 3),
        )
    reason = protocol.telling_line(details.message or "") or "no reason given"
    if _PIP_FAILED.search(details.message or ""):
        # Ray itself has tried three times, each with a fresh environment.
        message = f"ray_runtime_env: pip could not install what every job is given: {reason[:300]}"
        raise JobFailedError(message)
    raise AttemptFailedError(f"{details.status} without a record of its own: {reason[:300]}")

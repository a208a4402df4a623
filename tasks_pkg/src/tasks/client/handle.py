"""A handle for one task that was sent: progress, result, cancellation."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from celery import Celery
from redis.exceptions import NoPermissionError, ResponseError

from tasks.broker.redis import revocations
from tasks.client import trace as tracing
from tasks.client.broker import SEARCHED, Waiting
from tasks.client.connection import answering, one_line
from tasks.client.errors import (
    NotFinishedError,
    NotNotedError,
    ServiceUnavailableError,
    TaskCancelledError,
    TaskFailedError,
    UnknownIdError,
)
from tasks.submission.jobs import submission_id

if TYPE_CHECKING:
    from tasks.client.sync import Client

#: The final states.
FINISHED = frozenset({"SUCCESS", "FAILURE", "REVOKED", "REJECTED", "IGNORED"})

#: The first and the longest pause between two queries, in seconds.
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.02, 0.5


@dataclass(frozen=True)
class Status:
    """The state of a task at one moment.

    Attributes:
        id: the Celery task's id.
        state: WAITING (in its queue), DELIVERED (a worker has it), STARTED, PROGRESS, RETRY,
            SUCCESS, FAILURE, REVOKED, or UNKNOWN. A user who may not read queues gets Celery's
            PENDING instead of WAITING, DELIVERED and UNKNOWN.
        name: the task's name, once known.
        queue: its queue.
        position: its position in the queue, 1 is next; None once a worker has it.
        worker: the node that runs it or ran it.
        progress: ``phase``, ``done``, ``total``, ``message``, while the state is PROGRESS.
        ray_submission_id: the id of the Ray job.
        result: what the task returned.
        error: ``kind`` and ``message`` of the exception that it raised.
        finished_at: ISO 8601, UTC.
        retries: the number of retries so far.
    """

    id: str
    state: str
    name: str | None = None
    queue: str | None = None
    position: int | None = None
    worker: str | None = None
    progress: dict[str, Any] | None = None
    ray_submission_id: str | None = None
    result: Any = None
    error: dict[str, str] | None = None
    finished_at: str | None = None
    retries: int | None = None
    meta: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def finished(self) -> bool:
        """Return whether the task has ended, in success or failure."""
        return self.state in FINISHED

    def as_json(self) -> dict[str, Any]:
        """Return all fields in JSON types."""
        return {name: value for name, value in self.__dict__.items() if name != "meta"}

    def outcome(self) -> Any:  # noqa: ANN401 - the task's return value
        """Return the result of a successful task.

        Raises:
            TaskFailedError, TaskCancelledError, NotFinishedError: it has not succeeded.
        """
        if self.state == "SUCCESS":
            return self.result
        if self.state == "REVOKED":
            message = f"task {self.id} was cancelled"
            raise TaskCancelledError(message)
        if self.finished:
            error = self.error or {"kind": self.state, "message": ""}
            raise TaskFailedError(error["kind"], error["message"])
        message = f"task {self.id} has no result yet: {self.state}"
        raise NotFinishedError(message)


@dataclass(frozen=True)
class Cancelled:
    """The outcome of a cancellation: the resulting state, the Ray job, and a text."""

    id: str
    state: str
    cancelled: bool
    ray_job: str | None
    message: str


def read(app: Celery, task_id: str) -> Status | None:
    """Read a task's state from the result store; return None if nothing is stored.

    This reads the stored record itself, because Celery would turn a failure into an exception class
    that the client may not have.
    """
    raw = app.backend.get(app.backend.get_key_for_task(task_id))
    if not raw:
        return None
    meta: dict[str, Any] = app.backend.decode(raw)
    state, value = meta["status"], meta.get("result")
    known = value if isinstance(value, dict) else {}
    failed = state in {"FAILURE", "RETRY", "REJECTED"}
    message = known.get("exc_message", "")
    worker = meta.get("worker") or (known.get("hostname") if state == "STARTED" else None)
    return Status(
        id=task_id,
        state=state,
        name=meta.get("name"),
        queue=meta.get("queue"),
        worker=worker,
        progress=known if state == "PROGRESS" else None,
        ray_submission_id=known.get("ray_submission_id"),
        result=value if state == "SUCCESS" else None,
        error={
            "kind": str(known.get("exc_type", "Exception")),
            "message": " ".join(map(str, message)) if isinstance(message, list) else str(message),
        }
        if failed
        else None,
        finished_at=meta.get("date_done") if state in FINISHED else None,
        retries=meta.get("retries"),
        meta=meta,
    )


class SubmittedTask:
    """One task, identified by its id; created by :class:`tasks.client.Client`."""

    def __init__(
        self,
        client: "Client",
        task_id: str,
        name: str | None = None,
        queue: str | None = None,
    ) -> None:
        self.client = client
        self.id = task_id
        self.name = name
        #: The queue that it was sent to; None if the handle was made from an id.
        self.queue = queue

    def __repr__(self) -> str:
        return f"SubmittedTask({self.id!r}, {self.name!r})"

    def status(self) -> Status:
        """Query the task's state once.

        Raises:
            ServiceUnavailableError: Redis does not answer.
        """
        return self._look()

    def _look(self, *, everywhere: bool = False) -> Status:
        with answering(self.client.settings):
            found = read(self.client.app, self.id)
            if found is not None:
                return found
            nowhere = "UNKNOWN"
            try:
                waiting = self.client.broker.find(self.id, everywhere=everywhere)
            except NoPermissionError:
                if everywhere:
                    raise
                waiting, nowhere = None, "PENDING"  # a mere sender may not read queues
            if waiting is None:
                # The task may have ended between the two queries.
                return read(self.client.app, self.id) or Status(self.id, nowhere, self.name)
        return _waits(self.id, waiting)

    def require_known(self, *, everywhere: bool = False) -> Status:
        """Query the state once, and refuse an unknown id.

        Args:
            everywhere: search very long queues to their end.

        Raises:
            UnknownIdError: it was never sent, or its result has expired.
        """
        status = self._look(everywhere=everywhere)
        if status.state == "UNKNOWN":
            message = (
                f"nothing is known of task {self.id}: never sent to this service, just now on its "
                "way to a worker, or its result has expired or was never kept"
            )
            if not everywhere and (long := self._long_queues()):
                message += f"; of queue {long} only the first {SEARCHED:,} were looked at"
            raise UnknownIdError(message)
        return status

    def _long_queues(self) -> str:
        with answering(self.client.settings):
            lengths = self.client.broker.lengths(self.client.broker.queues())
        return ", ".join(name for name, length in lengths.items() if length > SEARCHED)

    def peek(self) -> Status:
        """Query only the result store, which is quick."""
        with answering(self.client.settings):
            return read(self.client.app, self.id) or Status(self.id, "WAITING", self.name)

    def follow(self, timeout: float | None = None) -> Iterator[Status]:
        """Yield the status whenever it changes, to the end or for ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        told: Status | None = None
        pause = _FIRST_PAUSE_SECONDS
        while True:
            status = self.peek()
            if status != told:
                told = status
                yield status
            if status.finished:
                return
            left = _LONGEST_PAUSE_SECONDS if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)

    def wait(
        self, timeout: float | None = None, on_change: Callable[[Status], None] | None = None
    ) -> Status:
        """Wait for the end; call ``on_change`` with every new status.

        Raises:
            NotFinishedError: not within ``timeout`` seconds; the task goes on.
        """
        status = Status(self.id, "UNKNOWN")
        for status in self.follow(timeout):
            if on_change is not None:
                on_change(status)
        if not status.finished:
            message = f"task {self.id} has not ended within {timeout:g} s; it goes on"
            raise NotFinishedError(message)
        return status

    def result(self, timeout: float | None = None) -> Any:  # noqa: ANN401 - what it returned
        """Wait for the result.

        Raises:
            TaskFailedError: the task failed; the text is the task's own.
            TaskCancelledError: it was cancelled.
            NotFinishedError: not within ``timeout`` seconds; the task goes on.
        """
        return self.wait(timeout).outcome()

    def log(self) -> str:
        """Return the log of the task's Ray job so far.

        Raises:
            UnknownIdError: the task has no Ray job, or Ray no longer knows it.
            ServiceUnavailableError: Ray does not answer.
        """
        name = self.ray_job()
        text = self.client.jobs.log(name)
        if text is None:
            message = f"Ray knows no job {name}: the task has none, or it was too long ago"
            raise UnknownIdError(message)
        return text

    def ray_job(self) -> str:
        """Return the id of the task's Ray job: the one that it reports, otherwise its first."""
        return self.status().ray_submission_id or submission_id(self.id)

    def trace(self) -> dict[str, Any]:
        """Return all known data of the task, its worker and its Ray job."""
        return tracing.trace(self.client, self.require_known())

    def cancel(self, wait: float = 10.0) -> Cancelled:
        """End the task wherever it is, together with its Ray job.

        Args:
            wait: seconds to wait for its end.

        Raises:
            UnknownIdError: the id is unknown.
            NotNotedError: only the workers that run now were notified.
        """
        status = self.require_known(everywhere=True)
        if status.finished:
            message = f"it had already ended: {status.state}"
            return Cancelled(self.id, status.state, cancelled=False, ray_job=None, message=message)
        known = status.ray_submission_id
        with answering(self.client.settings):
            # First record the cancellation: from now on no worker begins the task, not even one
            # that starts later. A message on which others depend goes on to a worker, which
            # notifies them.
            try:
                revocations.write(self.client.app, [self.id])
            except NoPermissionError:
                raise
            except ResponseError as error:  # Redis answers, but rejects the write
                self._tell_workers_alone(error)
            with self.client.app.connection_for_write() as fresh:
                heard = self.client.app.control.revoke(
                    self.id, terminate=True, reply=True, timeout=1.0, connection=fresh
                )
            if status.state == "WAITING":
                waiting = self.client.broker.find(self.id, everywhere=True)
                if waiting is not None:
                    self.client.broker.take_back(waiting)
        if not self.peek().finished and heard:
            list(self.follow(wait))
        status = self.peek()
        job = known or status.ray_submission_id if heard else self._stop_job(known)
        return self._cancelled(status, heard=bool(heard), job=job)

    def _tell_workers_alone(self, error: ResponseError) -> NoReturn:
        """Notify the running workers, since Redis rejects the record of the cancellation.

        Raises:
            NotNotedError: always; a task that may begin on another worker must not be reported as
                cancelled.
        """
        with self.client.app.connection_for_write() as fresh:  # needs no memory and no disk
            self.client.app.control.revoke(self.id, terminate=True, connection=fresh)
        message = (
            f"the workers that run now are told that task {self.id} is cancelled, but Redis does "
            f"not take a note of it ({one_line(error)}): one that starts later would run it. "
            "Make room (celray dead drop, or docs/troubleshoot.md), then cancel it again"
        )
        raise NotNotedError(message) from None

    def _stop_job(self, known: str | None) -> str | None:
        """Stop the Ray job from here if there is no worker to do it."""
        name = known or submission_id(self.id)
        try:
            return name if self.client.jobs.configured and self.client.jobs.stop(name) else None
        except ServiceUnavailableError:
            return None

    def _cancelled(self, status: Status, *, heard: bool, job: str | None) -> Cancelled:
        if status.state == "REVOKED":
            words = "cancelled"
        elif status.finished:
            words = f"it ended before it could be cancelled: {status.state}"
        elif not heard:
            words = "no worker answered: it goes on if one has begun it, and does not begin again"
        else:
            words = "the workers know; it ends as soon as one of them takes it"
        done = status.state == "REVOKED" or (heard and not status.finished)
        return Cancelled(self.id, status.state, cancelled=done, ray_job=job, message=words)


def _waits(task_id: str, waiting: Waiting) -> Status:
    return Status(
        id=task_id,
        state="DELIVERED" if waiting.position is None else "WAITING",
        name=waiting.name,
        queue=waiting.queue,
        position=waiting.position,
    )

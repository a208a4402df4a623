"""The synchronous client: submit tasks, query their state, wait for results."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from celery import Celery
from kombu.utils.json import dumps
from pydantic import SecretStr, ValidationError

from tasks.broker.sizes import require_sendable
from tasks.client import catalogue
from tasks.client.broker import Broker
from tasks.client.connection import PATIENCE_SECONDS, answering, application, stamped
from tasks.client.errors import (
    NotPermittedError,
    ServiceUnavailableError,
    UnknownTaskError,
)
from tasks.client.handle import SubmittedTask, read
from tasks.client.jobs import Jobs
from tasks.code_version import judge
from tasks.contracts import InvalidArgumentsError, require_task_id
from tasks.credentials import ClientSettings, ConfigurationError, load_client_settings

#: Time limit for the workers' answers, in seconds.
ANSWER_SECONDS = 2.0


class Client:
    """Sends tasks to one service, and follows them.

    Args:
        credentials: a file with the output of ``make credentials``; by default the environment
            (``CELERY_BROKER_URL``, ...) or ``~/.config/celray/credentials``.
        broker: the broker's URL, instead of credentials; requires ``backend``.
        backend: the result store's URL.

    Raises:
        tasks.credentials.ConfigurationError: there are no credentials, or they are wrong.
    """

    def __init__(
        self,
        credentials: Path | str | None = None,
        *,
        broker: str | None = None,
        backend: str | None = None,
    ) -> None:
        if broker is None and backend is None:
            self.settings = load_client_settings(Path(credentials) if credentials else None)
        elif broker is None or backend is None:
            given, missing = ("broker", "backend") if backend is None else ("backend", "broker")
            message = f"a client is given `{given}` without `{missing}`; give both, or neither"
            raise ConfigurationError(message)
        else:
            self.settings = _settings(broker, backend)

        self._known_queues: set[str] = set()

    @cached_property
    def app(self) -> Celery:
        """Return the Celery app, for functions that this class does not offer."""
        return application(self.settings)

    @cached_property
    def broker(self) -> Broker:
        """The broker's queues."""
        return Broker(self.settings.broker_url.get_secret_value(), PATIENCE_SECONDS)

    @cached_property
    def jobs(self) -> Jobs:
        """Ray's Jobs API."""
        return Jobs(self.settings, PATIENCE_SECONDS)

    def close(self) -> None:
        """Close every connection."""
        self.broker.close()
        self.app.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def tasks(self) -> dict[str, catalogue.TaskInfo]:
        """Return the installed tasks, by name, with their contracts."""
        return catalogue.installed()

    def find(self, name: str) -> catalogue.TaskInfo:
        """Find a task by its name or the end of it; query the workers if it is not installed here.

        Raises:
            UnknownTaskError, AmbiguousNameError: the text suggests what was meant.
        """
        installed = self.tasks()
        try:
            return installed[catalogue.resolve(name, installed)]
        except UnknownTaskError:
            try:
                workers = self.workers()
            except NotPermittedError:  # and the task is not installed here
                workers = {}
            elsewhere = {
                task: queue
                for info in workers.values()
                for task, queue in (info.get("routes") or {}).items()
                if task not in installed
            }
            if not elsewhere:
                raise
            full = catalogue.resolve(name, [*installed, *elsewhere])
            return catalogue.TaskInfo(full, elsewhere[full])

    def submit(
        self,
        name: str,
        /,
        *,
        queue: str | None = None,
        task_id: str | None = None,
        countdown: float | None = None,
        **arguments: Any,  # noqa: ANN401 - any argument of the task
    ) -> SubmittedTask:
        """Check the arguments against the task's contract, then send it.

        Args:
            name: the task's name, or an unambiguous end of it.
            queue: a queue to use instead of the task's own.
            task_id: an id of your own, for one task only. If it is unclear whether a submission
                arrived, send it again under the same id; a task that has succeeded is not sent
                again.
            countdown: the least delay before it starts, in seconds.
            arguments: the task's arguments.

        Raises:
            InvalidArgumentsError: nothing was sent. An argument is wrong, the id was used for
                something else, the service has no such queue, or the task has a parameter with the
                name of one of those above.
            UnknownTaskError, AmbiguousNameError: nothing was sent.
            ServiceUnavailableError: the broker does not answer.
        """
        task = self.find(name)
        options = {"queue": queue, "task_id": task_id, "countdown": countdown}
        for option, value in options.items():
            if value is not None and task.contract and option in task.contract.annotations:
                message = (
                    f"{task.short}: {option!r} is a parameter of the task and of submit; send "
                    f"it as client.send(client.find({name!r}), {{{option!r}: ...}})"
                )
                raise InvalidArgumentsError(message)
        return self.send(task, arguments, queue, task_id, countdown)

    def send(
        self,
        task: catalogue.TaskInfo,
        arguments: dict[str, Any],
        queue: str | None = None,
        task_id: str | None = None,
        countdown: float | None = None,
    ) -> SubmittedTask:
        """Do the same as :meth:`submit` for a task that has been found."""
        if task.contract is not None:
            task.contract.check(arguments)
        require_sendable(task.short, arguments)
        if task_id is not None:
            require_task_id(task_id)
        if countdown is not None:
            _require_date(countdown)
        if queue is None:
            queue = task.queue or self._queue_of(task.name)
        else:
            self._require_queue(queue)
        self.require_answer()  # Celery itself would try for a minute, with a worse message
        with answering(self.settings):
            if task_id is not None and self._is_done(task_id, task.name, arguments):
                return SubmittedTask(self, task_id, task.name, queue)
        try:
            with answering(self.settings):
                sent = self.app.send_task(
                    task.name,
                    kwargs=arguments,
                    queue=queue,
                    task_id=task_id,
                    countdown=countdown,
                    headers=stamped(),
                )
        except NotPermittedError as error:
            message = f"queue {queue!r}: the service has no such queue, or keeps it closed; {error}"
            raise InvalidArgumentsError(message) from None
        return SubmittedTask(self, sent.id, task.name, queue)

    def _is_done(self, task_id: str, name: str, arguments: dict[str, Any]) -> bool:
        """Return whether this task has succeeded under this id.

        Raises:
            InvalidArgumentsError: another task had the id. Its result would stay, or Ray would
                mistake its job for this task's job.
        """
        known = read(self.app, task_id)
        if known is None:
            return False
        before = known.meta.get("kwargs")
        differs = before is not None and _in_order(before) != _in_order(arguments)
        if differs or known.name not in {None, name}:
            message = (
                f"task id {task_id!r} was used before, for {known.name}"
                f"{' with other arguments' if known.name == name else ''}:"
                " choose another, or leave it out"
            )
            raise InvalidArgumentsError(message)
        return known.state == "SUCCESS"

    def _require_queue(self, queue: str) -> None:
        """Refuse a queue that the service does not have, if a worker answers with the list."""
        if queue in self._known_queues:
            return
        try:
            workers = self.workers()
        except NotPermittedError:  # Redis itself refuses an unknown queue then
            return
        for info in workers.values():
            self._known_queues.update(info.get("all_queues") or ())
        if self._known_queues and queue not in self._known_queues:
            there = ", ".join(sorted(self._known_queues))
            message = f"queue {queue!r}: the service has no such queue; it has: {there}"
            raise InvalidArgumentsError(message)

    def _queue_of(self, name: str) -> str:
        """Query the workers for the queue of a package's task."""
        try:
            workers = self.workers()
        except NotPermittedError as error:
            message = f"the queue of task {name} is not known here: name it; {error}"
            raise UnknownTaskError(message) from None
        for info in workers.values():
            if name in (info.get("routes") or {}):
                return str(info["routes"][name])
        message = f"no worker that answers has task {name}; name its queue if you know it"
        raise UnknownTaskError(message)

    def task(self, task_id: str) -> SubmittedTask:
        """Return a handle for a task that was sent before, by any client."""
        return SubmittedTask(self, task_id)

    def workers(self, destination: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
        """Return the workers' descriptions by node name, see :mod:`tasks.worker.info`.

        ``code_state`` compares a worker's code with the deployed version: current, old (it must be
        restarted), newer (an update is in progress) or unknown.

        Args:
            destination: the nodes to query; all of them by default.
        """
        with answering(self.settings):
            expected = self.broker.listeners()
            if not expected:
                return {}
            # Not one of the pool's, which can be from before a restart of Redis.
            with self.app.connection_for_write() as fresh:
                replies = self.app.control.broadcast(
                    "celray_info",
                    reply=True,
                    timeout=ANSWER_SECONDS,
                    destination=list(destination) if destination else None,
                    # The waiting ends after as many answers as there are workers.
                    limit=len(destination) if destination else expected,
                    connection=fresh,
                )
            wanted = self.broker.deployed() if replies else None
        return {
            node: {
                **info,
                "code_state": judge(info["versions"]["code"], info["started_at"], wanted),
                "code_deployed": wanted and wanted["version"],
            }
            for reply in replies or []
            for node, info in sorted(reply.items())
            if isinstance(info, dict) and "error" not in info
        }

    def queues(self) -> dict[str, dict[str, Any]]:
        """Return every queue: ``waiting``, ``taken`` (by workers), ``workers`` (its consumers).

        Raises:
            ServiceUnavailableError: the broker does not answer.
        """
        with answering(self.settings):
            names = self.broker.queues()
            lengths, taken = self.broker.lengths(names), self.broker.delivered()
        consumers = {node: info.get("queues", []) for node, info in self.workers().items()}
        return {
            name: {
                "waiting": lengths[name],
                "taken": taken.get(name, 0),
                "workers": [node for node, queues in consumers.items() if name in queues],
            }
            for name in names
        }

    def require_answer(self) -> None:
        """Raise :class:`ServiceUnavailableError` unless the broker answers."""
        with answering(self.settings):
            self.broker.ping()


def _in_order(arguments: dict[str, Any]) -> str:
    """Return arguments as sent, sorted by name: only the order inside a value matters."""
    return str(dumps(sorted(arguments.items())))


def _settings(broker: str, backend: str) -> ClientSettings:
    try:
        return ClientSettings(
            broker_url=SecretStr(broker),
            result_backend_url=SecretStr(backend),
            origin="the caller",
        )
    except ValidationError as error:
        names = {"broker_url": "broker", "result_backend_url": "backend"}
        told = [
            f"{names[str(e['loc'][0])]}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        ]
        raise ConfigurationError("; ".join(told)) from None


def _require_date(countdown: float) -> None:
    try:
        datetime.now(UTC) + timedelta(seconds=countdown)
    except (OverflowError, ValueError):
        message = f"a task cannot be delayed by {countdown:g} seconds: no date is so far away"
        raise InvalidArgumentsError(message) from None


__all__ = ["Client", "ServiceUnavailableError"]

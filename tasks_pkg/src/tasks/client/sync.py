"""The client: submit, look, wait."""

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
from tasks.client.connection import PATIENCE, answering, application, stamped
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

#: How long workers may take to answer a question, in seconds.
ANSWER_SECONDS = 2.0


class Client:
    """Sends tasks to one service, and follows them.

    Args:
        credentials: a file of what ``make credentials`` prints; by default the environment
            (``CELERY_BROKER_URL``, ...) or ``~/.config/celray/credentials``.
        broker: the broker's URL, in place of all that; ``backend`` goes with it.
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
        """The Celery app, for what this class does not offer."""
        return application(self.settings)

    @cached_property
    def broker(self) -> Broker:
        """The broker's queues."""
        return Broker(self.settings.broker_url.get_secret_value(), PATIENCE)

    @cached_property
    def jobs(self) -> Jobs:
        """Ray's Jobs API."""
        return Jobs(self.settings, PATIENCE)

    def close(self) -> None:
        """Close every connection."""
        self.broker.close()
        self.app.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def tasks(self) -> dict[str, catalogue.TaskInfo]:
        """Return the tasks that are installed here, by name, with their contracts."""
        return catalogue.installed()

    def find(self, name: str) -> catalogue.TaskInfo:
        """Find a task by its name or the end of it; asks the workers for one not installed here.

        Raises:
            UnknownTaskError, AmbiguousNameError: its text says what was probably meant.
        """
        installed = self.tasks()
        try:
            return installed[catalogue.resolve(name, installed)]
        except UnknownTaskError:
            try:
                workers = self.workers()
            except NotPermittedError:  # and the task is not known here
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
        **arguments: Any,  # noqa: ANN401 - whatever the task takes
    ) -> SubmittedTask:
        """Check the arguments against the task's contract, then send it.

        Args:
            name: the task's name, or the end of it where no other task has the same.
            queue: in place of the one that it is routed to.
            task_id: an id of your own, for one task: who is not sure that a submission arrived
                sends it again under the same id, and one that has ended well is not sent again.
            countdown: seconds before which it must not start.
            arguments: the task's.

        Raises:
            InvalidArgumentsError: an argument is wrong, the id was used for something else, the
                service has no such queue, or the task has a parameter of the name of one of those
                above; nothing was sent.
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
        """Do what :meth:`submit` does, for a task that has been found."""
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
        self.require_answer()  # Celery itself would try for a minute, and say less
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
        """Return whether this task has ended well under this id.

        Raises:
            InvalidArgumentsError: another one had the id. Its result would stay, or Ray would
                take its job for this one's.
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
        """Refuse a queue that the service does not have, where a worker says which it has."""
        if queue in self._known_queues:
            return
        try:
            workers = self.workers()
        except NotPermittedError:  # then Redis itself refuses a queue that is not there
            return
        for info in workers.values():
            self._known_queues.update(info.get("all_queues") or ())
        if self._known_queues and queue not in self._known_queues:
            there = ", ".join(sorted(self._known_queues))
            message = f"queue {queue!r}: the service has no such queue; it has: {there}"
            raise InvalidArgumentsError(message)

    def _queue_of(self, name: str) -> str:
        """Ask the workers for the queue of a package's task."""
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
        """Take up a task that was sent before, from anywhere."""
        return SubmittedTask(self, task_id)

    def workers(self, destination: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
        """Ask the workers about themselves; by node name, see :mod:`tasks.worker.info`.

        ``code_state`` says how a worker's code stands to what is deployed: current, old (it must
        be restarted), newer (an update is under way) or unknown.

        Args:
            destination: the nodes to ask; all of them by default.
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
                    # As many answers as there are workers end the waiting.
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
        """Return every queue: ``waiting``, ``taken`` (by workers), ``workers`` that consume it.

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
    """Give arguments as they travel; their own order makes no difference, that inside them may."""
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

"""Let the workers of one host finish and take no more, and the way back: ``make drain``.

It runs in a container of that host: :mod:`tasks.worker.draining` has the file that says so.
"""

import socket
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from celery import Celery

from tasks.operations import canary
from tasks.operations.table import duration
from tasks.settings import Settings
from tasks.worker import draining
from tasks.worker.info import WorkerInfo, ask_nodes, ask_workers

#: Pause between two looks at the workers, in seconds.
_PAUSE_SECONDS: Final = 1.0


class RefusedError(Exception):
    """Draining would do harm, or cannot be done; nothing was changed. The text says the way out."""


class NotDrainedError(Exception):
    """Tasks still ran at the end of the time; the workers consume again. The text names them."""


@dataclass(frozen=True)
class _Workers:
    """The workers of one host, by their node names."""

    app: Celery
    settings: Settings
    nodes: list[str]

    def tell_until(
        self,
        command: str,
        need: Callable[[str, WorkerInfo], bool],
        true: Callable[[WorkerInfo], bool],
        seconds: float,
    ) -> list[str] | None:
        """Send a command to those that need it until none does and something is true of all.

        The command is repeated with each look: a worker that was restarting hears the next one.

        Args:
            command: the command.
            need: whether a worker needs it.
            true: what is to be true of each worker.
            seconds: how long to go on.

        Returns:
            None when it is so; otherwise, at the end of the time, the nodes that do not answer.
        """
        timeout, deadline = self.settings.health_timeout_seconds, time.monotonic() + seconds
        while True:
            found = ask_nodes(self.app, timeout, self.nodes)
            needing = [node for node, info in found.items() if need(node, info)]
            if len(found) == len(self.nodes) and not needing and all(map(true, found.values())):
                return None
            if time.monotonic() >= deadline:
                return [node for node in self.nodes if node not in found]
            if needing:
                self.app.control.broadcast(
                    command, destination=needing, reply=True, timeout=timeout, limit=len(needing)
                )
            time.sleep(min(_PAUSE_SECONDS, max(0.0, deadline - time.monotonic())))

    def running(self) -> list[str]:
        """Describe what they run."""
        return [
            f"{one['task']} {one['id']} on {one['worker']} for {duration(one['seconds'])}"
            for one in canary.running(self.app, self.settings.health_timeout_seconds)
            if one["worker"] in self.nodes
        ]

    def scheduled(self) -> int:
        """Count the tasks that wait there for their ETA."""
        timeout = self.settings.health_timeout_seconds
        inspect = self.app.control.inspect(
            destination=self.nodes, timeout=timeout, limit=len(self.nodes)
        )
        asked: dict[str, list[Any]] = inspect.scheduled() or {}
        return sum(map(len, asked.values()))


def host_of(node: str) -> str:
    """Return the host of a node such as ``data-2@host``."""
    return node.partition("@")[2]


def on_host(workers: dict[str, WorkerInfo], host: str) -> dict[str, WorkerInfo]:
    """Return the workers of one host."""
    return {node: info for node, info in workers.items() if host_of(node) == host}


def left_alone(workers: dict[str, WorkerInfo], hosts: Collection[str]) -> list[str]:
    """Return the queues that nobody would consume if the workers of these hosts stopped."""
    going = {q for node, info in workers.items() if host_of(node) in hosts for q in info["queues"]}
    staying = {
        q for node, info in workers.items() if host_of(node) not in hosts for q in info["queues"]
    }
    return sorted(going - staying)


def _marker(settings: Settings) -> Path:
    file = draining.marker(settings)
    if file is None:
        message = "this worker has no folder for a mark (CELRAY_OUTCOMES_DIR); deploy again"
        raise RefusedError(message)
    return file


def _mark(file: Path, *, drained: bool) -> None:
    """Write or remove the file.

    Raises:
        RefusedError: it cannot be written; the text says why.
    """
    try:
        if drained:
            file.touch()
        else:
            file.unlink(missing_ok=True)
    except OSError as error:
        message = f"{file} cannot be {'written' if drained else 'removed'}: {error.strerror}"
        raise RefusedError(message) from None


def plan(app: Celery, settings: Settings, hosts: Iterable[str], *, force: bool) -> list[str]:
    """Return what draining this host would do, in lines.

    Args:
        app: the app.
        settings: provides the file and the time limit of one question.
        hosts: the hosts that are drained together, this one among them.
        force: whether queues may be left without a consumer.

    Raises:
        RefusedError: no worker of this host answers, or a queue would be left without a consumer.
    """
    mine, alone = _ready(app, settings, hosts, force=force)
    lines = []
    for node, info in mine.items():
        leaves = f"leaves {', '.join(info['queues'])}" if info["queues"] else "consumes nothing"
        lines.append(f"{node} {leaves}; {info['running']} tasks run there")
    if alone:
        lines.append(f"no worker is left for {', '.join(alone)}")
    return lines


def _ready(
    app: Celery, settings: Settings, hosts: Iterable[str], *, force: bool
) -> tuple[dict[str, WorkerInfo], list[str]]:
    """Return this host's workers, and the queues that would be left without a consumer.

    Raises:
        RefusedError: see :func:`plan`.
    """
    host, workers = socket.gethostname(), ask_workers(app, settings.health_timeout_seconds)
    mine = on_host(workers, host)
    _marker(settings)
    if not mine:
        message = f"no worker of {host} answers; make status says what runs there"
        raise RefusedError(message)
    alone = left_alone(workers, {host, *hosts})
    if alone and not force:
        message = (
            f"no other worker that answers consumes {', '.join(alone)}: what is sent there would "
            "wait until make undrain; FORCE=yes drains all the same"
        )
        raise RefusedError(message)
    return mine, alone


def drain(
    app: Celery, settings: Settings, hosts: Iterable[str], *, wait: float, force: bool
) -> list[str]:
    """Let this host's workers take no more, and wait until what they have is finished.

    Tasks that wait there for their ETA are not waited for: they return to their queues when the
    worker stops.

    Args:
        app: the app.
        settings: provides the file and the time limit of one question.
        hosts: the hosts that are drained together, this one among them.
        wait: the longest time for what runs, in seconds.
        force: whether queues may be left without a consumer.

    Returns:
        What is the case now, in lines.

    Raises:
        RefusedError: see :func:`plan`.
        NotDrainedError: something still ran at the end; the workers consume again.
    """
    mine, _ = _ready(app, settings, hosts, force=force)
    host, names, workers = socket.gethostname(), ", ".join(mine), _Workers(app, settings, [*mine])
    before = draining.is_drained(settings)
    # First the file, so that a worker that restarts meanwhile takes nothing either.
    _mark(_marker(settings), drained=True)
    began = time.monotonic()
    silent = workers.tell_until(
        "celray_drain",
        lambda _, info: bool(info["queues"]),
        lambda info: not info["reserved"],
        wait,
    )
    if silent is not None:
        still = workers.running() + [f"{node} does not answer" for node in silent]
        undrain(app, settings)
        message = f"{host} is not drained after {duration(wait)}, and consumes again. Still there: "
        raise NotDrainedError(message + ("; ".join(still) or "what has ended just now"))
    if before:
        return [f"{host} was drained already: {names}"]
    took, later = duration(time.monotonic() - began), workers.scheduled()
    lines = [f"{host} is drained ({took}): {names} consume nothing until make undrain or a deploy"]
    if later:
        lines.append(f"{later} tasks wait there for their ETA, until their worker stops")
    return lines


def undrain(app: Celery, settings: Settings) -> list[str]:
    """Let this host's workers consume their queues again.

    Returns:
        What is the case now, in lines.

    Raises:
        RefusedError: the file cannot be removed, or a worker does not consume again.
    """
    host, before = socket.gethostname(), draining.is_drained(settings)
    _mark(_marker(settings), drained=False)
    nodes = list(on_host(ask_workers(app, settings.health_timeout_seconds), host))
    queues = {worker.name: set(worker.queues) for worker in settings.workers}

    def lacks(node: str, info: WorkerInfo) -> bool:
        return not queues.get(settings.worker_of(node), set()) <= set(info["queues"])

    silent = _Workers(app, settings, nodes).tell_until(
        "celray_undrain", lacks, lambda _: True, 10 * settings.health_timeout_seconds
    )
    if silent is not None:
        message = f"{host}: {', '.join(silent or nodes)} does not consume again; make logs says why"
        raise RefusedError(message)
    if not nodes:
        return [f"no worker of {host} answers; those that start there consume their queues"]
    done = f"{', '.join(nodes)} consume their queues"
    return [f"{host} is no longer drained: {done}" if before else f"{host} was not drained: {done}"]

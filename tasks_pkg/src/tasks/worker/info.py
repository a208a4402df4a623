"""Remote control commands of a worker's main process; they work while all children are busy."""

import os
import time
from typing import TypedDict, cast

from celery import Celery, bootsteps
from celery.utils.log import get_logger
from celery.worker import state
from celery.worker.control import control_command, inspect_command
from celery.worker.control import pool_shrink as celery_pool_shrink
from celery.worker.control import revoke as celery_revoke
from redis.exceptions import RedisError

from tasks.broker.redis import revocations
from tasks.catalogue_rules import queue_of
from tasks.contracts import Untyped
from tasks.settings import get_settings
from tasks.versions import versions
from tasks.worker.draining import is_drained

logger = get_logger(__name__)

_STARTED = time.monotonic()


class WorkerInfo(TypedDict):
    """A worker's description of itself; ``started_at`` is its clock, in seconds since the epoch."""

    queues: list[str]
    all_queues: list[str]
    """The queues of all workers in the catalogue."""
    processes: int
    running: int
    reserved: int
    """Tasks that it has taken and that are running or wait for a process, without those that wait
    for their ETA."""
    drained: bool
    """Whether its host is drained: it consumes nothing, on purpose."""
    done: int
    uptime_seconds: int
    started_at: float
    pid: int
    versions: dict[str, str]
    tasks: list[str]
    routes: dict[str, str]
    """Queue of each routed task, including those of task packages."""


@inspect_command()  # type: ignore[untyped-decorator]  # celery has no types
def celray_info(control: Untyped) -> WorkerInfo:
    """Describe this worker."""
    consumer = control.consumer
    reads = consumer.task_consumer
    tasks = sorted(name for name in control.app.tasks if not name.startswith("celery."))
    return {
        "queues": [q for q in get_settings().queues if reads and reads.consuming_from(q)],
        "all_queues": list(get_settings().queues),
        "processes": consumer.pool.num_processes,
        "running": len(state.active_requests),
        "reserved": len(state.reserved_requests),
        "drained": is_drained(get_settings()),
        "done": sum(state.total_count.values()),
        "uptime_seconds": int(time.monotonic() - _STARTED),
        "started_at": time.time() - (time.monotonic() - _STARTED),
        "pid": os.getpid(),
        "versions": versions(),
        "tasks": tasks,
        "routes": {
            task: queue
            for task in tasks
            if (queue := queue_of(task, get_settings().routes)) is not None
        },
    }


@control_command(variadic="task_id", signature="[id1 [id2 [... [idN]]]]")  # type: ignore[untyped-decorator]
def revoke(
    control: Untyped,
    task_id: Untyped,
    terminate: bool = False,
    signal: str | None = None,
    **more: Untyped,
) -> Untyped:
    """Cancel tasks as Celery does, and permanently: see :mod:`tasks.broker.redis.revocations`.

    Tasks that wait here for their ETA are reported as revoked now, not when they are due.
    """
    asked = [task_id] if isinstance(task_id, str) else task_id
    ids = [one for one in asked if isinstance(one, str)] if isinstance(asked, list | tuple) else []
    try:
        running = {request.id for request in state.active_requests}
        revocations.write(control.app, ids, running)
    except (RedisError, OSError) as error:
        logger.warning("cannot write down what is cancelled: %s", error)
    answer = celery_revoke(control, task_id, terminate=terminate, signal=signal, **more)
    for one in ids:
        request = state.requests.get(one)
        if request is not None and request._apply_result is None and request.time_start is None:
            request.revoked()
    return answer


@control_command(args=[("n", int)], signature="[N=1]")  # type: ignore[untyped-decorator]
def pool_shrink(control: Untyped, n: int = 1, **more: Untyped) -> Untyped:
    """Remove pool processes but keep one: a pool without processes would hold its tasks forever."""
    processes = control.consumer.pool.num_processes
    if not 0 < n < processes:
        return {"error": f"{n} of {processes} processes cannot be taken away: one must stay"}
    return celery_pool_shrink(control, n, **more)


def ask_workers(app: Celery, timeout: float) -> dict[str, WorkerInfo]:
    """Return every worker's description by node name.

    Args:
        app: the app.
        timeout: how long to wait for answers, in seconds; the call always takes that long. If an
            expected worker has not answered by then, the call asks once more and waits three times
            as long: a busy machine answers late.
    """
    settings = get_settings()
    found: dict[str, WorkerInfo] = {}
    for seconds in (timeout, 3 * timeout):
        found |= _ask(app, seconds)
        if not settings.missing_of(found):
            break
    return dict(sorted(found.items()))


def ask_nodes(app: Celery, timeout: float, nodes: list[str]) -> dict[str, WorkerInfo]:
    """Return the descriptions of certain workers by node name.

    Args:
        app: the app.
        timeout: how long to wait for answers, in seconds; the call ends earlier if all answer.
        nodes: the workers.
    """
    return _ask(app, timeout, nodes) if nodes else {}


def _ask(app: Celery, timeout: float, nodes: list[str] | None = None) -> dict[str, WorkerInfo]:
    replies = app.control.broadcast(
        "celray_info",
        reply=True,
        timeout=timeout,
        destination=nodes,
        limit=len(nodes) if nodes else None,
    )
    return {
        node: cast("WorkerInfo", info)
        for reply in replies or []
        for node, info in sorted(reply.items())
        if "error" not in info
    }


class CodeVersion(bootsteps.StartStopStep):  # type: ignore[misc]  # celery has no types
    """Adds the worker's code version to its stats, which Flower shows on the worker's page."""

    def info(self, consumer: Untyped) -> dict[str, str]:  # noqa: ARG002 - the bootstep's signature
        """Return what is added to the answer of ``celery inspect stats``."""
        return {"code_version": get_settings().code_version}

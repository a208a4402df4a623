"""A cancelled task stays cancelled (ADR 0033).

Celery keeps revoked ids in its workers' memory, so a worker that restarts runs the task all the
same. Here a sorted set in the result store holds the cancelled ids. ``celray cancel`` writes it,
and so does every worker that receives a revocation from any client. A worker reads the set when it
connects, and the script that stores a task's start checks it too
(``tasks.broker.redis.scripts.STATE``). So no cancelled task begins, however often its message was
requeued or redelivered, and the check costs no round trip. :mod:`tasks.worker.revocations` holds
the worker's side.
"""

import time
from collections.abc import Container, Iterable
from typing import Final

from celery import Celery
from celery.exceptions import TaskRevokedError
from celery.states import REVOKED

from tasks.broker.redis.scripts import CANCEL
from tasks.contracts import Untyped

#: How long an id stays cancelled, in seconds: longer than any task waits for its ETA.
KEPT_SECONDS: Final = 90 * 86_400
#: The most ids in the set; the oldest are dropped.
MOST: Final = 100_000
#: The set: ids by the time of their cancellation (seconds since the epoch).
KEY: Final = "celray-revoked"
#: An attribute of a request: its start was refused because the task was cancelled.
_REFUSED: Final = "celray_revoked"


def write(app: Celery, task_ids: Iterable[str], running: Container[str] = frozenset()) -> None:
    """Store that tasks are cancelled; those that have not begun are REVOKED from now on.

    Args:
        app: the app whose result store is written.
        task_ids: the tasks.
        running: those known to have begun, whatever is stored; their ends decide their states.

    Raises:
        redis.exceptions.RedisError: the result store does not answer.
    """
    _store(app, KEY, MOST, [(one, "" if one in running else _record(app, one)) for one in task_ids])


def record(app: Celery, task_ids: Iterable[str]) -> None:
    """Store REVOKED for tasks whose messages are gone, unless a task has begun or ended.

    Their ids are not kept: a purge may remove more tasks than the set may hold, and would drop the
    ids of tasks that were cancelled.

    Raises:
        redis.exceptions.RedisError: the result store does not answer.
    """
    _store(app, f"{KEY}-purged", 0, [(one, _record(app, one)) for one in task_ids])


def _store(app: Celery, key: str, most: int, said: list[tuple[str, str]]) -> None:
    """Write ids to a set of at most ``most``, and each task's result where it has none."""
    if not said:
        return
    backend, now = app.backend, time.time()
    backend.client.register_script(CANCEL)(
        keys=[key, *(backend.get_key_for_task(task_id) for task_id, _ in said)],
        args=[
            round(now, 3),
            now - KEPT_SECONDS,
            most,
            int(backend.expires or 0),
            *(item for pair in said for item in pair),
        ],
    )


def _record(app: Celery, task_id: str) -> str:
    """Return the result record of a cancelled task, as Celery writes it."""
    backend = app.backend
    result = backend.encode_result(TaskRevokedError("revoked"), REVOKED)
    meta = backend._get_result_meta(result=result, state=REVOKED, traceback=None, request=None)
    return str(backend.encode({**meta, "task_id": task_id}))


def note(request: Untyped) -> None:
    """Record on the request that its start was refused."""
    setattr(request, _REFUSED, True)


def is_noted(request: Untyped) -> bool:
    """Return whether :func:`note` was called for this request."""
    return bool(getattr(request, _REFUSED, False))

"""A cancelled task stays cancelled (ADR 0032).

Celery keeps what was revoked in its workers' memory: a worker that starts anew runs it all the
same. Here a sorted set in the result store has the cancelled ids, written by ``celray cancel`` and
by every worker that hears of a revocation from whatever client. A worker reads it when it connects,
and the step that stores a task's start looks at it too (``tasks.broker.redis.scripts.STATE``): so
no task begins that was cancelled, however often its message was requeued or redelivered, and that
costs no round trip. What a worker does with it stands in :mod:`tasks.worker.revocations`.
"""

import time
from collections.abc import Container, Iterable
from typing import Final

from celery import Celery
from celery.exceptions import TaskRevokedError
from celery.states import REVOKED

from tasks.broker.redis.scripts import CANCEL
from tasks.contracts import Untyped

#: Seconds that an id stays cancelled: longer than any task waits for its time.
KEPT_SECONDS: Final = 90 * 86_400
#: The most ids that are kept, the newest.
MOST: Final = 100_000
#: The set: ids by the time of their cancellation (seconds since the epoch).
KEY: Final = "celray-revoked"
#: On a request: its start was refused, because it was cancelled.
_REFUSED: Final = "celray_revoked"


def write(app: Celery, task_ids: Iterable[str], running: Container[str] = frozenset()) -> None:
    """Write down that tasks are cancelled; those that have not begun are REVOKED from now on.

    Args:
        app: whose result store it is.
        task_ids: the tasks.
        running: those that are known to have begun, whatever is stored: their ends say how it was.

    Raises:
        redis.exceptions.RedisError: the result store does not answer.
    """
    ids = list(task_ids)
    if not ids:
        return
    backend, now = app.backend, time.time()
    said = [item for one in ids for item in (one, "" if one in running else _record(app, one))]
    backend.client.register_script(CANCEL)(
        keys=[KEY, *map(backend.get_key_for_task, ids)],
        args=[round(now, 3), now - KEPT_SECONDS, MOST, int(backend.expires or 0), *said],
    )


def _record(app: Celery, task_id: str) -> str:
    """Return the result that says of a task that it was cancelled, as Celery writes it."""
    backend = app.backend
    result = backend.encode_result(TaskRevokedError("revoked"), REVOKED)
    meta = backend._get_result_meta(result=result, state=REVOKED, traceback=None, request=None)
    return str(backend.encode({**meta, "task_id": task_id}))


def note(request: Untyped) -> None:
    """Remember that a start was refused."""
    setattr(request, _REFUSED, True)


def is_noted(request: Untyped) -> bool:
    """Return whether :func:`note` was called for this request."""
    return bool(getattr(request, _REFUSED, False))

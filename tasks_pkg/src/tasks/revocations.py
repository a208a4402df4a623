"""A cancelled task stays cancelled (ADR 0032).

Celery keeps what was revoked in its workers' memory: a worker that starts anew runs it all the
same. Here a sorted set in the result store has the cancelled ids, written by ``celray cancel`` and
by every worker that hears of a revocation from whatever client. A worker reads it when it connects,
and the step that stores a task's start looks at it too (``tasks.broker.scripts.STATE``): so no task
begins that was cancelled, however often its message was requeued or redelivered, and that costs no
round trip.
"""

import time
from collections.abc import Container, Iterable
from typing import Final

from celery import Celery, Task, bootsteps, signals
from celery.exceptions import Ignore, TaskRevokedError
from celery.states import REVOKED
from celery.utils.log import get_logger
from celery.worker import state as worker_state
from kombu.utils.encoding import bytes_to_str
from redis.exceptions import RedisError

from tasks.broker.scripts import CANCEL
from tasks.contracts import Untyped

logger = get_logger(__name__)

#: Seconds that an id stays cancelled: longer than any task waits for its time.
KEPT_SECONDS: Final = 90 * 86_400
#: The most ids that are kept, the newest.
MOST: Final = 100_000
#: The set: ids by the time of their cancellation (seconds since the epoch).
KEY: Final = "celray-revoked"
#: On a request: its start was refused, because it was cancelled.
_REVOKED: Final = "celray_revoked"


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
    setattr(request, _REVOKED, True)


def refuse(task: Task) -> None:
    """Do not run a cancelled task; its chord, its chain and its errbacks learn of it.

    Raises:
        celery.exceptions.Ignore: the message goes.
    """
    app, request = task.app, task.request
    revoked = getattr(request, _REVOKED, False)
    if request.is_eager:  # in its caller's process: nobody can have cancelled it
        return
    stored = task.track_started and not request.ignore_result
    if not revoked and not stored and task.looks_for_cancellation:
        # As storing a start does, this waits while Redis is away: to fail would lose the task.
        ask = app.backend.client.zscore
        revoked = app.backend._ensure_retryable(ask, KEY, request.id) is not None
    if revoked:
        logger.info("%s[%s] was cancelled, and is not run", request.task, request.id)
        # As Celery's main process does for what it knows to be revoked: a Ray job ends with it.
        worker_state.revoked.add(request.id)
        signals.task_revoked.send(
            sender=task,
            request=request,
            terminated=False,
            signum=None,
            expired=False,
        )
        app.backend.mark_as_revoked(
            request.id, "revoked", request=request, store_result=not request.ignore_result
        )
        raise Ignore


class Revocations(bootsteps.StartStopStep):  # type: ignore[misc]  # celery has no types
    """Tells a worker, whenever it connects, what was cancelled while it could not hear."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Untyped) -> None:
        """Read the set."""
        worker_state.revoked.expires = KEPT_SECONDS
        worker_state.revoked.maxlen = MOST
        try:
            found = consumer.app.backend.client.zrange(KEY, 0, -1)
        except (RedisError, OSError) as error:
            logger.warning("cannot read what is cancelled; each start looks at it: %s", error)
            return
        worker_state.revoked.update(bytes_to_str(one) for one in found)

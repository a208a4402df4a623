"""A cancelled task stays cancelled (ADR 0032).

Celery keeps what was revoked in its workers' memory: a worker that starts anew runs it all the
same. Here each cancelled id has a key of its own in the result store, written by ``celray cancel``
and by every worker that hears of a revocation from whatever client. The step that stores a task's
start looks at it (``tasks.broker.scripts.STATE``), so no task begins that was cancelled, however
often its message was requeued or redelivered, and it costs no round trip.
"""

import time
from collections.abc import Iterable
from typing import Final

from celery import Celery
from celery.exceptions import Ignore
from celery.states import EXCEPTION_STATES, STARTED, SUCCESS
from celery.utils.log import get_logger

from tasks.contracts import Untyped

logger = get_logger(__name__)

#: Seconds that an id stays cancelled: longer than any task waits for its time.
KEPT_SECONDS: Final = 90 * 86_400
_PREFIX: Final = "celray-revoked-"
#: On a request: its start was refused, because it was cancelled.
_REVOKED: Final = "celray_revoked"
#: States after which nothing is to be cancelled, or the task itself says how it ends.
_BEYOND: Final = frozenset({SUCCESS, *EXCEPTION_STATES, STARTED, "PROGRESS"})


def key_of(task_id: str) -> str:
    """Return the key that says that a task is cancelled."""
    return f"{_PREFIX}{task_id}"


def write(app: Celery, task_ids: Iterable[str]) -> None:
    """Write down that tasks are cancelled; those that have not begun are REVOKED from now on.

    Raises:
        redis.exceptions.RedisError: the result store does not answer.
    """
    ids = [one for one in task_ids if isinstance(one, str)]
    if not ids:
        return
    client = app.backend.client
    with client.pipeline(transaction=False) as pipe:
        for task_id in ids:
            pipe.set(key_of(task_id), f"{time.time():.3f}", ex=KEPT_SECONDS)
            pipe.get(app.backend.get_key_for_task(task_id))
        found = pipe.execute()[1::2]
    for task_id, record in zip(ids, found, strict=True):
        if record is None or _state_of(app, record) not in _BEYOND:
            app.backend.mark_as_revoked(task_id, "revoked")


def _state_of(app: Celery, record: bytes) -> str:
    try:
        return str(app.backend.decode(record)["status"])
    except Exception:  # noqa: BLE001 - whatever stands there, it is no end of a task
        return ""


def note(request: Untyped) -> None:
    """Remember that a start was refused."""
    setattr(request, _REVOKED, True)


def refuse(app: Celery, request: Untyped) -> None:
    """Do not run a cancelled task; its chord, its chain and its errbacks learn of it.

    Raises:
        celery.exceptions.Ignore: the message goes.
    """
    revoked = getattr(request, _REVOKED, False)
    if not revoked and request.ignore_result:  # no start is stored, so nothing has looked
        revoked = bool(app.backend.client.exists(key_of(request.id)))
    if revoked:
        logger.info("%s[%s] was cancelled, and is not run", request.task, request.id)
        app.backend.mark_as_revoked(
            request.id, "revoked", request=request, store_result=not request.ignore_result
        )
        raise Ignore


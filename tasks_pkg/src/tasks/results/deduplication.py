"""A task that was published twice runs once (ADR 0025).

A caller whose publish was not answered publishes again, Celery's own client too, and Redis may
have taken both: one id, two messages, either of them new. The record of a task's start is stored in
one step (``tasks.broker.redis.scripts.STATE``) that looks at what is there: where another run of
the same message has begun or is done, it stores nothing and says so, and the second copy is not
run.
"""

import hashlib
import time
import uuid
from typing import Any, Final

from celery.exceptions import Ignore
from celery.states import FAILURE, REVOKED, STARTED
from celery.utils.log import get_logger
from kombu.utils.json import dumps

from tasks.contracts import Untyped
from tasks.message_headers import PUBLISHED_AT

logger = get_logger(__name__)

#: What a record says about the run that stored it: which one it is, of which message, under which
#: delivery tag, and when (seconds since the epoch). The script knows these names.
RUN: Final = "celray_run"
SAME: Final = "celray_same"
TAG: Final = "celray_tag"
STORED_AT: Final = "celray_stored_at"

#: On a request: what its records say, and whether its start was refused.
_STAMP: Final = "celray_stamp"
_REFUSED: Final = "celray_refused"

#: So long after the first copy began, or was done, a second one is the same task, in seconds. A
#: caller that uses an id again may mean it, later.
SAME_SECONDS: Final = 600

#: What copies of a message have in common. Retries, what replaces a task, and a signature that
#: stands twice in a group have the same id, and differ in one of these; whatever a worker or our
#: own client publishes anew differs in its time of publishing.
_ALIKE: Final = (
    *("id", "task", "args", "kwargs", "retries", "parent_id", "group", "group_index"),
    *("replaced_task_nesting", PUBLISHED_AT),
)
#: What these records say must not keep anything from running.
_UNSTAMPED: Final = frozenset({FAILURE, REVOKED, "RETRY"})


def stamp(request: Untyped, state: str) -> dict[str, Any]:
    """Return what the record of a run's state says about the run; nothing where it has failed."""
    if request is None or state in _UNSTAMPED:
        return {}
    made: dict[str, Any] | None = getattr(request, _STAMP, None)
    if made is None:  # once: a task may change the lists that it was given
        alike = {name: getattr(request, name, None) for name in _ALIKE}
        try:
            text = dumps(alike, sort_keys=True)
        except (TypeError, ValueError):  # nothing that came as a message
            return {}
        made = {
            RUN: uuid.uuid4().hex,
            SAME: hashlib.sha256(text.encode()).hexdigest(),
            TAG: (request.properties or {}).get("delivery_tag") or "",
        }
        setattr(request, _STAMP, made)
    return {**made, STORED_AT: time.time()}


def asked(request: Untyped, state: str, made: dict[str, Any], *, late: bool) -> list[str]:
    """Return what the script needs to know a copy; all empty where none must be refused.

    Args:
        request: the task that is about to run.
        state: that is to be stored.
        made: what its record will say.
        late: whether its message is acknowledged when it is done. One that is gone already cannot
            come back, so a start in vain must not stand in the way of who sends it again.
    """
    if state != STARTED or not made or not late or _redelivered(request):
        return ["", "", ""]
    oldest = made[STORED_AT] - SAME_SECONDS
    return [made[SAME], made[RUN], f"{oldest:.3f}"]


def _redelivered(request: Untyped) -> bool:
    return bool((request.delivery_info or {}).get("redelivered"))


def note(request: Untyped) -> None:
    """Remember that a start was refused."""
    setattr(request, _REFUSED, True)


def refuse(request: Untyped) -> None:
    """Do not run a second copy.

    Raises:
        celery.exceptions.Ignore: the message goes, and nothing is stored.
    """
    if getattr(request, _REFUSED, False):
        what = f"{request.task}[{request.id}]"
        logger.warning("%s was published twice, and this copy is not run", what)
        raise Ignore

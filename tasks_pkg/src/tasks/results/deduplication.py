"""A task that was published twice runs once (ADR 0025).

A caller whose publish was not answered publishes again; Celery's own client does too. Redis may
have taken both: one id, two messages, both marked as new. The script that stores a task's start
(``tasks.broker.redis.scripts.STATE``) checks in the same step what is stored. If another run of the
same message has begun or ended, it stores nothing and reports a copy, and the copy is not run.
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

#: The fields of a record about the run that stored it: the run's id, its message, its delivery tag,
#: and the time (seconds since the epoch). The script uses the same names.
RUN: Final = "celray_run"
SAME: Final = "celray_same"
TAG: Final = "celray_tag"
STORED_AT: Final = "celray_stored_at"

#: Attributes of a request: the fields of its records, and whether its start was refused.
_STAMP: Final = "celray_stamp"
_REFUSED: Final = "celray_refused"

#: How long after the start or the end of the first copy a second one counts as the same task, in
#: seconds. A caller that uses an id again later may mean it.
SAME_SECONDS: Final = 600

#: The fields that are equal in copies of a message. Retries, replacements of a task, and a
#: signature used twice in a group share the id and differ in one of these. A message that a worker
#: or celray's client publishes again differs in its time of publishing.
_ALIKE: Final = (
    *("id", "task", "args", "kwargs", "retries", "parent_id", "group", "group_index"),
    *("replaced_task_nesting", PUBLISHED_AT),
)
#: Records in these states must not keep anything from running.
_UNSTAMPED: Final = frozenset({FAILURE, REVOKED, "RETRY"})


def stamp(request: Untyped, state: str) -> dict[str, Any]:
    """Return the run's fields for the record of a state; none if the run has failed."""
    if request is None or state in _UNSTAMPED:
        return {}
    made: dict[str, Any] | None = getattr(request, _STAMP, None)
    if made is None:  # only once: a task may change its argument lists
        alike = {name: getattr(request, name, None) for name in _ALIKE}
        try:
            text = dumps(alike, sort_keys=True)
        except (TypeError, ValueError):  # not from a message
            return {}
        made = {
            RUN: uuid.uuid4().hex,
            SAME: hashlib.sha256(text.encode()).hexdigest(),
            TAG: (request.properties or {}).get("delivery_tag") or "",
        }
        setattr(request, _STAMP, made)
    return {**made, STORED_AT: time.time()}


def asked(request: Untyped, state: str, made: dict[str, Any], *, late: bool) -> list[str]:
    """Return the arguments by which the script detects a copy; all empty if no copy may be refused.

    Args:
        request: the task that is about to run.
        state: the state to be stored.
        made: the fields of its record.
        late: whether its message is acknowledged after the run. A message that was acknowledged
            before cannot come back, so a failed start must not block a caller who sends it again.
    """
    if state != STARTED or not made or not late or _redelivered(request):
        return ["", "", ""]
    oldest = made[STORED_AT] - SAME_SECONDS
    return [made[SAME], made[RUN], f"{oldest:.3f}"]


def _redelivered(request: Untyped) -> bool:
    return bool((request.delivery_info or {}).get("redelivered"))


def note(request: Untyped) -> None:
    """Record on the request that its start was refused."""
    setattr(request, _REFUSED, True)


def refuse(request: Untyped) -> None:
    """Do not run a second copy.

    Raises:
        celery.exceptions.Ignore: the message is dropped, and nothing is stored.
    """
    if getattr(request, _REFUSED, False):
        what = f"{request.task}[{request.id}]"
        logger.warning("%s was published twice, and this copy is not run", what)
        raise Ignore

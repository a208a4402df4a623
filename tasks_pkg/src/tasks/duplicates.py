"""A task that was published twice runs once (ADR 0025).

A caller whose publish was not answered publishes again, Celery's own client too, and Redis may
have taken both: one id, two messages, either of them new. The record of a task's start is stored in
one step that gives what was there before; so the second copy learns at no cost that the first has
begun, or is done, and is not run.
"""

import time
import uuid
from typing import Any, Final

from celery.exceptions import Ignore
from celery.states import STARTED, SUCCESS
from celery.utils.log import get_logger
from kombu.utils.json import dumps, loads

from tasks.contracts import Untyped

logger = get_logger(__name__)

#: When the state was stored, in the record of a start and of a success: seconds since the epoch.
STORED_AT: Final = "celray_stored_at"
#: Which run stored it: also how a start knows a record as its own, stored before by a try that was
#: not answered.
RUN: Final = "celray_run"
#: What a start found, as an attribute of the request.
FOUND: Final = "celray_found"
#: So long after the first copy began, or was done, a second one is the same task, in seconds. A
#: caller that uses an id again may mean it, later.
SAME_SECONDS: Final = 600.0
#: In the record, and in the request. A retry, and what replaces a task, have its id too, and
#: differ in one of these.
_SAME: Final = {
    "name": "task",
    "args": "args",
    "kwargs": "kwargs",
    "retries": "retries",
    "parent_id": "parent_id",
    "group_id": "group",
}


def stamp(request: Untyped) -> dict[str, Any]:
    """Give what the records of a task's start and success say about this run of it."""
    if not hasattr(request, RUN):
        setattr(request, RUN, uuid.uuid4().hex)
    return {RUN: getattr(request, RUN), STORED_AT: time.time()}


def refuse(request: Untyped) -> None:
    """Refuse to run a second copy.

    Raises:
        celery.exceptions.Ignore: the message goes, and nothing is stored.
    """
    found = getattr(request, FOUND, None)
    if found and is_copy(request, found):
        what = f"{request.task}[{request.id}]"
        logger.warning("%s was published twice, and this copy is not run", what)
        raise Ignore


def is_copy(request: Untyped, found: str) -> bool:
    """Say whether a start's record, or a success's, is of another copy of the same message.

    Args:
        request: the task that is about to run.
        found: the record that its start has found.
    """
    if (request.delivery_info or {}).get("redelivered"):
        return False  # it is that message: Celery looks for its success, and a start was in vain
    try:
        record: dict[str, Any] = loads(found)
    except ValueError:
        return False
    if record.get("status") not in {STARTED, SUCCESS} or record.get(RUN) == stamp(request)[RUN]:
        return False
    recent = time.time() - record.get(STORED_AT, 0.0) < SAME_SECONDS
    ours = {name: getattr(request, attribute, None) for name, attribute in _SAME.items()}
    there = {name: record.get(name) for name in _SAME}
    return bool(recent and loads(dumps(ours)) == there)

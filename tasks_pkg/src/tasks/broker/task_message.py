"""The fields of a task message, in both protocols, checked before Celery reads them.

Celery trusts its clients: a field of the wrong type ends the worker, or the child process that runs
the task. The message then comes back and ends the next one. :func:`check` refuses a message with an
invalid field that decides how the task runs, and drops an invalid field that only describes it.
Unknown fields pass.

Source: https://docs.celeryq.dev/en/stable/internals/protocol.html
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Final

from celery.utils.time import maybe_iso8601

from tasks.broker.envelope import NAME_IN_WORDS, Refused, is_name, payload_of
from tasks.message_headers import LAPSES, UNBEGUN

#: The longest time limit, in seconds; larger values overflow clocks.
_MOST_SECONDS: Final = 1e9
#: A rule for a field: the test, and its wording for an error message.
_Rule = tuple[Callable[[Any], bool], str]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _is_date(value: object) -> bool:
    if not isinstance(value, str | datetime):
        return False
    try:
        moment = maybe_iso8601(value)
        moment.timestamp()
    except (ArithmeticError, AttributeError, TypeError, ValueError, OSError):
        return False
    return isinstance(moment, datetime)


def is_naive(value: object) -> bool:
    """Return whether a valid date has no time zone."""
    return isinstance(value, str | datetime) and maybe_iso8601(value).tzinfo is None


def _is_limits(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_seconds, value))  # noqa: PLR2004


def _is_seconds(value: object) -> bool:
    if value is None:
        return True
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return 0 <= value <= _MOST_SECONDS  # neither infinity nor NaN


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _is_signature(value: object) -> bool:
    """Return whether Celery can make a signature of ``value``."""
    if not isinstance(value, dict) or not is_name(value.get("task")):
        return False
    fields = ("args", list), ("kwargs", dict), ("options", dict)
    if any(
        value.get(name) is not None and not isinstance(value[name], kind) for name, kind in fields
    ):
        return False
    options = value.get("options") or {}
    names = ("task_id", "group_id", "queue", "routing_key", "reply_to", "root_id", "parent_id")
    return all(options.get(name) is None or is_name(options[name]) for name in names)


def _is_signatures(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_signature, value))


_NAME: Final[_Rule] = is_name, NAME_IN_WORDS
_DATE: Final[_Rule] = _is_date, "a date in ISO 8601"

#: Fields of either protocol that decide how the task runs; null counts as absent.
_DECIDING: Final[dict[str, _Rule]] = {
    "root_id": _NAME,
    "parent_id": _NAME,
    "group": _NAME,
    "taskset": _NAME,
    "group_index": (_is_count, "a whole number"),
    "eta": _DATE,
    "expires": _DATE,
    "retries": (_is_count, "a whole number"),
    "timelimit": (_is_limits, "a pair of seconds"),
}
_EMBEDDED: Final[dict[str, _Rule]] = {
    "callbacks": (_is_signatures, "a list of signatures"),
    "errbacks": (_is_signatures, "a list of signatures"),
    "chain": (_is_signatures, "a list of signatures"),
    "chord": (_is_signature, "a signature"),
}
#: Fields that only describe the task, or that a worker can do without; invalid ones are dropped.
_DESCRIBING: Final[dict[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(("argsrepr", "kwargsrepr"), lambda value: isinstance(value, str)),
    **dict.fromkeys(("origin", "lang", "shadow", "meth"), is_name),
    **dict.fromkeys(("ignore_result", "redelivered"), lambda value: isinstance(value, bool)),
    **dict.fromkeys((LAPSES, UNBEGUN, "replaced_task_nesting"), _is_count),
    "stamps": _is_object,
    "stamped_headers": lambda value: isinstance(value, list) and all(map(is_name, value)),
}


def check(headers: dict[str, Any], payload: object) -> None:
    """Check a task's message; drop from ``headers`` what only describes the task and is invalid.

    Args:
        headers: the message's headers; changed in place.
        payload: the decoded body; changed in place for the first protocol.

    Raises:
        Refused: a field that decides how the task runs is invalid, or the message is no task.
    """
    first = payload if "task" not in headers else None
    fields = headers if first is None else first
    if not isinstance(fields, dict):
        reason = "it names no task: no header `task`, and its body is not the first protocol's"
        raise Refused(reason, _name(headers.get("id")), headers)
    known = {**(payload if isinstance(payload, dict) else {}), **headers}
    try:
        _check(headers, payload, fields)
    except Refused as refused:
        refused.task_id = _name(fields.get("id")) or _name(known.get("id"))
        refused.context = {**known, **_trusted_embed(payload)}
        raise


def _check(headers: dict[str, Any], payload: object, fields: dict[str, Any]) -> None:
    # A body of the first protocol with headers of the second: both must be valid.
    both = [headers, payload] if isinstance(payload, dict) else [headers]
    _check_names(both, fields)
    for one in both:
        _hold(one, _DECIDING)
        for name, good in _DESCRIBING.items():
            if name in one and one[name] is not None and not good(one[name]):
                del one[name]
        if one.get("retries", 0) is None:
            one["retries"] = 0
    _check_body(payload)


def _check_names(both: list[dict[str, Any]], fields: dict[str, Any]) -> None:
    if not is_name(fields.get("task")):
        reason = f"its task's name is {repr(fields.get('task'))[:100]}, not {NAME_IN_WORDS}"
        raise Refused(reason)
    ids = [one["id"] for one in both if "id" in one]
    if not ids or not all(map(is_name, ids)):
        reason = (
            f"its id is {repr(ids[0])[:100]}, not {NAME_IN_WORDS}" if any(ids) else "it has no id"
        )
        raise Refused(reason)


def _check_body(payload: object) -> None:
    if isinstance(payload, dict):
        # Celery treats a null as a given value, and fails.
        args, kwargs = payload.setdefault("args", []), payload.setdefault("kwargs", {})
        embed: object = payload
    elif isinstance(payload, list) and len(payload) == 3:  # noqa: PLR2004 - args, kwargs, embed
        args, kwargs, embed = payload
    else:
        reason = "its body is not [args, kwargs, embed]"
        raise Refused(reason)
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        reason = "its arguments are not a list and an object"
        raise Refused(reason)
    if embed is not None:
        if not isinstance(embed, dict):
            reason = "the third part of its body is not an object"
            raise Refused(reason)
        _hold(embed, _EMBEDDED)


def _hold(fields: dict[str, Any], rules: dict[str, _Rule]) -> None:
    for name, (good, words) in rules.items():
        value = fields.get(name)
        if value is not None and not good(value):
            reason = f"its {name} is {repr(value)[:100]}, not {words}"
            raise Refused(reason)


def _name(value: object) -> str | None:
    return value if isinstance(value, str) and is_name(value) else None


def _trusted_embed(payload: object) -> dict[str, Any]:
    """Return the callbacks of a task, as far as its message can be read."""
    embed = payload if isinstance(payload, dict) else None
    if isinstance(payload, list) and payload and isinstance(payload[-1], dict):
        embed = payload[-1]
    if embed is None:
        return {}
    return {name: value for name, value in _of(embed, _EMBEDDED) if value is not None}


def _of(fields: dict[str, Any], rules: dict[str, _Rule]) -> Iterator[tuple[str, Any]]:
    for name, (good, _) in rules.items():
        value = fields.get(name)
        yield name, value if value is not None and good(value) else None


def context_of(refused: Refused) -> dict[str, Any]:
    """Return the valid fields of a refused message: who must be notified of its failure."""
    found = refused.context
    fields = {**dict(_of(found, _DECIDING)), **dict(_of(found, _EMBEDDED))}
    fields["task"] = _name(found.get("task"))
    fields["id"] = refused.task_id
    return {name: value for name, value in fields.items() if value is not None}


def request_of(message: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a task message, of either protocol, as a request has them."""
    headers: dict[str, Any] = message["headers"]
    try:
        payload = payload_of(message)
    except Refused:
        return dict(headers)
    if isinstance(payload, dict):  # the first protocol
        return {**payload, **headers}
    if isinstance(payload, list) and len(payload) == 3:  # noqa: PLR2004 - args, kwargs, embed
        args, kwargs, embed = payload
        return {**headers, "args": args, "kwargs": kwargs, **(embed or {})}
    return dict(headers)


def identity(message: dict[str, Any]) -> tuple[str | None, str]:
    """Return the task's id and name from a message that may be anything; None and "" for no task.

    It reads either protocol: the first keeps both in the body.
    """
    headers = message.get("headers")
    headers = headers if isinstance(headers, dict) else {}
    task_id, name = _name(headers.get("id")), headers.get("task")
    if task_id is None or name is None:
        try:
            payload = payload_of({**message, "headers": headers})
        except (Refused, KeyError, TypeError, AttributeError):
            payload = None
        if isinstance(payload, dict):
            task_id = task_id or _name(payload.get("id"))
            name = payload.get("task") if name is None else name
    return task_id, "" if name is None else str(name)[:200]

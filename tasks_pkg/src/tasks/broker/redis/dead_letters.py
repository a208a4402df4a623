"""Dead letters: tasks that were given up, and messages that could not be decoded.

The interface that the command line wraps (``celray dead list | show | replay | drop``)::

    broker = dead_letters.connect(broker_url)
    dead_letters.letters(broker)                      # all, oldest first
    dead_letters.show(broker, letter_id)              # one; UnknownLetterError
    dead_letters.replay(broker, letter_id, app=app)   # back to its queue, counts start at 0
    dead_letters.drop(broker, letter_id)              # for good

A letter's id is its task's id; that of a message that could not be decoded
(``tasks.broker.redis.refusals``) is made from its bytes. The store is one hash without a time to
live (``celray:dead`` in the broker's database).
"""

import json
import time
from dataclasses import asdict, dataclass
from typing import Any, cast

from celery import Celery
from kombu.utils.json import dumps
from redis import Redis

from tasks.broker.envelope import MOST_REASON_CHARACTERS, Refused, written
from tasks.broker.redis.priorities import list_of
from tasks.broker.redis.refusals import KEPT_BYTES
from tasks.broker.redis.scripts import BURY, COUNTS, DEAD, FORGET, HELD, LEASES, REFUSED, REPLAY
from tasks.broker.task_message import identity
from tasks.message_headers import LAPSES, UNBEGUN

#: Time limit of one request to Redis, in seconds.
_TIMEOUT_SECONDS = 10.0


class UnknownLetterError(Exception):
    """There is no dead letter of this id."""


@dataclass(frozen=True)
class DeadLetter:
    """One task that was given up, or one refused message.

    ``deliveries`` counts its starts, ``buried_at`` is in seconds since the epoch, ``args`` and
    ``kwargs`` are as Celery shows them, ``message`` is what stood in the queue.
    """

    id: str
    task: str
    queue: str
    reason: str
    deliveries: int
    buried_at: float
    args: str
    kwargs: str
    message: dict[str, Any] | None
    unreadable: str | None = None
    """The first bytes of a message that could not be decoded, one character per byte."""
    bytes: int | None = None
    """The length of that message, in bytes."""
    task_id: str | None = None
    """The id of the task, where it can be read; the letter's own id may be made from its bytes."""

    def as_dict(self) -> dict[str, Any]:
        """Return all fields, for JSON."""
        return asdict(self)


def connect(broker_url: str) -> Redis:
    """Open a client of the broker's database whose requests have a time limit."""
    return Redis.from_url(
        broker_url,
        decode_responses=True,
        encoding_errors="surrogateescape",
        socket_timeout=_TIMEOUT_SECONDS,
        socket_connect_timeout=_TIMEOUT_SECONDS,
    )


def _letter(letter_id: str, text: str) -> DeadLetter:
    """Return a letter; if another program wrote it, with the fields that can be read."""
    try:
        stored = json.loads(text)
        message = stored.get("message")
        headers = (message or {}).get("headers") or {}
        task_id, name = (None, stored.get("task")) if message is None else identity(message)
        unreadable = stored.get("unreadable")
        return DeadLetter(
            id=letter_id,
            task=_shown(name or "?"),
            queue=_shown(stored["queue"]),
            reason=_shown(stored["reason"]),
            deliveries=int(stored["deliveries"]),
            buried_at=float(stored["buried_at"]),
            args=_shown(headers.get("argsrepr", "")),
            kwargs=_shown(headers.get("kwargsrepr", "")),
            message=message,
            unreadable=None if unreadable is None else _shown(unreadable),
            bytes=stored.get("bytes"),
            task_id=task_id or stored.get("task_id"),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        return DeadLetter(
            id=letter_id,
            task="?",
            queue="?",
            reason=f"this letter itself cannot be read: {type(error).__name__}: {error}",
            deliveries=0,
            buried_at=0.0,
            args="",
            kwargs="",
            message=None,
            unreadable=_shown(text),
            bytes=len(text),
        )


def _shown(value: object) -> str:
    """Return text that can be printed: bytes that are not UTF-8 are shown by their numbers."""
    return str(value).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def letters(broker: Redis) -> list[DeadLetter]:
    """Return all dead letters, the oldest first.

    Raises:
        redis.exceptions.RedisError: the broker does not answer.
    """
    stored = cast("dict[str, str]", broker.hgetall(DEAD))
    found = [_letter(letter_id, text) for letter_id, text in stored.items()]
    return sorted(found, key=lambda letter: letter.buried_at)


def _stored(broker: Redis, letter_id: str) -> str:
    text = cast("str | None", broker.hget(DEAD, letter_id))
    if text is None:
        message = f"no dead letter {letter_id!r}; `celray dead list` shows which there are"
        raise UnknownLetterError(message)
    return text


def show(broker: Redis, letter_id: str) -> DeadLetter:
    """Return one dead letter.

    Raises:
        UnknownLetterError: there is none of this id.
        redis.exceptions.RedisError: the broker does not answer.
    """
    return _letter(letter_id, _stored(broker, letter_id))


def replay(broker: Redis, letter_id: str, app: Celery | None = None) -> DeadLetter:
    """Put a dead letter back into its queue under its own id, as if it had never run.

    With ``app`` its old failure is deleted, so that a caller who asks for the result waits. A chord
    or chain that was already notified of the failure does not continue.

    Raises:
        UnknownLetterError: there is none of this id, or it never was a task.
        redis.exceptions.RedisError: the broker does not answer.
    """
    text = _stored(broker, letter_id)
    letter = _letter(letter_id, text)
    if not isinstance(letter.message, dict):
        message = f"dead letter {letter_id!r} is no task ({letter.reason}); it can only be dropped"
        raise UnknownLetterError(message)
    fresh = fresh_message(letter.message)
    key = None if app is None else app.backend.get_key_for_task(letter.task_id or letter_id)
    failure = None if app is None else app.backend.get(key)
    done = broker.register_script(REPLAY)(
        keys=[DEAD, list_of(letter.queue, fresh)], args=[letter_id, text, dumps(fresh)]
    )
    if not done:
        message = f"dead letter {letter_id!r} was replayed or dropped by somebody else just now"
        raise UnknownLetterError(message)
    if app is not None and failure is not None:
        # Only now, and only that failure: the task may have ended in between.
        app.backend.client.register_script(FORGET)(keys=[key], args=[failure])
    return letter


def drop(broker: Redis, letter_id: str) -> DeadLetter:
    """Remove a dead letter for good; its result stays as it is.

    Raises:
        UnknownLetterError: there is none of this id.
        redis.exceptions.RedisError: the broker does not answer.
    """
    letter = show(broker, letter_id)
    broker.hdel(DEAD, letter_id)
    broker.zrem(REFUSED, letter_id)
    return letter


def count(broker: Redis) -> int:
    """Return how many letters there are.

    Raises:
        redis.exceptions.RedisError: the broker does not answer.
    """
    return int(broker.hlen(DEAD))


def refused_total(broker: Redis) -> int:
    """Return how many messages were ever refused at this broker, also those whose letters are gone.

    Raises:
        redis.exceptions.RedisError: the broker does not answer.
    """
    return int(cast("str | None", broker.hget(COUNTS, "refused")) or 0)


def fresh_message(message: dict[str, Any]) -> dict[str, Any]:
    """Return ``message`` as before its first delivery: no retries or lapses, not redelivered."""
    known = message.get("headers") or {}
    headers = {k: v for k, v in known.items() if k not in {LAPSES, UNBEGUN, "redelivered"}}
    if headers:  # the first protocol keeps these in its body
        headers |= {"retries": 0, "eta": None}
    properties = dict(message["properties"])
    info = {k: v for k, v in properties.get("delivery_info", {}).items() if k != "redelivered"}
    return {**message, "headers": headers, "properties": {**properties, "delivery_info": info}}


def bury(
    broker: Redis, tag: str, held: tuple[str, dict[str, Any]], reason: str, deliveries: int
) -> None:
    """Turn a held message into a dead letter, in one step.

    ``held`` is the message's queue and the message. If the message is too large for Redis to take
    again, the letter holds its first bytes only.

    Raises:
        redis.exceptions.RedisError: the broker does not answer.
    """
    queue, message = held
    task_id, name = identity(message)
    try:
        written(message)
        content: dict[str, Any] = {"message": message}
    except Refused as refused:
        text = dumps(message)
        reason = f"{reason}; of its message only the beginning is kept: {refused.reason}"
        content = {"unreadable": text[:KEPT_BYTES], "bytes": len(text)}
        content |= {"task": name, "task_id": task_id}
    letter = {
        "queue": queue,
        "reason": reason[:MOST_REASON_CHARACTERS],
        "deliveries": deliveries,
        "buried_at": time.time(),
        **content,
    }
    broker.register_script(BURY)(
        keys=[HELD, LEASES, DEAD], args=[tag, task_id or tag, dumps(letter)]
    )

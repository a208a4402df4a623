"""The queues as a whole: which there are, what waits in them, and the removal of what waits."""

import json
from collections.abc import Iterable, Iterator
from typing import Final, cast

from redis import Redis

from tasks.broker.envelope import record_of
from tasks.broker.redis.priorities import PRIORITY_SUFFIXES, list_lengths
from tasks.broker.redis.scripts import HELD
from tasks.broker.task_message import identity
from tasks.message_headers import PUBLISHED_AT

#: kombu's record of a declared queue, and of a worker that listens to remote control.
_BINDINGS: Final = "_kombu.binding."
#: How many messages one command removes.
_CHUNK: Final = 500


def declared(broker: Redis) -> set[str]:
    """Return the queues that a worker or a client has declared; not those of control and events."""
    found = set()
    for key in broker.scan_iter(match=f"{_BINDINGS}*", count=1000):
        name = str(key).removeprefix(_BINDINGS)
        if not name.endswith(".pidbox") and not name.startswith(("celeryev", "reply.")):
            found.add(name)
    return found


def listeners(broker: Redis) -> int:
    """Count the workers that subscribe to remote control; one that was killed still counts."""
    return int(broker.scard(f"{_BINDINGS}celery.pidbox"))


def lengths(broker: Redis, queues: Iterable[str]) -> dict[str, int]:
    """Count the messages that wait in each queue, over all priorities.

    Raises:
        redis.exceptions.RedisError: the broker does not answer.
    """
    names = list(queues)
    pipe = broker.pipeline(transaction=False)
    for name in names:
        for suffix in PRIORITY_SUFFIXES:
            pipe.llen(name + suffix)
    counts = iter(list_lengths(pipe.execute(raise_on_error=False)))
    return {name: sum(next(counts) for _ in PRIORITY_SUFFIXES) for name in names}


def held(broker: Redis) -> Iterator[tuple[str, str]]:
    """Yield the messages that workers hold, each with its queue, in celray's or kombu's format."""
    for key in (HELD, "unacked"):
        for tag, stored in cast("dict[str, str]", broker.hgetall(key)).items():
            try:
                yield record_of(tag if key == HELD else "", stored)
            except ValueError:  # any client may have written it
                continue


def taken(broker: Redis) -> dict[str, int]:
    """Count, by queue, the messages that workers have taken and not yet acknowledged."""
    counts: dict[str, int] = {}
    for _, queue in held(broker):
        counts[queue] = counts.get(queue, 0) + 1
    return counts


def first(broker: Redis, queue: str, most: int) -> list[str]:
    """Return the messages that are delivered next, at most ``most`` of them."""
    found: list[str] = []
    for suffix in PRIORITY_SUFFIXES:
        if most <= len(found):
            break
        # Without a transaction and by pipeline: a key of another type holds no message.
        pipe = broker.pipeline(transaction=False)
        pipe.lrange(queue + suffix, len(found) - most, -1)
        (piece,) = pipe.execute(raise_on_error=False)
        found += reversed(piece) if isinstance(piece, list) else []
    return found


def oldest(broker: Redis, queue: str) -> float | None:
    """Return when the oldest of the messages that are delivered next was published.

    Each priority has a list of its own, whose next message was also the first to come. None if none
    of them says when it was published: only celray's clients and the service write that down.
    """
    pipe = broker.pipeline(transaction=False)
    for suffix in PRIORITY_SUFFIXES:
        pipe.lindex(queue + suffix, -1)
    found = [published_at(raw) for raw in pipe.execute(raise_on_error=False)]
    return min((moment for moment in found if moment is not None), default=None)


def published_at(raw: object) -> float | None:
    """Return when a message was published, in seconds since the epoch, if it says so."""
    try:
        return float(json.loads(cast("str", raw))["headers"][PUBLISHED_AT])
    except (ValueError, TypeError, KeyError, RecursionError):  # it may be any bytes
        return None


def identified(raw: str) -> tuple[str | None, str]:
    """Return the id and the name of a message's task; None and "" if they cannot be read."""
    try:
        return identity(json.loads(raw))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None, ""


def remove(broker: Redis, queue: str, most: int) -> Iterator[list[str]]:
    """Remove waiting messages of one queue, the next first; yield them in pieces.

    Each message is either removed here or taken by a worker, never both. Nothing here needs room
    in Redis, so it also works in a full one.

    Args:
        broker: a client of the broker's database.
        queue: the queue.
        most: how many at most, so that a publisher who goes on does not keep this going.

    Raises:
        redis.exceptions.RedisError: the broker does not answer.
    """
    left = most
    for suffix in PRIORITY_SUFFIXES:
        key = queue + suffix
        while left > 0 and broker.type(key) == "list":
            piece = cast("list[str] | None", broker.rpop(key, min(left, _CHUNK)))
            if not piece:
                break
            left -= len(piece)
            yield piece

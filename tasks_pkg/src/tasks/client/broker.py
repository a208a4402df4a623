"""The messages that wait in the broker: list queues, find a message, withdraw it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from redis import Redis

from tasks.broker.envelope import Refused, payload_of
from tasks.broker.redis import queues
from tasks.broker.redis.connection import connect
from tasks.broker.redis.priorities import PRIORITY_SUFFIXES, list_lengths
from tasks.broker.task_message import identity
from tasks.code_version import Deployed, read
from tasks.routes import ROUTES

#: The most messages of a list that a mere look searches, beginning with those delivered next.
SEARCHED: Final = 20_000
_CHUNK: Final = 500
#: The most messages that may be taken between reading two pieces of a list without one being
#: missed.
_OVERLAP: Final = 50


@dataclass(frozen=True)
class Waiting:
    """Where a message is: ``position`` 1 is delivered next; None if a worker already has it."""

    queue: str
    position: int | None
    name: str
    key: str = ""
    raw: str = ""


class Broker:
    """The Redis broker as a client sees it.

    Args:
        url: the URL of the broker's database.
        timeout: time limit for a connection or an answer, in seconds.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self._client: Redis = connect(url, timeout)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def ping(self) -> None:
        """Ping the broker; every user who may log in gets an answer."""
        self._client.ping()

    def queues(self) -> list[str]:
        """Return every queue that has a route or was declared."""
        return sorted({*ROUTES.values(), "celery", *queues.declared(self._client)})

    def lengths(self, names: list[str]) -> dict[str, int]:
        """Count the waiting messages of each queue."""
        return queues.lengths(self._client, names)

    def delivered(self) -> dict[str, int]:
        """Count, by queue, the messages that workers have taken and not yet acknowledged."""
        return queues.taken(self._client)

    def listeners(self) -> int:
        """Count the workers that subscribe to remote control; one that was killed still counts."""
        return queues.listeners(self._client)

    def deployed(self) -> Deployed | None:
        """Return the deployed code version, as recorded by Beat."""
        return read(self._client)

    def find(self, task_id: str, *, everywhere: bool = False) -> Waiting | None:
        """Find a task's message in a queue or in a worker's hands.

        Args:
            task_id: the task's id.
            everywhere: search also beyond the first :data:`SEARCHED` waiting messages.
        """
        for queue in self.queues():
            ahead = 0
            for suffix in PRIORITY_SUFFIXES:
                key = queue + suffix
                for place, raw in self._messages(key, everywhere=everywhere):
                    if (name := _name_of(raw, task_id)) is not None:
                        return Waiting(queue, ahead + place, name, key, raw)
                ahead += self._piece(key, 0, 0)[0]
        for raw, queue in queues.held(self._client):
            if (name := _name_of(raw, task_id)) is not None:
                return Waiting(queue, None, name)
        return None

    def take_back(self, waiting: Waiting) -> bool:
        """Remove a waiting message on which nothing else depends; return False if it stays.

        If a chord, a chain, an errback or the Ray job of an earlier delivery depends on it, the
        message stays for a worker, which notifies them. It also stays if a worker was faster.
        """
        if not waiting.raw or not _is_alone(waiting.raw):
            return False
        return bool(self._client.lrem(waiting.key, 1, waiting.raw))

    def _messages(self, key: str, *, everywhere: bool) -> Iterator[tuple[int, str]]:
        """Yield a list's messages with their positions; 1 is delivered next.

        The messages that are delivered next come first, then the list from its other end.
        Deliveries shorten the list at its end and move no index counted from its beginning.
        Publishing moves messages away from the beginning, into pieces that are still to be read. If
        indices were counted from the end, those messages would be missed.
        """
        length, found = self._piece(key, -_CHUNK, -1)
        yield from enumerate(reversed(found), 1)
        if length <= _CHUNK:
            return
        start = 0 if everywhere else max(0, length - SEARCHED)
        while len(found) == _CHUNK:
            length, found = self._piece(key, start, start + _CHUNK - 1)
            for index, raw in enumerate(found, start):
                yield max(1, length - index), raw  # it may have grown since it was measured
            start += _CHUNK - _OVERLAP

    def _piece(self, key: str, first: int, last: int) -> tuple[int, list[str]]:
        """Return a list's length and a piece of it, read at nearly the same moment.

        This uses no transaction: a full Redis refuses every transaction.
        """
        pipe = self._client.pipeline(transaction=False)
        pipe.llen(key)
        pipe.lrange(key, first, last)
        length, found = pipe.execute(raise_on_error=False)
        return list_lengths([length])[0], found if isinstance(found, list) else []


def _is_alone(raw: str) -> bool:
    """Return whether a message is a task's first delivery and nothing depends on the task."""
    message = json.loads(raw)
    headers = message.get("headers") or {}
    if headers.get("redelivered") or headers.get("retries") or headers.get("group"):
        return False
    try:
        payload = payload_of({**message, "headers": headers})
    except (Refused, KeyError, TypeError, AttributeError):
        return False
    embed = payload if isinstance(payload, dict) else payload[-1] if payload else None
    waits = ("callbacks", "errbacks", "chain", "chord")
    return not isinstance(embed, dict) or not any(embed.get(name) for name in waits)


def _name_of(raw: str, task_id: str) -> str | None:
    """Return the name of the task in a message, or None if its id is another.

    The second protocol has the id in the plain-text headers. The first has it in the body, and
    Celery's clients repeat it as the correlation id.
    """
    if task_id not in raw and '"task"' in raw:
        return None
    try:
        message = json.loads(raw)
        found, name = identity(message)
    except (ValueError, TypeError, AttributeError, RecursionError):  # it may be any bytes
        return None
    return name if found == task_id else None

"""What waits in the broker: which queues there are, where a message stands, taking it back."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from redis import Redis

from tasks.broker.scripts import HELD
from tasks.deployed import Deployed, read
from tasks.inspection import PRIORITY_SUFFIXES, connect
from tasks.routes import ROUTES

#: Queues longer than this are not searched to their end.
_SEARCHED = 20_000
_CHUNK = 500
_BINDINGS = "_kombu.binding."


@dataclass(frozen=True)
class Waiting:
    """Where a message is: ``position`` 1 is taken next; None when a worker already has it."""

    queue: str
    position: int | None
    name: str
    redelivered: bool
    key: str = ""
    raw: str = ""


class Broker:
    """One Redis broker, as a client sees it.

    Args:
        url: of the broker's database.
        timeout: for a connection or an answer, in seconds.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self._client: Redis = connect(url, timeout)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def queues(self) -> list[str]:
        """Give every queue that is routed to, or that anybody has declared."""
        found = {*ROUTES.values(), "celery"}
        for key in self._client.scan_iter(match=f"{_BINDINGS}*", count=1000):
            name = str(key).removeprefix(_BINDINGS)
            if not name.endswith(".pidbox") and not name.startswith(("celeryev", "reply.")):
                found.add(name)
        return sorted(found)

    def lengths(self, queues: list[str]) -> dict[str, int]:
        """Count what waits in each queue."""
        pipe = self._client.pipeline(transaction=False)
        for name in queues:
            for suffix in PRIORITY_SUFFIXES:
                pipe.llen(name + suffix)
        counts = iter(cast("list[int]", pipe.execute()))
        return {name: sum(next(counts) for _ in PRIORITY_SUFFIXES) for name in queues}

    def delivered(self) -> dict[str, int]:
        """Count what workers have taken and not yet acknowledged, by queue."""
        counts: dict[str, int] = {}
        for _, queue in self._unacked():
            counts[queue] = counts.get(queue, 0) + 1
        return counts

    def listeners(self) -> int:
        """Count the workers that listen for questions; one that was killed still counts."""
        return self._client.scard(f"{_BINDINGS}celery.pidbox")

    def deployed(self) -> Deployed | None:
        """Give the code version that is deployed, as Beat has written it down."""
        return read(self._client)

    def find(self, task_id: str) -> Waiting | None:
        """Find a task's message in a queue or in a worker's hands."""
        for queue in self.queues():
            ahead = 0
            for suffix in PRIORITY_SUFFIXES:
                key = queue + suffix
                for index, raw in enumerate(self._messages(key)):
                    if task_id in raw and (about := _about(raw, task_id)) is not None:
                        name, redelivered = about
                        return Waiting(queue, ahead + index + 1, name, redelivered, key, raw)
                ahead += self._client.llen(key)
        for message, queue in self._unacked():
            if _id(message) == task_id:
                return Waiting(queue, None, _name(message), redelivered=False)
        return None

    def take_back(self, waiting: Waiting) -> bool:
        """Remove a waiting message; False when a worker was quicker."""
        return bool(self._client.lrem(waiting.key, 1, waiting.raw))

    def _messages(self, key: str) -> Iterator[str]:
        """Give a list's messages, the one that is taken next first."""
        for start in range(0, _SEARCHED, _CHUNK):
            found = cast("list[str]", self._client.lrange(key, -start - _CHUNK, -start - 1))
            yield from reversed(found)
            if len(found) < _CHUNK:
                return

    def _unacked(self) -> Iterator[tuple[dict[str, Any], str]]:
        """Give what workers hold: in our own form, and in kombu's, as other workers do."""
        for key in (HELD, "unacked"):
            for raw in cast("list[str]", self._client.hvals(key)):
                message, _, queue = json.loads(raw)
                yield message, queue


def _id(message: dict[str, Any]) -> str | None:
    return cast("str | None", (message.get("headers") or {}).get("id"))


def _name(message: dict[str, Any]) -> str:
    return str((message.get("headers") or {}).get("task", ""))


def _about(raw: str, task_id: str) -> tuple[str, bool] | None:
    message = json.loads(raw)
    if _id(message) != task_id:
        return None
    return _name(message), bool((message.get("headers") or {}).get("redelivered"))

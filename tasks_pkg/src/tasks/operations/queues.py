"""What waits in each queue, who consumes it, and the removal of what waits: ``make queues``."""

import time
from collections import Counter
from typing import Any, Final

from celery import Celery
from pydantic import BaseModel

from tasks.broker.redis import queues as broker_queues
from tasks.broker.redis import revocations
from tasks.broker.redis.connection import connect
from tasks.operations.table import aligned, duration
from tasks.settings import Settings
from tasks.worker.info import ask_workers

#: How many of the tasks that would be lost are named.
_NAMED: Final = 5


class UnknownQueueError(Exception):
    """No worker consumes this queue and nobody has declared it; the text names those that exist."""


class QueueState(BaseModel):
    """One queue.

    ``waiting`` and ``taken`` (by workers) count messages, ``consumers`` are nodes. The age
    ``oldest_seconds`` is that of the oldest waiting message that says when it was published.
    """

    waiting: int
    taken: int
    consumers: list[str]
    oldest_seconds: float | None


def names_of(declared: set[str], settings: Settings) -> list[str]:
    """Return every queue: the catalogue's, and those that somebody has declared."""
    return sorted({*settings.queues, *declared})


def look(app: Celery, settings: Settings) -> dict[str, QueueState]:
    """Return every queue's state, by name.

    Raises:
        redis.exceptions.RedisError: the broker does not answer.
    """
    timeout = settings.health_timeout_seconds
    with connect(settings.broker_url.get_secret_value(), timeout) as broker:
        names = names_of(broker_queues.declared(broker), settings)
        lengths, taken = broker_queues.lengths(broker, names), broker_queues.taken(broker)
        published = {name: broker_queues.oldest(broker, name) for name in names if lengths[name]}
    workers, now = ask_workers(app, timeout), time.time()
    ages = {name: now - moment for name, moment in published.items() if moment is not None}
    return {
        name: QueueState(
            waiting=lengths[name],
            taken=taken.get(name, 0),
            consumers=[node for node, info in workers.items() if name in info["queues"]],
            oldest_seconds=round(max(0.0, ages[name]), 1) if name in ages else None,
        )
        for name in names
    }


def table(found: dict[str, QueueState]) -> list[str]:
    """Return the queues as lines for an operator."""
    rows = [
        (name, q.waiting, q.taken, duration(q.oldest_seconds), q.consumers or "NOBODY")
        for name, q in found.items()
    ]
    return aligned(("QUEUE", "WAITING", "TAKEN", "OLDEST", "CONSUMERS"), rows)


def purge(app: Celery, settings: Settings, queue: str, *, confirmed: bool) -> list[str]:
    """Remove what waits in one queue; without ``confirmed`` only say what would be lost.

    A removed task is REVOKED, so that whoever waits for its result gets an answer. What workers
    have taken stays, and so do the messages that are published meanwhile.

    Returns:
        What was done, or would be, in lines.

    Raises:
        UnknownQueueError: there is no such queue.
        redis.exceptions.RedisError: the broker or the result store does not answer.
    """
    url, timeout = settings.broker_url.get_secret_value(), settings.health_timeout_seconds
    with connect(url, timeout) as broker:
        names = names_of(broker_queues.declared(broker), settings)
        if queue not in names:
            message = f"there is no queue {queue!r}; there are: {', '.join(names)}"
            raise UnknownQueueError(message)
        waiting = broker_queues.lengths(broker, [queue])[queue]
        taken = broker_queues.taken(broker).get(queue, 0)
        stay = f"; {taken} that workers have taken stay" if taken else ""
        if not waiting:
            return [f"queue {queue}: nothing waits{stay}"]
        if not confirmed:
            next_ones = [
                broker_queues.identified(raw)
                for raw in broker_queues.first(broker, queue, min(_NAMED, waiting))
            ]
            return [
                f"queue {queue}: {waiting} waiting messages would be lost{stay}",
                *(
                    f"  {name or 'no task'}  {task_id or ''}".rstrip()
                    for task_id, name in next_ones
                ),
                *(["  …"] if waiting > len(next_ones) else []),
            ]
        lost: Counter[str] = Counter()
        for piece in broker_queues.remove(broker, queue, waiting):
            tasks = [broker_queues.identified(raw) for raw in piece]
            lost.update(name or "no task" for _, name in tasks)
            revocations.record(app, [task_id for task_id, _ in tasks if task_id])
    return [
        f"queue {queue}: {lost.total()} waiting messages removed{stay}",
        *(f"  {name}: {number}" for name, number in lost.most_common()),
    ]


def document(found: dict[str, QueueState]) -> dict[str, Any]:
    """Return the queues for programs."""
    return {name: state.model_dump(mode="json") for name, state in found.items()}

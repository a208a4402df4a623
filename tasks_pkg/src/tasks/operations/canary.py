"""Questions of a rolling update: what runs on each worker, and does this worker answer?"""

import socket
import time
from typing import TypedDict

from celery import Celery
from celery.exceptions import TimeoutError as ResultTimeoutError

from tasks.settings import Settings

PING = "tasks.simple_tasks.ping"

#: Time limit for one answer, in seconds; on a busy queue a ping waits for its turn.
_ANSWER_SECONDS = 5.0


class Running(TypedDict):
    """A task that a worker has begun; ``seconds`` since then, by the worker's clock."""

    worker: str
    task: str
    id: str
    seconds: float


def running(app: Celery, timeout: float) -> list[Running]:
    """Return the running tasks of every worker, longest first.

    Args:
        app: the app.
        timeout: how long to wait for the workers' answers, in seconds.
    """
    now = time.time()
    answers = app.control.inspect(timeout=timeout).active() or {}
    found: list[Running] = [
        {
            "worker": node,
            "task": request["name"],
            "id": request["id"],
            "seconds": round(max(0.0, now - (request.get("time_start") or now)), 1),
        }
        for node, requests in answers.items()
        for request in requests
    ]
    return sorted(found, key=lambda one: -one["seconds"])


def canary(app: Celery, settings: Settings, node: str, seconds: float) -> dict[str, float]:
    """Send pings to every queue of this process's worker until the worker has answered one of each.

    Other workers of a queue may answer some pings, which does no harm. A ping that no worker takes
    expires.

    Args:
        app: the app.
        settings: provides the queues.
        node: the node whose answer counts, such as ``ml@host``.
        seconds: how long to try per queue.

    Returns:
        Seconds until the answer, by queue.

    Raises:
        TimeoutError: names the queue, and the workers that answered instead.
    """
    took: dict[str, float] = {}
    for queue in settings.own_queues:
        began = time.monotonic()
        others: set[str] = set()
        while queue not in took:
            left = seconds - (time.monotonic() - began)
            if left <= 0:
                who = f"answers came from {', '.join(sorted(others))}" if others else "nobody did"
                message = (
                    f"{node} answered no ping of queue {queue!r} within {seconds:.0f} s ({who})"
                )
                raise TimeoutError(message)
            pending = app.send_task(PING, queue=queue, expires=_ANSWER_SECONDS)
            try:
                worker = pending.get(timeout=min(left, _ANSWER_SECONDS))["worker"]
            except ResultTimeoutError:
                continue
            finally:
                pending.forget()
            if worker == node:
                took[queue] = round(time.monotonic() - began, 3)
            else:
                others.add(worker)
    return took


def own_node(settings: Settings) -> str:
    """Return the node name of this container's worker, as Celery writes it."""
    return f"{settings.node_name or settings.worker_name}@{socket.gethostname()}"

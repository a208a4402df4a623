"""The light tasks of the default worker."""

import platform
import socket
import time
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from celery import shared_task

from tasks.contracts import InvalidArgumentsError, validated
from tasks.headers import PUBLISHED_AT
from tasks.settings import get_settings


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("celery", "kombu", "ray")},
        "code": get_settings().code_version,
    }


@shared_task(name="tasks.simple_tasks.ping", bind=True, throws=(InvalidArgumentsError,))
@validated
def ping(self: Any) -> dict[str, object]:
    """Answer, and say who answered.

    Returns:
        ``status`` ("pong"), ``worker`` (node name), ``host``, ``queue``, ``versions`` and
        ``queue_seconds``: from publishing to this start, by the two machines' clocks; None when
        a client published that does not stamp its messages, or when the clocks disagree.
    """
    started = time.time()
    request = self.request
    published = request.get(PUBLISHED_AT)
    waited = started - published if isinstance(published, int | float) else None
    return {
        "status": "pong",
        "worker": request.hostname,
        "host": socket.gethostname(),
        "queue": (request.delivery_info or {}).get("routing_key"),
        "queue_seconds": None if waited is None or waited < 0 else round(waited, 6),
        "versions": _versions(),
    }

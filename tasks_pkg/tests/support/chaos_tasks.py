"""The tasks of the chaos suite: each writes its start and its effect into a file, the ledger.

They run in celray's app as ``-A chaos_tasks:ours``, in stock Celery as ``-A chaos_tasks:stock``,
and in a deployment as a module of a task package (``chaos.package``).
"""

import os
import signal
import time
from pathlib import Path
from typing import Any

from celery import Celery, shared_task

#: The ledger in a deployment, whose containers get no variables from the tests.
DEPLOYED_LEDGER = "/datasets/chaos/ledger"


def _write(what: str, key: str, when: float | None = None) -> None:
    line = f"{what} {key} {os.getpid()} {when or time.time():.6f}\n".encode()
    ledger = os.environ.get("CHAOS_LEDGER", DEPLOYED_LEDGER)
    descriptor = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, line)  # one write: lines of many processes do not mix
    finally:
        os.close(descriptor)


@shared_task(name="chaos.work")  # type: ignore[untyped-decorator]  # celery has no types
def work(key: str, seconds: float) -> str:
    """Start, take ``seconds``, and have one effect."""
    _write("start", key)
    time.sleep(seconds)
    _write("effect", key)
    return key


@shared_task(name="chaos.join")  # type: ignore[untyped-decorator]
def join(keys: list[str], key: str) -> str:
    """The body of a chord."""
    _write("start", key)
    _write("effect", key)
    return f"{key} {len(keys)}"


@shared_task(name="chaos.tick", bind=True)  # type: ignore[untyped-decorator]
def tick(self: Any) -> None:  # noqa: ANN401 - a Celery task
    """Record the time at which Beat sent this task, by its schedule."""
    _write("tick", str(self.request.id), self.request.get("celray_published_at"))


@shared_task(name="chaos.poison")  # type: ignore[untyped-decorator]
def poison(key: str, whom: str) -> None:
    """Kill the process that runs it, or its whole worker."""
    _write("start", key)
    os.killpg(0, signal.SIGKILL) if whom == "worker" else os.kill(os.getpid(), signal.SIGKILL)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a Celery app
    if name == "ours":
        from tasks.app import app  # noqa: PLC0415 - only where celray's own app is wanted

        return app
    if name == "stock":
        urls = Path(os.environ["CHAOS_URLS"]).read_text().split()
        return Celery("stock", broker=urls[0], backend=urls[1])
    raise AttributeError(name)

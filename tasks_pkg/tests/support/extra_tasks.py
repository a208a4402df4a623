"""The app with further tasks that only tests use: ``celery -A extra_tasks``."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from celery import chain
from celray_testing import TRACES
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from tasks.app import app
from tasks.settings import get_settings

celery = app


def _trace(text: str) -> None:
    port = urlsplit(get_settings().broker_url.get_secret_value()).port or 0
    with Redis(port=port, db=5) as client:
        client.rpush(TRACES, text)


@app.task(name="extra.nap")  # type: ignore[untyped-decorator]
def nap(number: int, seconds: float) -> int:
    _trace(f"start {number}")
    time.sleep(seconds)
    _trace(f"end {number}")
    return number


@app.task(name="extra.until_told")  # type: ignore[untyped-decorator]
def until_told(number: int) -> int:
    """Run until the key ``go`` exists in the database of the traces."""
    _trace(f"start {number}")
    port = urlsplit(get_settings().broker_url.get_secret_value()).port or 0
    with Redis(port=port, db=5) as client:
        told = False
        while not told:
            time.sleep(0.05)
            with suppress(RedisConnectionError):  # a test may stop Redis meanwhile
                told = bool(client.exists("go"))
    _trace(f"end {number}")
    return number


@app.task(name="extra.summed")  # type: ignore[untyped-decorator]
def summed(numbers: list[int]) -> int:
    return sum(numbers)


@app.task(name="extra.length")  # type: ignore[untyped-decorator]
def length(text: str) -> int:
    return len(text)


@app.task(name="extra.large")  # type: ignore[untyped-decorator]
def large(size: int) -> str:
    return size * "x"


@app.task(name="extra.sends_large")  # type: ignore[untyped-decorator]
def sends_large(size: int) -> None:
    app.send_task("extra.length", args=[size * "x"])


@app.task(name="extra.counting", bind=True)  # type: ignore[untyped-decorator]
def counting(self: Any) -> None:  # noqa: ANN401 - a Celery task
    """Report progress as in Celery's documentation, until the task is cancelled."""
    self.update_state(state="PROGRESS", meta={"current": 3, "total": 9})
    _trace("counting")
    time.sleep(60)


@app.task(name="extra.write")  # type: ignore[untyped-decorator]
def write(path: str, seconds: float, text: str = "x") -> str:
    """Have an effect outside Redis after ``seconds``: a line in a file."""
    time.sleep(seconds)
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(f"{text}\n")
    return text


@app.task(name="extra.again", bind=True)  # type: ignore[untyped-decorator]
def again(self: Any, path: str) -> str:  # noqa: ANN401 - a Celery task
    """Retry at once, and have an effect in the second run."""
    if not self.request.retries:
        raise self.retry(countdown=0)
    return str(write.run(path, 0, "again"))


@app.task(name="extra.replaced", bind=True)  # type: ignore[untyped-decorator]
def replaced(self: Any, path: str, way: str) -> str:  # noqa: ANN401 - a Celery task
    """Have an effect, and replace the task by itself until there are four effects."""
    write.run(path, 0, way)
    if len(Path(path).read_text().split()) < 4:
        again = self.si(path, way)
        raise self.replace(chain(write.si(path, 0, way), again) if way == "chain" else again)
    return way


@app.task(name="extra.poison", default_retry_delay=1)  # type: ignore[untyped-decorator]
def poison(whom: str = "process") -> None:
    """Kill the process that runs the task, or its whole worker."""
    _trace("start poison")
    if whom == "group":
        os.killpg(os.getpgid(0), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="extra.told")  # type: ignore[untyped-decorator]
def told(request: Any, *_: Any, how: str = "") -> None:  # noqa: ANN401 - Celery's
    """Act as an errback of three arguments, which Celery calls in the process of the failure."""
    _trace(f"told {request.id}")
    while how == "endless":
        time.sleep(1)

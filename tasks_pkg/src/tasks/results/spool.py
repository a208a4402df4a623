"""Outcomes that Redis has not taken yet, on the worker's disk (ADR 0024).

A task that has had its effect and whose process ends before its result is stored would be run
again. So a result that is not stored at once is also written to a file, in the folder that the
host's workers share; whoever finds it there tells Redis. The message, which its lease gives back,
then finds a success and is not run.

A task whose result is stored at once pays next to nothing: a thread looks at what is being stored.
"""

import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from celery import Celery, bootsteps
from celery.app.task import Context
from celery.result import result_from_tuple
from celery.utils.log import get_logger
from kombu.utils.json import dumps, loads

from tasks.contracts import Untyped
from tasks.message_headers import PUBLISHED_AT
from tasks.settings import get_settings

logger = get_logger(__name__)

#: A result is stored within a millisecond; one that has waited so many seconds is written down.
_SOON: Final = 0.2
_LOOK: Final = 0.1
#: How long after a file that could not be written it is tried again.
_WRITE_AGAIN: Final = 5.0
#: How often the folder is looked into, and how long after an outcome that could not be told.
_TELL: Final = 1.0
_TELL_AGAIN: Final = 10.0
#: What the result's record, the chord, and a copy that comes later need of the request.
_FIELDS: Final = (
    *("id", "task", "args", "kwargs", "hostname", "retries", "delivery_info"),
    *("root_id", "parent_id", "group", "group_index", "chord", "stamps", "stamped_headers"),
    *("properties", "replaced_task_nesting", PUBLISHED_AT),
)


@dataclass(slots=True)
class _Waiting:
    """A success that one thread is storing."""

    task_id: str
    result: Untyped
    request: Untyped
    write_at: float = field(default_factory=lambda: time.monotonic() + _SOON)
    file: Path | None = None


class _Watch:
    """What this process's threads are storing, and the thread that writes down what waits."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.waiting: dict[int, _Waiting] = {}
        self._folder: Path | None = None

    def start(self, folder: Path) -> None:
        """Start to watch; a second call does nothing."""
        if self._folder is not None:
            return
        with self.lock:
            if self._folder is None:
                self._folder = folder
                threading.Thread(target=self._run, name="outcomes", daemon=True).start()

    def _run(self) -> None:
        folder = cast("Path", self._folder)
        while True:
            time.sleep(_LOOK)
            with self.lock:
                for waiting in list(self.waiting.values()):
                    if waiting.file is None and time.monotonic() >= waiting.write_at:
                        waiting.file = _write(folder, waiting)
                        waiting.write_at = time.monotonic() + _WRITE_AGAIN


_watch = _Watch()


def _begin_anew() -> None:
    """A child process has its parent's memory, and none of its threads."""
    global _watch  # noqa: PLW0603 - one for the process
    _watch = _Watch()


os.register_at_fork(after_in_child=_begin_anew)


@contextmanager
def kept(task_id: str, result: Untyped, request: Untyped) -> Iterator[None]:
    """Keep a success on disk for as long as its storing takes, once that takes long."""
    folder = get_settings().outcomes_dir
    if folder is None or request is None or request.ignore_result:
        yield
        return
    _watch.start(folder)
    me = threading.get_ident()
    _watch.waiting[me] = waiting = _Waiting(task_id, result, request)
    try:
        yield
    finally:
        with _watch.lock:
            _watch.waiting.pop(me, None)
        if waiting.file is not None:
            waiting.file.unlink(missing_ok=True)


def _write(folder: Path, waiting: _Waiting) -> Path | None:
    request = waiting.request
    try:
        record = {
            "task_id": waiting.task_id,
            "result": waiting.result,
            "request": {name: getattr(request, name, None) for name in _FIELDS},
            # Of a task whose callbacks are sent; without it they would be sent once more.
            "children": [child.as_tuple() for child in request.children or ()],
        }
        # A task's id is its sender's choice, and no name for a file.
        name = hashlib.sha256(waiting.task_id.encode()).hexdigest()
        file = folder / f"{name}.json"
        partial = folder / f"{name}.{os.getpid()}.partial"
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
            out.write(dumps(record))
            out.flush()
            os.fsync(out.fileno())
        partial.rename(file)
    except Exception as error:  # noqa: BLE001 - the result is still being stored
        logger.warning("%s: its outcome cannot be kept in %s: %s", waiting.task_id, folder, error)
        return None
    return file


def tell(app: Celery, folder: Path, max_age_seconds: float) -> int:
    """Tell the result store every outcome in ``folder``; give their number.

    One that is told twice, by two workers, is as if told once. While Redis is away this waits.

    Raises:
        OSError: the folder cannot be read, or the connection is lost.
        redis.exceptions.RedisError: the connection is lost.
    """
    told = 0
    for file in sorted(folder.glob("*.json")):
        try:
            told += _tell(app, file, max_age_seconds)
        except FileNotFoundError:
            continue  # its own process, or another worker, has told it
        except OSError:
            raise
        except Exception as error:
            # To Celery a KeyError is one too, and here it is a file without what it must have.
            if isinstance(error, app.backend.connection_errors) and not isinstance(error, KeyError):
                raise
            # One that cannot be told must not keep the others from it.
            logger.exception("%s cannot be told, it is left aside", file)
            file.rename(file.with_suffix(".unreadable"))
    return told


def _tell(app: Celery, file: Path, max_age_seconds: float) -> int:
    old = time.time() - file.stat().st_mtime > max_age_seconds
    record = loads(file.read_text(encoding="utf-8"))
    request: dict[str, Any] = record["request"]
    if old:  # its result would have expired
        logger.warning("%s: its outcome was never told, and is too old now", record["task_id"])
    else:
        children = [result_from_tuple(child, app) for child in record["children"]]
        context = Context({**request, "children": children})
        app.backend.store_success(record["task_id"], record["result"], context)
        logger.warning("%s[%s]: told late", request.get("task"), record["task_id"])
    file.unlink(missing_ok=True)
    return 0 if old else 1


class OutcomesStep(bootsteps.StartStopStep):  # type: ignore[misc]  # celery has no types
    """Tells what the host's workers could not, from the start of the consumer on.

    A worker that ended with a message has all of its lease, which begins anew with Redis, before
    somebody else is given that message.
    """

    requires = ("celery.worker.consumer.connection:Connection",)

    def __init__(self, consumer: Untyped, **kwargs: Untyped) -> None:
        super().__init__(consumer, **kwargs)
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, consumer: Untyped) -> None:
        """Start to tell, once."""
        settings = get_settings()
        if settings.outcomes_dir is not None and self._thread is None:
            arguments = (consumer.app, settings.outcomes_dir, settings.result_expires_seconds)
            self._thread = threading.Thread(
                target=self._run, args=arguments, name="tell-outcomes", daemon=True
            )
            self._thread.start()

    def stop(self, consumer: Untyped) -> None:
        """Nothing: it waits for a lost connection itself."""

    def shutdown(self, consumer: Untyped) -> None:  # noqa: ARG002 - the bootstep's signature
        """Stop telling."""
        self._ended.set()

    def _run(self, app: Celery, folder: Path, max_age_seconds: float) -> None:
        wait = 0.0
        while not self._ended.wait(wait):
            try:
                tell(app, folder, max_age_seconds)
                wait = _TELL
            except Exception as error:  # noqa: BLE001 - it is tried again, and nothing is lost
                logger.log(logging.WARNING, "outcomes cannot be told now: %r", error)
                wait = _TELL_AGAIN

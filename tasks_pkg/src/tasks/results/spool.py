"""Task results that Redis has not taken yet, spooled on the worker's disk (ADR 0024).

A task would run again if its process ended after the task's effect and before its result is stored.
So a result that is not stored at once is also written to a file in the folder that the host's
workers share. Any of these workers replays the file to Redis. When the lease gives the message
back, a success is already stored, and the task is not run.

A result that is stored at once costs next to nothing: a thread only watches what is being stored.
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

#: A result is normally stored within a millisecond; after this many seconds it is spooled.
_SOON_SECONDS: Final = 0.2
_LOOK_SECONDS: Final = 0.1
#: Pause before a file that could not be written is tried again, in seconds.
_WRITE_AGAIN_SECONDS: Final = 5.0
#: Interval between two looks into the folder, and after a failed replay, in seconds.
_REPLAY_SECONDS: Final = 1.0
_REPLAY_AGAIN_SECONDS: Final = 10.0
#: The request's fields that the result record, the chord, and a later copy need.
_FIELDS: Final = (
    *("id", "task", "args", "kwargs", "hostname", "retries", "delivery_info"),
    *("root_id", "parent_id", "group", "group_index", "chord", "stamps", "stamped_headers"),
    *("properties", "replaced_task_nesting", PUBLISHED_AT),
)


@dataclass(slots=True)
class _Waiting:
    """A success that a thread is storing."""

    task_id: str
    result: Untyped
    request: Untyped
    write_at: float = field(default_factory=lambda: time.monotonic() + _SOON_SECONDS)
    file: Path | None = None


class _Watch:
    """The results that this process's threads are storing, and the thread that spools late ones."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.waiting: dict[int, _Waiting] = {}
        self._folder: Path | None = None

    def start(self, folder: Path) -> None:
        """Start the thread; a second call does nothing."""
        if self._folder is not None:
            return
        with self.lock:
            if self._folder is None:
                self._folder = folder
                threading.Thread(target=self._run, name="spool", daemon=True).start()

    def _run(self) -> None:
        folder = cast("Path", self._folder)
        while True:
            time.sleep(_LOOK_SECONDS)
            with self.lock:
                for waiting in list(self.waiting.values()):
                    if waiting.file is None and time.monotonic() >= waiting.write_at:
                        waiting.file = _write(folder, waiting)
                        waiting.write_at = time.monotonic() + _WRITE_AGAIN_SECONDS


_watch = _Watch()


def _begin_anew() -> None:
    """Reset the watch: a child process has its parent's memory and none of its threads."""
    global _watch  # noqa: PLW0603 - one for the process
    _watch = _Watch()


os.register_at_fork(after_in_child=_begin_anew)


@contextmanager
def spooled(task_id: str, result: Untyped, request: Untyped) -> Iterator[None]:
    """Spool a success on disk while it is being stored, once that takes long."""
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
            # Set when a task's callbacks are sent; without it they would be sent again.
            "children": [child.as_tuple() for child in request.children or ()],
        }
        # The sender chooses a task's id, so it is not safe as a file name.
        name = hashlib.sha256(waiting.task_id.encode()).hexdigest()
        file = folder / f"{name}.json"
        partial = folder / f"{name}.{os.getpid()}.partial"
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
            out.write(dumps(record))
            out.flush()
            os.fsync(out.fileno())
        partial.rename(file)
    except Exception as error:  # noqa: BLE001 - the result is still being stored
        logger.warning("%s: its result cannot be spooled in %s: %s", waiting.task_id, folder, error)
        return None
    return file


def replay(app: Celery, folder: Path, max_age_seconds: float) -> int:
    """Replay every result in ``folder`` to the result store; return how many were stored.

    A result that two workers replay is stored once. While Redis is unavailable this waits.

    Raises:
        OSError: the folder cannot be read, or the connection is lost.
        redis.exceptions.RedisError: the connection is lost.
    """
    stored = 0
    for file in sorted(folder.glob("*.json")):
        try:
            stored += _replay(app, file, max_age_seconds)
        except FileNotFoundError:
            continue  # its own process, or another worker, has stored it
        except OSError:
            raise
        except Exception as error:
            # Celery counts a KeyError as a connection error; here it means that the file lacks a
            # field.
            if isinstance(error, app.backend.connection_errors) and not isinstance(error, KeyError):
                raise
            # A file that cannot be replayed must not hold up the others.
            logger.exception("%s: this spooled result cannot be stored and is skipped", file)
            file.rename(file.with_suffix(".unreadable"))
    return stored


def _replay(app: Celery, file: Path, max_age_seconds: float) -> int:
    old = time.time() - file.stat().st_mtime > max_age_seconds
    record = loads(file.read_text(encoding="utf-8"))
    request: dict[str, Any] = record["request"]
    if old:  # its result would have expired
        logger.warning("%s: its spooled result has expired unstored", record["task_id"])
    else:
        children = [result_from_tuple(child, app) for child in record["children"]]
        context = Context({**request, "children": children})
        app.backend.store_success(record["task_id"], record["result"], context)
        logger.warning("%s[%s]: result stored late", request.get("task"), record["task_id"])
    file.unlink(missing_ok=True)
    return 0 if old else 1


class SpoolStep(bootsteps.StartStopStep):  # type: ignore[misc]  # celery has no types
    """Replays the spool of the host's workers, from the start of the consumer on.

    If a worker ended while it held a message, its lease begins anew with Redis. So the replay has a
    whole lease before another worker gets that message.
    """

    requires = ("celery.worker.consumer.connection:Connection",)

    def __init__(self, consumer: Untyped, **kwargs: Untyped) -> None:
        super().__init__(consumer, **kwargs)
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, consumer: Untyped) -> None:
        """Start the replay thread, once."""
        settings = get_settings()
        if settings.outcomes_dir is not None and self._thread is None:
            arguments = (consumer.app, settings.outcomes_dir, settings.result_expires_seconds)
            self._thread = threading.Thread(
                target=self._run, args=arguments, name="replay-outcomes", daemon=True
            )
            self._thread.start()

    def stop(self, consumer: Untyped) -> None:
        """Do nothing: the thread itself waits for a lost connection."""

    def shutdown(self, consumer: Untyped) -> None:  # noqa: ARG002 - the bootstep's signature
        """Stop telling."""
        self._ended.set()

    def _run(self, app: Celery, folder: Path, max_age_seconds: float) -> None:
        wait = 0.0
        while not self._ended.wait(wait):
            try:
                replay(app, folder, max_age_seconds)
                wait = _REPLAY_SECONDS
            except Exception as error:  # noqa: BLE001 - it is tried again, and nothing is lost
                logger.log(logging.WARNING, "spooled results cannot be stored now: %r", error)
                wait = _REPLAY_AGAIN_SECONDS

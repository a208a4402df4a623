"""Remove old results, and the folders of runs that ended long ago.

This never touches a queue (it reads only keys of results) or a model (it reads only run folders),
and it never follows a symbolic link.
"""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import cast

import requests
from celery.utils.log import get_logger
from redis import Redis

from tasks.broker.redis.scripts import FORGET
from tasks.credentials import ConfigurationError
from tasks.operations.probes import ray_get
from tasks.ray_jobs.files import LOCK
from tasks.ray_jobs.protocol import run_of
from tasks.settings import Settings

logger = get_logger(__name__)

RESULT_PATTERN = "celery-task-meta-*"
#: Run folders are named after their Ray submission; nothing else is touched.
RUN_PREFIX = "celray-"
#: Ray's job states in which a job may still write.
_ACTIVE = frozenset({"PENDING", "RUNNING"})
#: The last file that a job writes. If Ray does not answer, a folder without one may belong to a
#: live job.
_END_MARKS = ("result.json", "error.json")

_BATCH = 200
_DAY_SECONDS = 86_400


@dataclass
class Removed:
    """What was removed, or would be in a dry run; ``space_freed`` is in bytes."""

    results_deleted: int = 0
    results_given_ttl: int = 0
    runs_deleted: int = 0
    runs_kept_active: int = 0
    files_deleted: int = 0
    space_freed: int = 0
    problems: list[str] = field(default_factory=list)


def _batches(keys: Iterator[str]) -> Iterator[list[str]]:
    while batch := list(islice(keys, _BATCH)):
        yield batch


def _finished_before(value: str, limit: float) -> bool:
    """Return whether a result shows that its task ended before ``limit`` (epoch seconds)."""
    try:
        done = json.loads(value).get("date_done")
        when = datetime.fromisoformat(done) if done else None
    except (ValueError, TypeError, AttributeError):
        return False
    if when is None:
        return False
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() < limit


def clean_results(
    client: Redis, seconds: float, expires: int, removed: Removed, *, dry_run: bool
) -> None:
    """Delete results older than ``seconds``; set the TTL ``expires`` on younger ones without.

    Raises:
        redis.exceptions.RedisError: the result store does not answer.
    """
    limit = time.time() - seconds
    # A task may have run again since this judged its result.
    delete = client.register_script(FORGET)
    for keys in _batches(client.scan_iter(match=RESULT_PATTERN, count=1_000, _type="string")):
        pipe = client.pipeline(transaction=False)
        pipe.mget(keys)
        for key in keys:
            pipe.ttl(key)
        values, *lives = pipe.execute()
        for key, value, life in zip(keys, cast("list[str | None]", values), lives, strict=True):
            if value is None:
                continue
            if _finished_before(value, limit):
                if dry_run or delete(keys=[key], args=[value]):
                    removed.results_deleted += 1
            elif life == -1:
                removed.results_given_ttl += 1
                if not dry_run:
                    client.expire(key, expires)


def _active_runs(settings: Settings) -> set[str] | None:
    """Return the submission ids that Ray still runs; None if Ray does not answer."""
    try:
        jobs = ray_get(settings, "/api/jobs/", settings.health_timeout_seconds)
        return {job["submission_id"] for job in jobs if job["status"] in _ACTIVE}
    except (requests.RequestException, ConfigurationError, KeyError, TypeError, ValueError):
        return None


def _measure(folder: Path) -> tuple[int, int, float]:
    """Return a folder's file count, bytes and latest change; follow no link."""
    files, size = 0, 0
    youngest = folder.lstat().st_mtime
    for parent, folders, names in os.walk(folder, followlinks=False):
        for name in folders + names:
            status = os.lstat(Path(parent, name))
            youngest = max(youngest, status.st_mtime)
            if name in names:
                files += 1
                size += status.st_size
    return files, size, youngest


def _may_go(folder: Path, active: set[str] | None) -> bool:
    """Return whether the job of this folder has certainly ended.

    Files that a task shares between its attempts lie in the folder of the first.
    """
    if active is not None:
        return not any(folder.name in {name, run_of(name)} for name in active)
    return any((folder / mark).is_file() for mark in _END_MARKS)


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Yield whether a job holds the lock of this folder; if none does, hold it meanwhile.

    A search's state folder has a name of its own that Ray does not know.
    """
    file = folder / LOCK
    if not file.is_file():
        yield False
        return
    with file.open("r+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield True
            return
        yield False


def clean_runs(settings: Settings, seconds: float, removed: Removed, *, dry_run: bool) -> None:
    """Delete run folders that have not changed for ``seconds`` and whose job has ended.

    A folder that cannot be read or deleted is named in ``removed.problems`` and left.
    """
    root = settings.runs_dir
    if not root.is_dir():  # nothing has run yet
        return
    if root.is_symlink():
        removed.problems.append(f"{root} is a symbolic link: nothing in it was touched")
        return
    limit = time.time() - seconds
    active = _active_runs(settings)
    for folder in sorted(root.iterdir()):
        if not folder.name.startswith(RUN_PREFIX) or folder.is_symlink() or not folder.is_dir():
            continue
        try:
            files, size, youngest = _measure(folder)
            if youngest >= limit:
                continue
            with _held(folder) as held:
                if held or not _may_go(folder, active):
                    removed.runs_kept_active += 1
                    continue
                if not dry_run:
                    shutil.rmtree(folder)
        except OSError as error:
            removed.problems.append(f"{folder}: {error.strerror}")
            continue
        removed.runs_deleted += 1
        removed.files_deleted += files
        removed.space_freed += size
        logger.info("cleanup: %s %s", "would delete" if dry_run else "deleted", folder)


def clean(
    client: Redis, settings: Settings, max_age_days: float | None, *, dry_run: bool
) -> Removed:
    """Remove both kinds; without ``max_age_days`` each by its own age from the settings.

    Raises:
        redis.exceptions.RedisError: the result store does not answer.
    """
    removed = Removed()
    expires = settings.result_expires_seconds
    results_age = expires if max_age_days is None else max_age_days * _DAY_SECONDS
    runs_age = (settings.runs_max_age_days if max_age_days is None else max_age_days) * _DAY_SECONDS
    if not settings.without_broker:
        clean_results(client, results_age, expires, removed, dry_run=dry_run)
    clean_runs(settings, runs_age, removed, dry_run=dry_run)
    return removed

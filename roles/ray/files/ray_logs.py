"""Remove old or excess logs of Ray's jobs, which Ray itself never removes.

    ray_logs.py DIR DAYS MEGABYTES [once]

Looks below DIR/session_*/logs every ten minutes, beside the head in its container. Only what jobs
and their workers have left goes, never the log of a process of Ray's own, nor a file that is open.
"""

from __future__ import annotations

import os
import sys
import time
from fnmatch import fnmatchcase
from pathlib import Path

EVERY_SECONDS = 600
#: The log files of a job, by name.
OF_JOBS = (
    "job-driver-*",
    "worker-*",
    "io-worker-*",
    "python-core-driver-*",
    "python-core-worker-*",
    "runtime_env_setup-*",
    "*.[0-9]",  # what Ray has rotated away
)


def in_use() -> set[tuple[int, int]]:
    """Return device and number of every file that a process here has open."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            about = entry.stat()
        except OSError:  # it has gone, or is somebody else's
            continue
        found.add((about.st_dev, about.st_ino))
    return found


def left(folder: Path) -> list[tuple[float, int, Path]]:
    """Return what jobs have left: time of the last write, size and place, the oldest first."""
    used = in_use()
    found = []
    for path in folder.glob("session_2*/logs/**/*"):
        if not any(fnmatchcase(path.name, pattern) for pattern in OF_JOBS):
            continue
        try:
            about = path.lstat()
        except OSError:
            continue
        if path.is_file() and not path.is_symlink() and (about.st_dev, about.st_ino) not in used:
            found.append((about.st_mtime, about.st_size, path))
    return sorted(found)


def clean(folder: Path, days: float, megabytes: float) -> int:
    """Remove logs that are too old, then the oldest above a total size; return their number."""
    files = left(folder)
    total = sum(size for _, size, _ in files)
    oldest = time.time() - days * 86400
    gone = 0
    for written, size, path in files:
        if written > oldest and total <= megabytes * 2**20:
            break
        try:
            path.unlink()
        except OSError:
            continue
        total -= size
        gone += 1
    return gone


def main(arguments: list[str]) -> None:
    folder, days, megabytes = Path(arguments[0]), float(arguments[1]), float(arguments[2])
    os.nice(10)
    while True:
        gone = clean(folder, days, megabytes)
        if gone:
            print(f"celray: removed {gone} logs of Ray jobs that were old or too many", flush=True)
        if arguments[3:] == ["once"]:
            return
        time.sleep(EVERY_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Claims on delivered files, so that each is processed by one run only.

A claim is a rename into the run's own folder; the file system lets only one run do it. The run
renews the folder's modification time while it lives. A folder that is not renewed is stale, and the
next run takes over all of it, again by one rename.
"""

import ctypes
import errno
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..files import write_json

#: Names of files that are still being written, as used by common tools.
UNFINISHED = (".tmp", ".part", ".partial", ".filepart", ".crdownload", ".download", "~", ".swp")

CLAIMS, DONE, FAILED, LEDGER = ".claims", "done", "failed", ".ledger"

#: Constants of Linux for which Python has no names.
_RENAME_NOREPLACE, _AT_FDCWD = 1, -100
_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)

#: The longest file name in Linux, in bytes.
NAME_LIMIT_BYTES = 255

#: The interval at which a live run renews its claim.
RENEW_SECONDS = 20.0


class Inbox:
    """One folder to which files are delivered.

    Args:
        folder: the folder; ``done``, ``failed`` and the internal folders are created in it, so that
            a rename never leaves its file system.
        run: a name for this run that no other current run has.
        settle_seconds: a file is complete after it has been unchanged for this time.
        stale_seconds: a claim is stale after it has not been renewed for this time.
    """

    def __init__(self, folder: Path, run: str, settle_seconds: float, stale_seconds: float) -> None:
        self.folder, self.run = folder, run
        self.settle_seconds, self.stale_seconds = settle_seconds, stale_seconds
        self.claim = folder / CLAIMS / run
        self.done, self.failed = folder / DONE, folder / FAILED
        self.ledger = folder / LEDGER

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Create the folders and renew this run's claim; at the end give back unprocessed files."""
        for path in (self.claim, self.done, self.failed, self.ledger):
            path.mkdir(parents=True, exist_ok=True)
        ended = threading.Event()

        def renew() -> None:
            while not ended.wait(RENEW_SECONDS):
                with suppress(OSError):
                    os.utime(self.claim)

        thread = threading.Thread(target=renew, name="claim", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self._give_back()

    def _give_back(self) -> None:
        """Move claimed, unprocessed files back to where they were delivered."""
        _move_files(self.claim, self.folder)
        _remove_empty(self.claim)

    # -- claiming ------------------------------------------------------------------------------

    def take(self, most: int) -> tuple[list[Path], list[str]]:
        """Claim complete files, and the files of runs that died.

        Returns:
            The claimed files, by name; and the names of files that are still being written.
        """
        self._recover()
        before = {path: _state(path) for path in self._delivered()}
        if before and self.settle_seconds:
            time.sleep(min(1.0, self.settle_seconds))
        waiting: list[str] = []
        for path, state in sorted(before.items()):
            if len(list(self.claim.iterdir())) >= most:
                break
            if not self._settled(path, state):
                waiting.append(path.name)
                continue
            with suppress(FileNotFoundError):  # another run was faster
                path.rename(self.claim / path.name)
        return sorted(path for path in self.claim.iterdir() if path.is_file()), waiting

    def _delivered(self) -> Iterator[Path]:
        for entry in os.scandir(self.folder):
            unfinished = entry.name.startswith(".") or entry.name.lower().endswith(UNFINISHED)
            # A link could lead anywhere.
            if entry.is_file(follow_symlinks=False) and not unfinished:
                yield Path(entry.path)

    def _settled(self, path: Path, before: tuple[int, int] | None) -> bool:
        now = _state(path)
        if now is None or now != before:
            return False
        # A time in the future comes from a wrong clock; such a file counts as settled.
        age = time.time() - now[1] / 1e9
        return age < 0 or age >= self.settle_seconds

    def _recover(self) -> None:
        """Take over the claims of runs that died."""
        for claim in (self.folder / CLAIMS).iterdir():
            if claim == self.claim or not self._stale(claim):
                continue
            mine = self.claim / f".from-{claim.name}"
            try:
                claim.rename(mine)  # if two runs try, only one succeeds
            except OSError:
                continue
            _move_files(mine, self.claim)
            _remove_empty(mine)

    def _stale(self, claim: Path) -> bool:
        try:
            return time.time() - claim.stat().st_mtime > self.stale_seconds
        except FileNotFoundError:
            return False

    # -- the ledger --------------------------------------------------------------------------

    def begin(self, digest: str, path: Path) -> dict[str, Any] | None:
        """Record that this run processes this content.

        Returns:
            None if this run may process it now; otherwise the existing entry.
        """
        entry = self.ledger / f"{digest}.json"
        mine = {"state": "processing", "run": self.run, "file": path.name, "at": time.time()}
        temporary = self.ledger / f".{digest}.{self.run}"
        write_json(temporary, mine)
        try:
            os.link(temporary, entry)  # unlike a rename, it fails if the entry exists
        except FileExistsError:
            known = self.known(digest)
            if known is not None and not self._abandoned(known):
                return known
            temporary.replace(entry)
        finally:
            temporary.unlink(missing_ok=True)
        return None

    def known(self, digest: str) -> dict[str, Any] | None:
        """Return the ledger's entry for a content."""
        try:
            entry: dict[str, Any] = json.loads((self.ledger / f"{digest}.json").read_text())
        except (OSError, ValueError):
            return None
        return entry

    def _abandoned(self, entry: dict[str, Any]) -> bool:
        """Return whether an entry is of a failure, a dead run, or a missing output."""
        if entry["state"] == "processing":
            claim = self.folder / CLAIMS / str(entry["run"])
            return entry["run"] == self.run or not claim.is_dir() or self._stale(claim)
        return bool(entry["state"] == "failed") or not Path(str(entry["output"])).is_file()

    def conclude(self, digest: str, entry: dict[str, Any]) -> None:
        """Record the outcome."""
        write_json(self.ledger / f"{digest}.json", {**entry, "run": self.run, "at": time.time()})

    def release(self, digest: str) -> None:
        """Take back :meth:`begin`."""
        (self.ledger / f"{digest}.json").unlink(missing_ok=True)


def _state(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns


def move(path: Path, folder: Path) -> Path:
    """Move a file into a folder, under its own name or, if that is taken, a similar one."""
    stem, suffixes = path.name.split(".", 1) if "." in path.name else (path.name, "")
    number = 0
    while True:
        tail = f".{suffixes}" if suffixes else ""
        target = folder / (fitting(stem, f"-{number}{tail}") if number else path.name)
        try:
            _rename_to_new(path, target)
        except FileExistsError:
            number += 1
            continue
        return target


def fitting(stem: str, tail: str, limit: int = NAME_LIMIT_BYTES) -> str:
    """Return the name ``<stem><tail>``, with the stem shortened to the limit in bytes."""
    short = os.fsencode(stem)[: max(0, limit - len(os.fsencode(tail)))]
    return (stem if short == os.fsencode(stem) else short.decode(errors="ignore")) + tail


def _rename_to_new(path: Path, target: Path) -> None:
    """Rename a file if the new name does not exist.

    A link and an unlink would do the same, but Linux refuses to link another user's file
    (``fs.protected_hardlinks``), and files are delivered by other users. NFS supports only links.

    Raises:
        FileExistsError: the new name exists.
    """
    if _renameat2 is not None:
        names = os.fsencode(path), os.fsencode(target)
        if not _renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE):
            return
        number = ctypes.get_errno()
        if number not in {errno.EINVAL, errno.ENOSYS}:
            raise OSError(number, os.strerror(number), str(path), None, str(target))
    os.link(path, target)
    path.unlink()


def _move_files(source: Path, folder: Path) -> None:
    """Move all files that can be moved: one that cannot must not hold up the others."""
    for path in sorted(path for path in source.rglob("*") if not path.is_dir()):
        with suppress(OSError):
            move(path, folder)


def _remove_empty(folder: Path) -> None:
    """Remove a folder of folders; one that still holds a file stays for the next run to find."""
    for path, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            Path(path).rmdir()

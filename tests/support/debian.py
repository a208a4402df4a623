"""Fetch programs that tests need from Debian with apt, which verifies them; install nothing."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

#: The suite that has Compose v2 (2.26.1) and everything else that is fetched here.
SUITE = "trixie"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "celray/tests" / SUITE
#: The variable with a Debian mirror, for machines whose apt has none.
MIRROR_VARIABLE = "CELRAY_DEBIAN_MIRROR"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def run(*argv: str, cwd: Path | None = None) -> str:
    """Return a command's output; fail the test with the end of its errors if it fails."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=cwd)
    if done.returncode:
        pytest.fail(f"{' '.join(argv)}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


def mirror() -> str:
    """Return the Debian mirror that this machine's apt uses."""
    if named := os.environ.get(MIRROR_VARIABLE):
        return named
    if shutil.which("apt-get"):
        form = ("--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages", "Origin: Debian")
        for line in run("apt-get", "indextargets", *form).splitlines():
            address, _, release = line.partition(" ")
            # -security and -updates are on other mirrors, or hold only some packages.
            if release.isalpha():
                return address
    pytest.fail(f"this machine's apt knows no Debian mirror: set {MIRROR_VARIABLE}=http://...")


@contextmanager
def alone() -> Iterator[None]:
    """Hold a lock against the tests' other processes, which may fetch the same package."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def unpacked(package: str) -> Path:
    """Return a directory with the files of a Debian package."""
    target = CACHE / package
    with alone():
        if not target.is_dir():
            fetch(package, target)
    return target


def fetch(package: str, target: Path) -> None:
    """Fetch a Debian package and unpack its files to a directory."""
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        work = Path(folder)
        for name in ("lists/partial", "cache/archives/partial", "files"):
            (work / name).mkdir(parents=True)
        signed = f"[signed-by={KEYRING}] " if Path(KEYRING).exists() else ""
        (work / "sources.list").write_text(f"deb {signed}{mirror()} {SUITE} main\n")
        settings = {
            "Dir::Etc::sourcelist": work / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::State::lists": work / "lists",
            "Dir::Cache": work / "cache",
            "Acquire::Languages": "none",
            # apt's own user may not read this private temporary directory.
            "APT::Sandbox::User": "root",
        }
        options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
        run("apt-get", "-qq", *options, "update")
        run("apt-get", "-qq", *options, "download", package, cwd=work)
        (archive,) = work.glob("*.deb")
        run("dpkg-deb", "--extract", str(archive), str(work / "files"))
        (work / "files").rename(target)

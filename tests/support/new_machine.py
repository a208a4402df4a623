"""A machine with only what the README asks for: a container, reached by `docker exec`.

It also gets the certificates and pip settings of this machine, which any new machine in the same
network would have.
"""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parts import REPO, load

#: A path with blanks and parentheses, as people have them.
CLONE = "my projects (2)/celray"
#: The network's settings for pip, copied unchanged.
PIP_SETTINGS = Path("/etc/pip.conf")


@dataclass(frozen=True)
class Said:
    """The result of a command."""

    code: int
    output: str
    errors: str


@dataclass(frozen=True)
class Machine:
    """One new machine.

    Parameters:
        container: the container's name.
        user: root, or the user with sudo.
    """

    container: str
    user: str

    @property
    def home(self) -> str:
        """Return the user's home directory."""
        return "/root" if self.user == "root" else f"/home/{self.user}"

    @property
    def clone(self) -> str:
        """Return the path of the clone."""
        return f"{self.home}/{CLONE}"

    def run(self, command: str, *, user: str = "", seconds: int = 600) -> Said:
        """Run a command line as a login shell in the clone would."""
        line = f"cd {shlex.quote(self.clone)} 2>/dev/null; {command}"
        done = subprocess.run(
            [
                *("docker", "exec", "--user", user or self.user, self.container),
                *("timeout", str(seconds), "bash", "--login", "-c", line),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def root(self, command: str) -> str:
        """Run a command as root; it must succeed."""
        said = self.run(command, user="root")
        assert said.code == 0, said.errors
        return said.output

    def put(self, source: Path, target: str) -> None:
        """Copy a file or a folder to the machine, owned by this user."""
        subprocess.run(["docker", "cp", str(source), f"{self.container}:{target}"], check=True)
        self.root(f"chown -R {self.user}: {shlex.quote(target)}")

    def put_program(self, source: str, target: str) -> None:
        """Copy a program to the machine, executable for everybody."""
        subprocess.run(["docker", "cp", "-L", source, f"{self.container}:{target}"], check=True)
        self.root(f"chmod 755 {target}")


@contextmanager
def new_machine(distribution: str, user: str) -> Iterator[Machine]:
    """Yield a machine with a clean clone of this repository in the user's home."""
    hosts: Any = load("molecule/hosts/testhosts.py")
    scenario = f"new-{distribution}-{user}"
    container = hosts.up_new(f"{distribution}-new", scenario)
    machine = Machine(container, user if user == "root" else hosts.USER)
    try:
        if PIP_SETTINGS.exists():
            machine.put(PIP_SETTINGS, "/etc/pip.conf")
        with tempfile.TemporaryDirectory() as folder:
            clone = Path(folder) / "clone"
            clean_clone(clone)
            machine.root(f"mkdir -p {shlex.quote(str(Path(machine.clone).parent))}")
            machine.put(clone, machine.clone)
        yield machine
    finally:
        hosts.down(scenario)


def clean_clone(clone: Path) -> None:
    """Clone this repository, and copy the uncommitted changes over it."""
    command = ["git", "clone", "--quiet", "--no-local", "--depth=1", f"file://{REPO}", str(clone)]
    subprocess.run(command, check=True)
    git = ["git", "-C", str(REPO)]
    listed = [*git, "ls-files", "-z", "--modified", "--others", "--exclude-standard"]
    names = subprocess.run(listed, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        source, target = REPO / name, clone / name
        if not source.exists():
            target.unlink(missing_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
        target.chmod(source.stat().st_mode)

"""The test host: a container that behaves like a small server, with an engine of its own.

Deployments reach it over SSH, as molecule's do (molecule/hosts/testhosts.py, which makes it);
faults come through the engine of this machine, as if somebody stood beside the server.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celray_testing import wait_for

ROOT = Path(__file__).parents[3]
TESTHOSTS = ROOT / "molecule" / "hosts" / "testhosts.py"
SCENARIO = "chaos"
NAME = "server"
CONTAINER = f"celray-{SCENARIO}-{NAME}"
USER = "operator"
HOME = f"/home/{USER}/celray"
#: make's own variables must not leak from `make chaos` into the makes that it calls.
_MAKES = ("ARGS", "CHAOS", "ENV", "HOST", "SSH_USER", "MAKEFLAGS", "MFLAGS", "MAKELEVEL")


class HostError(Exception):
    """Something that the harness relies on does not work; the text says what was said."""


@dataclass(frozen=True)
class Said:
    """What a command said, and its exit status."""

    code: int
    text: str


def _run(*command: str, stdin: str | None = None, **environment: str) -> Said:
    kept = {name: value for name, value in os.environ.items() if name not in _MAKES}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**kept, **environment},
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return Said(done.returncode, done.stdout)


def _must(*command: str, stdin: str | None = None) -> str:
    said = _run(*command, stdin=stdin)
    if said.code:
        message = f"`{' '.join(command)[:200]}`: {said.text.strip()[-1000:]}"
        raise HostError(message)
    return said.text


class Host:
    """One test host; ``state`` keeps how to reach it, over runs of the suite."""

    def __init__(self, state: Path) -> None:
        self.state = state.resolve()

    # --- the machine itself

    def up(self) -> None:
        """Bring it up unless it is."""
        found = _run("docker", "inspect", "--format", "{{.State.Running}}", CONTAINER)
        known = self.state / "instance_config.yml"
        if found.code or not known.exists():
            self.state.mkdir(parents=True, exist_ok=True)
            options = ("--state", str(self.state), "--scenario", SCENARIO)
            _must(sys.executable, str(TESTHOSTS), "up", *options, f"{NAME}=debian13")
        elif found.text.strip() != "true":
            self.start()

    def down(self) -> None:
        """Remove it with all that it holds."""
        _must(sys.executable, str(TESTHOSTS), "down", "--scenario", SCENARIO)

    @property
    def address(self) -> str:
        """Its address on the network that this machine shares with it."""
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        return _must("docker", "inspect", "--format", form, CONTAINER).strip()

    def lose_power(self) -> None:
        """End every process on it at once."""
        _must("docker", "kill", CONTAINER)

    def start(self) -> None:
        """Switch it on, and wait for SSH and the engine."""
        _must("docker", "start", CONTAINER)
        wait_for(lambda: self._answers("ss -Hltn 'sport = :22' | grep -q ."), 60)
        wait_for(lambda: self._answers("docker info"), 60)

    def stop_engine(self) -> None:
        """End the engine as a service manager does."""
        self.sh("kill -TERM $(cat /var/run/docker.pid)")
        wait_for(lambda: not self._answers("pgrep -x dockerd"), 90)

    def start_engine(self) -> None:
        """Start it as the host's entrypoint does."""
        command = "exec dockerd --pidfile /var/run/docker.pid >>/var/log/dockerd.log 2>&1"
        _must("docker", "exec", "--detach", CONTAINER, "sh", "-c", command)
        wait_for(lambda: self._answers("docker info"), 60)

    # --- a hand on it

    def sh(self, script: str, stdin: str | None = None) -> str:
        """Run a shell script as root; gives what it said."""
        return _must("docker", "exec", "--interactive", CONTAINER, "sh", "-c", script, stdin=stdin)

    def _answers(self, script: str) -> bool:
        return _run("docker", "exec", CONTAINER, "sh", "-c", script).code == 0

    def inspect(self, *containers: str) -> list[dict[str, Any]]:
        """Ask its engine about its containers, all of them by default."""
        names = " ".join(containers) or "$(docker ps --all --quiet)"
        boxes: list[dict[str, Any]] = json.loads(self.sh(f"docker inspect {names}"))
        return boxes

    def kill(self, container: str) -> None:
        """SIGKILL a container's first process, and with it all of them.

        Not ``docker kill``, which the engine takes for a wish: the container would stay down.
        """
        self.sh(f"kill -KILL $(docker inspect --format '{{{{.State.Pid}}}}' {container})")

    # --- the operator's commands

    def make(self, target: str, *arguments: str) -> Said:
        """Run a make target against it, with the suite's inventory, over SSH."""
        return _run(
            "make",
            target,
            f"HOST={self.address}",
            f"SSH_USER={USER}",
            f"ARGS=-i {self.state}/inventory",
            *arguments,
            ANSIBLE_SSH_COMMON_ARGS=f"-F {self.state}/ssh_config",
            ANSIBLE_SSH_CONTROL_PATH_DIR=f"{self.state}/cp",
        )

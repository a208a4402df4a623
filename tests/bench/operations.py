"""What the measurements do to the deployment: always by the operator's own commands."""

import json
import os
import re
import shutil
import statistics
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
#: make's own variables must not leak from `make bench` into the makes that it measures.
_MAKE_VARIABLES = (
    "ARGS",
    "BENCH",
    "HOST",
    "SSH_USER",
    "MAKEFLAGS",
    "MFLAGS",
    "MAKELEVEL",
    "MAKEOVERRIDES",
)


class BenchError(Exception):
    """A measurement that cannot be made; the text says why and what to do."""


@dataclass(frozen=True)
class Sample:
    """Some repetitions of one thing, in seconds."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.seconds)

    def __str__(self) -> str:
        low, high = min(self.seconds), max(self.seconds)
        return f"{self.median:.2f} s ({low:.2f} to {high:.2f}, n={len(self.seconds)})"


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without what make passed on for `make bench` itself."""
    kept = {key: value for key, value in os.environ.items() if key not in _MAKE_VARIABLES}
    return {**kept, **(extra or {})}


def run(*command: str, extra: Mapping[str, str] | None = None) -> str:
    """Run a command in the repository and return what it printed.

    Raises:
        BenchError: with the end of its output, when it fails.
    """
    done = subprocess.run(
        command, cwd=REPO, env=environment(extra), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        message = f"`{' '.join(command)}` failed:\n{done.stdout[-3000:]}"
        raise BenchError(message)
    return done.stdout


def figures(what: str, said: str) -> Any:
    """Return the JSON of the last line that has any, of what a program printed.

    Raises:
        BenchError: none has.
    """
    lines = [line for line in said.splitlines() if line.startswith("{")]
    if not lines:
        message = f"{what}: it printed no figures:\n{said[-1000:]}"
        raise BenchError(message)
    return json.loads(lines[-1])


def timed(*command: str, extra: Mapping[str, str] | None = None) -> tuple[float, str]:
    """Seconds that a command took, and what it printed."""
    started = time.monotonic()
    output = run(*command, extra=extra)
    return time.monotonic() - started, output


def changes(output: str) -> int:
    """How many tasks changed something, over all hosts of a play recap."""
    found = re.findall(r"\bchanged=(\d+)", output)
    if not found:
        message = f"no play recap in:\n{output[-1000:]}"
        raise BenchError(message)
    return sum(map(int, found))


def containers() -> dict[str, dict[str, str]]:
    """Name -> id, start, image, compose project and code version of every container of ours."""
    if not shutil.which("docker"):
        return {}
    ids = run("docker", "ps", "--all", "--quiet", "--filter", "label=celray.project=celray").split()
    if not ids:
        return {}
    return {
        box["Name"].lstrip("/"): {
            "id": box["Id"],
            "started": box["State"]["StartedAt"],
            "image": box["Image"],
            "tag": box["Config"]["Image"],
            "project": box["Config"]["Labels"].get("com.docker.compose.project", ""),
            "code": box["Config"]["Labels"].get("celray.code", ""),
            "file": box["Config"]["Labels"].get("com.docker.compose.project.config_files", ""),
        }
        for box in json.loads(run("docker", "inspect", *ids))
    }


def restarted(
    before: Mapping[str, Mapping[str, str]], after: Mapping[str, Mapping[str, str]]
) -> list[str]:
    """Names of containers that are not the same running ones in both snapshots."""
    return sorted(
        name for name in before.keys() | after.keys()
        if {**before.get(name, {}), "code": ""} != {**after.get(name, {}), "code": ""}
    )  # fmt: skip


def credentials() -> dict[str, str]:
    """What ``make credentials`` prints."""
    rows = (
        line.split("=", 1) for line in run("make", "-s", "credentials").splitlines() if "=" in line
    )
    return {key: value for key, value in rows if key.isupper()}


def compose_command() -> list[str]:
    """The compose of this machine, v2 first, as the deployment chooses."""
    probe = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    return ["docker", "compose"] if probe.returncode == 0 else ["docker-compose"]

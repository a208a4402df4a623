"""One deployment on one test host, inspected and changed as an operator would."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

REPO = Path(__file__).resolve().parents[2]
USER = "operator"
#: A line of a deploy or a check about one container: symbol, name, verb, reason.
ACTION = re.compile(r"^\s*[+~^-] (\S+) +(create|recreate|start|remove)\b", re.MULTILINE)
RECAP = re.compile(
    r"^(\S+) +: ok=\d+ +changed=(\d+) +unreachable=(\d+) +failed=(\d+)", re.MULTILINE
)

#: A program for root on the host: it prints everything that a check must not change. Data
#: directories are left out, since services write to them.
LOOK = r"""
import hashlib, json, os, subprocess, sys

home = sys.argv[1]

def docker(*argv):
    return subprocess.run(["docker", *argv], capture_output=True, text=True, check=True).stdout

ids = docker("ps", "-aq", "--no-trunc").split()
boxes = json.loads(docker("inspect", *ids)) if ids else []
files = {}
for top in ("projects", "secrets"):
    for folder, _, names in os.walk(os.path.join(home, top)):
        for path in [folder, *(os.path.join(folder, name) for name in names)]:
            stat = os.lstat(path)
            content = open(path, "rb").read() if os.path.isfile(path) else b""
            files[path] = [oct(stat.st_mode), stat.st_uid, stat.st_gid, stat.st_mtime,
                           hashlib.sha256(content).hexdigest()]
print(json.dumps({
    "containers": {box["Name"].lstrip("/"): box for box in boxes},
    "files": files,
    "images": sorted(docker("images", "-aq", "--no-trunc").split()),
}))
"""


@dataclasses.dataclass(frozen=True)
class Run:
    """The exit code and the output of one command of the operator."""

    code: int
    output: str

    @property
    def actions(self) -> dict[str, str]:
        """Return the verb (what is or would be done) by container."""
        return dict(ACTION.findall(self.output))

    @property
    def changed(self) -> int:
        """Return the number of tasks that changed something, over all hosts."""
        return sum(int(changed) for _, changed, _, _ in RECAP.findall(self.output))


@dataclasses.dataclass(frozen=True)
class Look:
    """The state of a host at one moment."""

    containers: dict[str, dict[str, Any]]
    files: dict[str, list[Any]]
    images: list[str]

    def running(self) -> dict[str, tuple[str, str]]:
        """Return id and start time by container; they change if it is replaced or restarted."""
        return {
            name: (box["Id"], box["State"]["StartedAt"]) for name, box in self.containers.items()
        }


class Deployment:
    """The host of this scenario and the commands that reach it.

    Parameters:
        state: molecule's ephemeral directory, with the files for the host's access.
        name: the host, of several; the only one by default.
    """

    def __init__(self, state: Path, name: str = "") -> None:
        self.state = state
        instances = json.loads((state / "instance_config.yml").read_text())
        instance = next(one for one in instances if name in ("", one["instance"]))
        self.name: str = instance["instance"]
        self.address: str = instance["address"]
        self.home = f"/home/{USER}/celray"
        self.canaries: dict[str, str] = json.loads((state / "canaries.json").read_text())

    # --- on the host

    def ssh(self, *command: str, stdin: str | None = None) -> str:
        """Run a command on the host and return its output."""
        done = subprocess.run(
            ["ssh", "-F", str(self.state / "ssh_config"), self.name, *command],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}{done.stdout}"
        return done.stdout

    def docker(self, *arguments: str) -> str:
        """Run the engine's client on the host."""
        return self.ssh("sudo", "docker", *arguments)

    def python(self, program: str, *arguments: str) -> Any:
        """Run a Python program on the host as root; return the JSON that it prints."""
        return json.loads(self.ssh("sudo", "python3", "-", *arguments, stdin=program))

    def look(self) -> Look:
        """Return the current containers, deployed files and images."""
        return Look(**self.python(LOOK, self.home))

    @functools.cached_property
    def secrets(self) -> dict[str, str]:
        """Return every secret of this deployment by name, the given and the generated ones."""
        stored = json.loads(self.ssh("sudo", "cat", f"{self.home}/secrets/secrets.json"))
        return {**stored, **self.canaries}

    # --- on the operator's machine

    def command(
        self,
        *argv: str,
        environment: Mapping[str, str] | None = None,
        code: int | None = 0,
        logged: bool = True,
        repo: Path = REPO,
    ) -> Run:
        """Run a command in the repository; its output also goes to operator.log.

        Parameters:
            repo: the repository, or a changed copy of it.
            environment: variables in addition to this process's own.
            code: the expected exit code; None: any.
            logged: whether the output goes to operator.log.
        """
        done = subprocess.run(
            argv,
            cwd=repo,
            env={**os.environ, "ANSIBLE_CONFIG": str(repo / "ansible.cfg"), **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if logged:
            with (self.state / "operator.log").open("a") as log:
                log.write(f"$ {' '.join(argv)}\n{done.stdout}\n")
        assert code is None or done.returncode == code, done.stdout[-6000:]
        return Run(done.returncode, done.stdout)

    def play(
        self,
        playbook: str,
        *arguments: str,
        code: int | None = 0,
        repo: Path = REPO,
        logged: bool = True,
    ) -> Run:
        """Run a playbook of a repository with this scenario's inventory."""
        inventories = (self.state / "inventory", self.state / "operator")
        sources = [f"--inventory={path}" for path in inventories]
        return self.command(
            *("ansible-playbook", *sources, *arguments, playbook),
            environment={} if logged else {"ANSIBLE_LOG_PATH": os.devnull},
            code=code,
            logged=logged,
            repo=repo,
        )

    def deploy(self, *arguments: str) -> Run:
        """Run the playbook of `make deploy`."""
        return self.play("site.yml", *arguments)

    def check(self) -> Run:
        """Run the playbook of `make check`."""
        return self.play("site.yml", "--check", "--diff")

    def configure(self, name: str, **variables: Any) -> None:
        """Edit the operator's inventory: group_vars/all/NAME.yml."""
        path = self.state / "operator" / "group_vars" / "all" / f"{name}.yml"
        path.write_text(yaml.safe_dump(variables))

    def made(self, target: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
        """Return a make command and its environment; it needs no inventory, only the address."""
        ssh = f"-o UserKnownHostsFile={self.state / 'known_hosts'} -o IdentitiesOnly=yes"
        environment = {
            "ANSIBLE_SSH_COMMON_ARGS": ssh,
            "ANSIBLE_PRIVATE_KEY_FILE": str(self.state / "id_ed25519"),
            "MAKEFLAGS": "",
        }
        where = (f"HOST={self.address}", f"SSH_USER={USER}")
        return ["make", target, *where, *arguments], {**os.environ, **environment}

    def make(
        self,
        target: str,
        *arguments: str,
        logged: bool = True,
        code: int | None = 0,
    ) -> Run:
        """Run a make target against the host; it needs no inventory, only the address.

        Parameters:
            logged: false for targets that print secrets, since the logs are searched for them.
            code: the expected exit code; None: any.
        """
        argv, environment = self.made(target, *arguments)
        if not logged:
            environment["ANSIBLE_LOG_PATH"] = os.devnull
        return self.command(*argv, environment=environment, logged=logged, code=code)

    def followed(self, target: str, word: str, *arguments: str) -> str:
        """Return the output of a make target that does not end, up to the line with a word."""
        argv, environment = self.made(target, *arguments)
        # `timeout` starts it in a process group of its own, which can be ended as a whole.
        with subprocess.Popen(
            ["timeout", "--signal=INT", "120", *argv],
            cwd=REPO,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as running:
            said = ""
            for line in running.stdout or ():
                said += line
                if word in line:
                    break
            running.terminate()
        return said


def in_default_alone(reason: str) -> pytest.MarkDecorator:
    """Return the mark of a promise that does not depend on compose's generation or the engine.

    Parameters:
        reason: why one scenario is enough.
    """
    elsewhere = os.environ.get("MOLECULE_SCENARIO_NAME") != "default"
    return pytest.mark.skipif(elsewhere, reason=reason)


def eventually(test: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until something is true; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(1)


@functools.cache
def defaults() -> dict[str, Any]:
    """Return the project's default variables; templated values are strings with braces."""
    shipped: dict[str, Any] = {}
    for file in sorted((REPO / "roles/celray/defaults/main").glob("*.yml")):
        shipped |= yaml.safe_load(file.read_text())
    return shipped

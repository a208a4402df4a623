"""Both compose generations as commands; fetched or installed if this machine lacks them."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache

import debian
import pytest
from parts import REPO

#: Compose v1 is written in Python and fails on a machine whose locale is not UTF-8.
ENVIRONMENT = {**os.environ, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}


def version(command: str) -> str:
    done = subprocess.run(
        [command, "version", "--short"],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
    )
    return done.stdout.strip().removeprefix("v")


@cache
def compose_v1() -> str:
    """Return docker-compose 1.29.2; install it from the distribution if it is missing."""
    with debian.alone():
        return installed_v1()


def installed_v1() -> str:
    for _ in range(2):
        for candidate in ("docker-compose", "/usr/bin/docker-compose"):
            command = shutil.which(candidate)
            if command and version(command).startswith("1."):
                return command
        offered = debian.run("apt-cache", "policy", "docker-compose")
        if "Candidate: 1." not in offered:
            pytest.skip("this distribution has no docker-compose 1.29.2; Debian 12 has")
        install = subprocess.run([REPO / ".ci/apt", "docker-compose"], cwd=REPO, check=False)
        if install.returncode:
            break
    pytest.fail("docker-compose 1.29.2 is missing: apt-get install -y docker-compose, as root")


@cache
def compose_v2() -> str:
    """Return Compose v2 as Debian 13 packages it (2.26.1), from the distribution's archive."""
    files = debian.unpacked("docker-compose")
    return str(files / "usr/libexec/docker/cli-plugins/docker-compose")


GENERATIONS = {"v1": compose_v1, "v2": compose_v2}

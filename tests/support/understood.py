"""A project as a compose generation understands it, in a form that is equal for all generations."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from generations import ENVIRONMENT

UNITS = {"b": 1, "k": 2**10, "m": 2**20, "g": 2**30}


@cache
def understood(compose: str, project: Path) -> dict[str, dict[str, Any]]:
    """Return services as `compose config` prints them, with sizes in bytes and short mounts."""
    done = subprocess.run(
        [compose, "-p", f"celray-{project.name}", "-f", str(project / "compose.yml"), "config"],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
    )
    if done.returncode:
        pytest.fail(f"{compose} refuses {project.name}: {done.stderr}")
    services = yaml.safe_load(done.stdout)["services"]
    return {name: normal(service) for name, service in services.items()}


def normal(service: dict[str, Any]) -> dict[str, Any]:
    """Return a service in a form without the generations' differences in notation."""
    plain = dict(service)
    for key in ("mem_limit", "shm_size"):
        if key in plain:
            plain[key] = size(str(plain[key]))
    plain["volumes"] = sorted(map(mount, plain.get("volumes", [])))
    if "stop_grace_period" in plain:
        plain["stop_grace_period"] = seconds(plain["stop_grace_period"])
    check = plain.get("healthcheck", {})
    plain["healthcheck"] = {
        key: seconds(value) if key in ("interval", "timeout", "start_period") else value
        for key, value in check.items()
    }
    # v2 prints a command or entrypoint that is not set as null.
    return {key: value for key, value in plain.items() if value not in (None, {}, [])}


def size(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([bkmg]?)b?", text.lower()).groups()  # type: ignore[union-attr]
    return int(number) * UNITS[unit or "b"]


def seconds(text: str) -> float:
    """Return the seconds of a duration such as 45s or 1m0s."""
    factors = {"h": 3600, "m": 60, "s": 1}
    return sum(float(n) * factors[unit] for n, unit in re.findall(r"([\d.]+)([hms])", text))


def mount(volume: str | dict[str, Any]) -> str:
    if isinstance(volume, str):
        return volume.removesuffix(":rw")
    read_only = ":ro" if volume.get("read_only") else ""
    return f"{volume['source']}:{volume['target']}{read_only}"

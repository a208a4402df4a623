"""Check the host itself: engine, ports, directories, memory, clock, foreign containers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from . import engine
from .ports import check_ports
from .problem import Problem
from .storage import check_paths

CLOCK_TOLERANCE_SECONDS = 30


def check_names(host: Mapping[str, Any], wanted: Iterable[str]) -> list[Problem]:
    wanted = set(wanted)
    return [
        Problem(
            f"container {box['name']} exists and is not celray's ({box['state']})",
            "the host's engine",
            f"move its data, then docker rm -f {box['name']}; docs/operate.md has the migration",
        )
        for box in host["containers"]
        if box["name"] in wanted and box["project"] != "celray"
    ]


def check_size(host: Mapping[str, Any], min_memory_mb: int) -> list[Problem]:
    problems, skew = [], host["skew_seconds"]
    if host["memory_mb"] < min_memory_mb:
        problems.append(
            Problem(
                f"{host['hostname']} has {host['memory_mb']} MB of memory, {min_memory_mb} MB are "
                "needed",
                "preflight_min_memory_mb",
                "use a larger host, or lower the threshold",
            )
        )
    if abs(skew) > CLOCK_TOLERANCE_SECONDS:
        problems.append(
            Problem(
                f"the clock of {host['hostname']} is {skew:+.0f} s off this machine's",
                "the host's clock",
                "synchronise both (apt-get install chrony)",
            )
        )
    return problems


def check_host(args: Mapping[str, Any], host: Mapping[str, Any]) -> list[Problem]:
    """Return the host's problems; disk space is checked before the first deploy only."""
    running = {
        box["id"]: box["name"].split("-")[0]
        for box in host["containers"]
        if box["project"] == "celray" and box["state"] == "running"
    }
    problems = engine.check(host, args["compose"])
    problems += check_ports(host, args["ports"], running)
    problems += check_names(host, args["containers"])
    needed = {"celray_home": "home", "the engine's data": "engine"} if not running else {}
    space = {place: args["min_free_mb"][key] for place, key in needed.items()}
    return problems + check_paths(host, args["path_variables"], space)

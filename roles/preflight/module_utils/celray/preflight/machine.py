"""The host itself: its memory, its clock, containers that have our names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .problem import Problem

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


def check_size(host: Mapping[str, Any], min_memory_mb: int, skew: float) -> list[Problem]:
    problems = []
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

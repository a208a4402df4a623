"""Directories that services write, and the space for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .problem import Problem


def check_paths(
    host: Mapping[str, Any], names: Iterable[str], needed_mb: Mapping[str, int]
) -> list[Problem]:
    problems = []
    found = dict(zip(names, host["paths"], strict=True))
    for name, look in found.items():
        if not look["path"].startswith("/"):
            why, fix = "it does not begin with /", "write the whole path, as in /srv/celray"
        elif look["read_only_mount"]:
            why, fix = (
                f"{look['parent']} is on a read-only file system",
                "name a directory elsewhere",
            )
        elif not look["is_directory"]:
            why, fix = f"{look['parent']} is not a directory", "remove it or name another"
        elif not look["writable"]:
            why = f"{host['user']} may not write {look['parent']}"
            fix = f"chown {host['user']} {look['parent']}, or name a directory of {host['user']}'s"
        else:
            continue
        problems.append(Problem(f"{look['path']} cannot be created: {why}", name, fix))
    places = {**found, "the engine's data": host["docker_root"]}
    for name, need in needed_mb.items():
        look = places[name]
        if look["free_mb"] < need:
            problems.append(
                Problem(
                    f"{look['path']} has {look['free_mb']} MB free, {need} MB are needed",
                    f"{name}; threshold preflight_min_free_mb",
                    "free some space, or move it to a larger disk",
                )
            )
    return problems

"""Task packages (`celery_packages`): shape, source, queues, requirements."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tasks import catalogue_rules as rules
from tasks.schedules import twice

from celray import task_packages

from .problem import Problem, nearest

PACKAGES = "celery_packages (your inventory; docs/extend.md)"
GROUP = "celray.tasks"
KINDS: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "source": str,
    "location": str,
    "version": str,
    "queues": (str, Mapping),
    "schedule": list,
    "requirements": list,
    "ray_requirements": list,
}
#: Beside name, source and queues: what each source must have, and what it cannot have.
NEEDS = {
    "path": (["location"], ["version"]),
    "wheel": (["location"], ["version"]),
    "git": (["location", "version"], []),
    "index": (["version"], ["location"]),
}


def wrong(what: str, fix: str) -> Problem:
    """Return a problem of the task packages."""
    return Problem(what, PACKAGES, fix)


def check(
    packages: Any, base: Path, queues: set[str], ours: set[str]
) -> tuple[list[Problem], list[Any]]:
    """Return every problem of the packages, and of the schedule that they bring."""
    if not isinstance(packages, list):
        return [wrong(f"the packages are {packages!r}, not a list", "list them")], []
    findings: list[Problem] = []
    good: list[dict[str, Any]] = []
    for number, package in enumerate(packages, 1):
        shape = list(check_shape(package, number))
        findings += shape
        if not shape:
            good.append(package)
    findings += check_names(good)
    for package in good:
        found = [
            *check_queues(package, queues, ours),
            *check_source(package, base),
        ]
        findings += found or check_requirements(package, base)
    return findings, [entry for package in good for entry in package.get("schedule", [])]


def check_shape(package: Any, number: int) -> Iterator[Problem]:
    """Keys, their kinds, and which of them go with which source."""
    if not isinstance(package, Mapping):
        yield wrong(f"package number {number} is {package!r}, not a mapping", "see docs/extend.md")
        return
    label = f"package {package.get('name', f'number {number}')}"
    for key in set(package) - set(KINDS):
        yield wrong(
            f"{label} has an unknown key {key!r}{nearest(key, KINDS)}",
            f"use only {', '.join(KINDS)}",
        )
    for key in ("name", "source", "queues"):
        if not package.get(key):
            yield wrong(f"{label} lacks {key!r}", f"add {key}")
    for key, kind in KINDS.items():
        if key in package and not isinstance(package[key], kind):
            quotes = "; put it in quotes" if key == "version" else ""
            yield wrong(f"{label}: {key} is {package[key]!r}", f"see docs/extend.md{quotes}")
    if isinstance(package.get("source"), str):
        yield from check_keys_of_source(package, label)


def check_keys_of_source(package: Mapping[str, Any], label: str) -> Iterator[Problem]:
    """What a source needs is given, and nothing that it has no use for."""
    source = package["source"]
    if source not in NEEDS:
        known = ", ".join(NEEDS)
        yield wrong(f"{label}: source is {source!r}{nearest(source, NEEDS)}", f"use one of {known}")
        return
    needed, useless = NEEDS[source]
    for key in needed:
        if key not in package:
            yield wrong(f"{label}, source {source}, lacks {key!r}", f"add {key}")
    for key in useless:
        if key in package:
            yield wrong(f"{label}: source {source} has no {key}", f"remove {key}")


def check_names(packages: list[dict[str, Any]]) -> Iterator[Problem]:
    """A package is listed once, and none has the name of ours."""
    names = [rules.canonical(package["name"]) for package in packages]
    for name in twice(names):
        yield wrong(f"package {name} is listed {names.count(name)} times", "list it once")
    for name in names:
        if name == "tasks" or not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name):
            yield wrong(f"package {name}: that name cannot be used", "give it another name")
    for task, first, second in rules.declared_twice(
        (package["name"], routes_of(package)) for package in packages
    ):
        yield wrong(
            f"tasks {task!r} are declared by package {first} and by package {second}",
            "have one of them declare other tasks",
        )


def routes_of(package: Mapping[str, Any]) -> dict[str, str]:
    """Task or pattern to queue."""
    routes = rules.routes_of(package["name"], package["queues"])
    return {task: str(queue) for task, queue in routes.items()}


def tasks_of(packages: Any, *schedules: Any) -> dict[str, str]:
    """Return every task that packages declare; patterns are filled in from the schedule."""
    packages = packages if isinstance(packages, list) else []
    usable = [p for p in packages if isinstance(p, Mapping) and {"name", "queues"} <= set(p)]
    routes = {task: queue for package in usable for task, queue in routes_of(package).items()}
    named = [
        str(entry.get("task"))
        for schedule in schedules
        for entry in (schedule if isinstance(schedule, list) else [])
        if isinstance(entry, Mapping)
    ]
    filled = {t: q for t in named for name, q in routes.items() if fnmatchcase(t, name)}
    return {task: queue for task, queue in (routes | filled).items() if "*" not in task}


def check_queues(package: Mapping[str, Any], queues: set[str], ours: set[str]) -> Iterator[Problem]:
    """Every queue is consumed, no task is ours."""
    label = f"package {package['name']}"
    for task, queue in routes_of(package).items():
        if queue not in queues:
            what = f"{label}: queue {queue!r} of its tasks {task} is one that no worker consumes"
            known = ", ".join(sorted(queues))
            fix = f"use one of {known}, or add {queue} to a worker's queues in celery_workers"
            yield wrong(what + nearest(queue, queues), fix)
        if rules.is_reserved(task, ours):
            what = f"{label} declares {task!r}: names of celray and Celery are reserved"
            yield wrong(what, "name its tasks after the package")


def check_source(package: Mapping[str, Any], base: Path) -> Iterator[Problem]:
    """A source on this machine is there, and is the package that it is said to be."""
    name, source = rules.canonical(package["name"]), package["source"]
    if source not in ("path", "wheel"):
        return
    place = task_packages.location(package, base)
    if source == "wheel":
        if not place.is_file() or place.suffix != ".whl":
            yield wrong(
                f"package {name}: {place} is no wheel on this machine", "correct its location"
            )
        elif rules.canonical(place.name.split("-", maxsplit=1)[0]) != name:
            yield wrong(
                f"package {name}: {place.name} is another package's wheel", "correct its location"
            )
        return
    if not (place / "pyproject.toml").is_file():
        what = "has no pyproject.toml" if place.is_dir() else "does not exist on this machine"
        yield wrong(f"package {name}: {place} {what}", "correct its location")
        return
    project = task_packages.project_of(place)
    if rules.canonical(str(project.get("name", name))) != name:
        yield wrong(
            f"package {name}: {place}/pyproject.toml says that its name is {project['name']!r}",
            "use that name",
        )
    points = project.get("entry-points", {}).get(GROUP)
    if project and not points and "entry-points" not in project.get("dynamic", []):
        module = name.replace("-", "_")
        fix = f'add [project.entry-points."{GROUP}"] with {module} = "{module}.tasks"'
        yield wrong(f"package {name}: {place}/pyproject.toml names no module of tasks", fix)


def check_requirements(package: Mapping[str, Any], base: Path) -> list[Problem]:
    """Nothing asks for another version than is locked."""
    try:
        task_packages.plan([dict(package)], base, "3.11")
    except task_packages.PackageError as error:
        return [
            wrong(
                f"package {package['name']}: {error}",
                "correct it, or celray's own in tasks_pkg/requirements/*.in and make lock",
            )
        ]
    return []

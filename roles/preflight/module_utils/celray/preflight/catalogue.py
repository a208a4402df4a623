"""The catalogue of workers, and what refers to it."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks import catalogue_rules
from tasks.schedules import twice

from .problem import Problem, nearest

CATALOGUE = "celery_workers (roles/celray/defaults/main/workers.yml, or your inventory)"
WORKER_KEYS = {"name": str, "queues": list, "concurrency": int, "memory": str}
WORKER_OPTIONS = {
    "autoscale": list,
    "replicas": int,
    "tasks_per_child": int,
    "memory_per_child": str,
    "cpuset": str,
    "image": str,
    "packages": list,
}
#: Keys of which a worker has one.
EITHER = ("concurrency", "autoscale")
OVERRIDES = "celray_worker_overrides (make scale, or group_vars/all/worker_overrides.yml)"
WORDS = {str: "a text", list: "a list", int: "a whole number"}
DEBIAN = re.compile(r"[a-z0-9][a-z0-9+.-]+")
SIZE = re.compile(r"^[1-9][0-9]*[bkmg]$")
#: As the kernel writes a set of CPUs.
CPUS = re.compile(r"\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*")


def read_routes(path: Path) -> dict[str, str]:
    """The package's routes without importing it: ROUTES is a literal at the module's top level."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.AnnAssign):
            target: ast.expr = node.target
        elif isinstance(node, ast.Assign):
            target = node.targets[0]
        else:
            continue
        if isinstance(target, ast.Name) and target.id == "ROUTES" and node.value:
            return dict(ast.literal_eval(node.value))
    raise ValueError(f"{path} has no ROUTES")


def check_worker(worker: Any, position: int) -> list[Problem]:
    if not isinstance(worker, Mapping):
        return [
            Problem(
                f"worker number {position} is {worker!r}, not a mapping",
                CATALOGUE,
                "see the example there",
            )
        ]
    label = f"worker {worker.get('name', f'number {position}')}"
    known = WORKER_KEYS | WORKER_OPTIONS
    problems = [
        Problem(
            f"{label} has an unknown key {key!r}{nearest(key, known)}",
            CATALOGUE,
            f"use only {', '.join(known)}",
        )
        for key in worker
        if key not in known
    ]
    either = EITHER if "autoscale" in worker else ()
    problems += [
        Problem(f"{label} lacks {key!r}", CATALOGUE, f"add {key}")
        for key in WORKER_KEYS
        if key not in worker and key not in either
    ]
    if all(key in worker for key in EITHER):
        problems.append(
            Problem(
                f"{label} has both {' and '.join(EITHER)}",
                CATALOGUE,
                "keep concurrency for a fixed number of processes, autoscale for [least, most]",
            )
        )
    problems += [
        Problem(
            f"{label}: {key} is {worker[key]!r}, not {WORDS[kind]}",
            CATALOGUE,
            f"write {WORDS[kind]}",
        )
        for key, kind in known.items()
        if key in worker and (not isinstance(worker[key], kind) or isinstance(worker[key], bool))
    ]
    if problems:
        return problems
    rules = [
        (
            re.fullmatch(r"[a-z][a-z0-9-]*", worker["name"]),
            f"name {worker['name']!r} is no container name",
            "use lower-case letters, digits and dashes",
        ),
        (
            worker["queues"]
            and all(isinstance(q, str) and catalogue_rules.is_name(q) for q in worker["queues"]),
            f"queues is {worker['queues']!r}",
            "name at least one queue, in letters, digits, '_', '.' and '-'",
        ),
        (
            worker.get("concurrency", 1) >= 1,
            f"concurrency is {worker.get('concurrency')}",
            "give it at least 1",
        ),
        (
            worker.get("replicas", 1) >= 1,
            f"replicas is {worker.get('replicas')}",
            "give it at least 1, or remove the worker from the catalogue",
        ),
        (
            bounds(worker.get("autoscale", [1, 1])),
            f"autoscale is {worker.get('autoscale')!r}",
            "write two whole numbers, the least and the most processes, such as [3, 10]",
        ),
        (
            SIZE.match(worker["memory"]),
            f"memory is {worker['memory']!r}",
            "write a size such as 512m or 4g",
        ),
        (
            worker.get("tasks_per_child", 1) >= 1,
            f"tasks_per_child is {worker.get('tasks_per_child')}",
            "give it at least 1, or leave it out: then a process runs any number of tasks",
        ),
        (
            SIZE.match(worker.get("memory_per_child", "1g")),
            f"memory_per_child is {worker.get('memory_per_child')!r}",
            "write a size such as 512m or 2g",
        ),
        (
            CPUS.fullmatch(worker.get("cpuset", "0")),
            f"cpuset is {worker.get('cpuset')!r}",
            "write numbers of CPUs, as 0-3 or 0,2,4-7",
        ),
        (
            re.fullmatch(r"[\w./:-]+[:@][\w.:-]+", worker.get("image", "a:1"))
            and not worker.get("image", "").endswith(":latest"),
            f"image {worker.get('image')!r} has no tag of a fixed version",
            "name a tag other than latest, or a digest",
        ),
        (
            all(DEBIAN.fullmatch(str(name)) for name in worker.get("packages", [])),
            f"packages is {worker.get('packages')!r}",
            "list names of Debian packages, as [gdal-bin, libgeos-c1v5]",
        ),
    ]
    return [Problem(f"{label}: {what}", CATALOGUE, fix) for good, what, fix in rules if not good]


def bounds(autoscale: list[Any]) -> bool:
    """Whether this is [least, most], both at least 1."""
    whole = all(isinstance(n, int) and not isinstance(n, bool) for n in autoscale)
    return whole and len(autoscale) == len(("least", "most")) and 1 <= autoscale[0] <= autoscale[1]


def check_cpus(
    workers: list[dict[str, Any]], placed: Any, host: Mapping[str, Any]
) -> list[Problem]:
    """Return workers of a host that are pinned to CPUs which it does not have.

    Parameters:
        placed: names of the workers that it runs.
        host: its `hostname` and number of `cpus`.
    """
    return [
        Problem(
            f"worker {worker['name']}: cpuset is {worker['cpuset']!r}, and {host['hostname']} has "
            f"the CPUs 0-{host['cpus'] - 1}",
            CATALOGUE,
            "name CPUs that each host of this worker has",
        )
        for worker in workers
        if worker["name"] in placed
        and max(map(int, re.findall(r"\d+", worker.get("cpuset", "0")))) >= host["cpus"]
    ]


def check_overrides(overrides: Any, workers: list[dict[str, Any]]) -> list[Problem]:
    """Every override is of a worker that there is, and of a key that may be overridden."""
    if not isinstance(overrides, Mapping):
        return [Problem(f"the overrides are {overrides!r}", OVERRIDES, "write {worker: {key: …}}")]
    known = [worker["name"] for worker in workers]
    problems = []
    for name, changes in overrides.items():
        if name not in known:
            what = f"there is no worker {name!r}{nearest(name, known)}"
            problems.append(Problem(what, OVERRIDES, f"there is {', '.join(known)}"))
        elif not isinstance(changes, Mapping):
            what = f"the overrides of worker {name} are {changes!r}"
            problems.append(Problem(what, OVERRIDES, "write {concurrency: 8}"))
    return problems


def check_nodes(workers: list[dict[str, Any]]) -> list[Problem]:
    """No replica has another worker's name."""
    names = {worker["name"] for worker in workers}
    return [
        Problem(
            f"replica {number} of worker {worker['name']} has the name of worker {twin}",
            CATALOGUE,
            "rename one of the two workers",
        )
        for worker in workers
        for number in range(2, worker.get("replicas", 1) + 1)
        if (twin := f"{worker['name']}-{number}") in names
    ]


def check_catalogue(workers: Any) -> list[Problem]:
    """Shape of the catalogue: keys, types, ranges, duplicates."""
    if not isinstance(workers, list) or not workers:
        return [Problem(f"the catalogue is {workers!r}", CATALOGUE, "write a list of workers")]
    problems = [found for n, worker in enumerate(workers, 1) for found in check_worker(worker, n)]
    names = [str(worker.get("name")) for worker in workers if isinstance(worker, Mapping)]
    problems += [
        Problem(
            f"worker {name} is listed {names.count(name)} times",
            CATALOGUE,
            "give each worker its own name",
        )
        for name in twice(names)
    ]
    return problems


def check_routes(workers: list[dict[str, Any]], routes: Mapping[str, str]) -> list[Problem]:
    """Every routed queue is consumed by somebody."""
    consumed = {queue for worker in workers for queue in worker["queues"]}
    return [
        Problem(
            f"task {task} is routed to queue {queue!r}, which no worker consumes"
            f"{nearest(queue, consumed)}",
            f"ROUTES in tasks_pkg/src/tasks/routes.py against {CATALOGUE}",
            f"add {queue} to a worker's queues, or route {task} to one of "
            f"{', '.join(sorted(consumed))}",
        )
        for task, queue in catalogue_rules.unconsumed(routes, consumed).items()
    ]


def check_placement(placed: Any, workers: list[dict[str, Any]]) -> list[Problem]:
    """Every worker that a host is to run is in the catalogue."""
    known = [worker["name"] for worker in workers]
    return [
        Problem(
            f"celray_worker_names has {name!r}, which is no worker of the catalogue"
            f"{nearest(name, known)}",
            "celray_worker_names (the host's inventory)",
            f"use names of the catalogue: {', '.join(known)}",
        )
        for name in (placed if isinstance(placed, list) else [placed])
        if name not in known
    ]

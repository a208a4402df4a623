"""Check the schedule against the existing tasks and queues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks import schedules

from .packages import PACKAGES
from .problem import Problem, nearest


def check_schedule(
    schedule: Any, routes: Mapping[str, str], queues: set[str], brought: Any = ()
) -> list[Problem]:
    """Every entry means something to Beat, names a task and a queue that there are, and itself.

    Parameters:
        brought: the entries that packages bring.
    """
    source = "celery_beat_schedule (roles/celray/defaults/main/schedule.yml, or your inventory)"
    if not isinstance(schedule, list):
        return [Problem(f"the schedule is {schedule!r}, not a list", source, "list its entries")]
    problems = [
        found
        for entries, where in ((schedule, source), (brought, PACKAGES))
        for entry in entries
        for found in check_entry(entry, routes, queues, where)
    ]
    every = [*schedule, *brought]
    names = [schedules.entry_name(entry) for entry in every if isinstance(entry, Mapping)]
    return problems + [
        Problem(f"schedule {name} is listed more than once", source, "give each its own name")
        for name in schedules.twice(names)
        if name != "?"
    ]


def check_entry(
    entry: Any, routes: Mapping[str, str], queues: set[str], source: str
) -> list[Problem]:
    """Return the problems of one entry of the schedule."""
    name = schedules.entry_name(entry)
    problems = [
        Problem(f"schedule {name}: {what}", source, fix) for what, fix in schedules.problems(entry)
    ]
    if not isinstance(entry, Mapping) or not {"name", "task"} <= set(entry):
        return problems
    if isinstance(entry["task"], str) and entry["task"] not in routes:
        problems.append(
            Problem(
                f"schedule {name} names task {entry['task']}, which does not exist"
                f"{nearest(entry['task'], routes)}",
                source,
                "name a registered task",
            )
        )
    queue = entry.get("queue")
    if isinstance(queue, str) and queue not in queues:
        problems.append(
            Problem(
                f"schedule {name} names queue {queue!r}, which no worker consumes",
                source,
                f"use one of {', '.join(sorted(queues))}",
            )
        )
    return problems

"""What the catalogue of workers and the task packages may say, read by preflight and by settings.

The standard library alone: preflight imports this file too, on a control node that has no Celery.
"""

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

#: How the names of tasks begin that no package of others may take.
RESERVED = ("tasks.", "celery.")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def is_name(value: str) -> bool:
    """Return whether a queue or a worker may have this name."""
    return _NAME.fullmatch(value) is not None


def canonical(name: str) -> str:
    """Return a distribution's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def routes_of(package: str, queues: str | Mapping[str, str]) -> dict[str, str]:
    """Return task, or pattern of tasks, to queue; one queue stands for all of a package's tasks.

    Args:
        package: the name of its distribution.
        queues: one queue, or task or pattern to queue.
    """
    if isinstance(queues, str):
        return {canonical(package).replace("-", "_") + ".*": queues}
    return {str(task): queue for task, queue in queues.items()}


def queue_of(task: str, routes: Mapping[str, str]) -> str | None:
    """Return a task's queue as Celery finds it: by its name, else by the first pattern."""
    if task in routes:
        return routes[task]
    return next((queue for name, queue in routes.items() if fnmatchcase(task, name)), None)


def is_reserved(pattern: str, ours: Iterable[str]) -> bool:
    """Return whether a task or pattern of a package takes a name of celray's or of Celery's."""
    return pattern.startswith(RESERVED) or any(fnmatchcase(task, pattern) for task in ours)


def unconsumed(routes: Mapping[str, str], queues: Iterable[str]) -> dict[str, str]:
    """Return the routes to queues that no worker consumes."""
    consumed = set(queues)
    return {task: queue for task, queue in routes.items() if queue not in consumed}


def declared_twice(packages: Iterable[tuple[str, Iterable[str]]]) -> list[tuple[str, str, str]]:
    """Return each task or pattern that two packages declare, with the first and the second.

    Args:
        packages: name, and the tasks and patterns that it declares.
    """
    owners: dict[str, str] = {}
    found = []
    for name, patterns in packages:
        for pattern in patterns:
            if pattern in owners and owners[pattern] != name:
                found.append((pattern, owners[pattern], name))
            owners.setdefault(pattern, name)
    return found

"""The catalogue of workers as it holds: the inventory's, with what `make scale` has set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: A worker has one of them: setting the one takes the other away.
EXCLUSIVE = ("concurrency", "autoscale")


def celray_overridden(workers: Any, overrides: Any) -> Any:
    """Workers with their overrides; what is malformed is left for preflight to name."""
    if not isinstance(workers, list) or not isinstance(overrides, Mapping):
        return workers
    return [
        overridden(worker, overrides.get(worker.get("name")))
        if isinstance(worker, Mapping)
        else worker
        for worker in workers
    ]


def overridden(worker: Mapping[str, Any], changes: Any) -> dict[str, Any]:
    if not isinstance(changes, Mapping):
        return dict(worker)
    dropped = set(EXCLUSIVE) if set(EXCLUSIVE) & set(changes) else set()
    return {key: value for key, value in worker.items() if key not in dropped} | dict(changes)


def celray_nodes(workers: Any) -> list[str]:
    """Node names of the workers, one per replica: data, data-2, ..."""
    return [
        f"{worker['name']}-{number}" if number > 1 else str(worker["name"])
        for worker in (workers if isinstance(workers, list) else [])
        if isinstance(worker, Mapping) and "name" in worker
        for number in range(1, replicas(worker) + 1)
    ]


def replicas(worker: Mapping[str, Any]) -> int:
    """How many containers; what is no number is left for preflight to name."""
    count = worker.get("replicas", 1)
    return count if isinstance(count, int) else 1


class FilterModule:
    """Ansible's way to find them."""

    def filters(self) -> dict[str, Any]:
        return {"celray_overridden": celray_overridden, "celray_nodes": celray_nodes}

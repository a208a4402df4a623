"""Where in the cluster a model is grown: in as few processes as its CPUs allow, best in this one.

A process of its own costs ten seconds of a processor before its first row (Ray's worker, and the
import of Ray Train and XGBoost), and a copy of its rows; threads of one process share both.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .. import cluster
from ..protocol import InfrastructureError

#: How long to wait for the CPUs that other jobs hold.
SECONDS = 300.0
#: How long CPUs that were free a moment ago may take to be set aside, before it is looked again.
_GRANT_SECONDS = 5.0
#: A CPU with fewer rows than this costs more than it helps.
MIN_ROWS_PER_CPU = 10


@dataclass(frozen=True)
class Place:
    """Processes that grow one model together.

    Attributes:
        processes: how many.
        cpus_each: CPUs of each, and so its threads.
        here: whether the one process is this one.
    """

    processes: int
    cpus_each: int
    here: bool

    @property
    def cpus(self) -> int:
        """All CPUs."""
        return self.processes * self.cpus_each


def partitions(wanted: int, rows: int) -> tuple[int, list[str]]:
    """Return the number of CPUs that the rows and the whole cluster allow, and warnings.

    Raises:
        InfrastructureError: the cluster has no CPU at all.
    """
    cpus = cluster.cpus()
    warnings = []
    granted = wanted
    if granted > cpus:
        warnings.append(f"num_partitions lowered from {wanted} to {cpus}: the cluster's CPUs")
        granted = cpus
    useful = max(1, rows // MIN_ROWS_PER_CPU)
    if granted > useful:
        warnings.append(f"num_partitions lowered from {wanted} to {useful}: {rows} training rows")
        granted = useful
    return granted, warnings


def arrange(wanted: int, free: Mapping[str, int], here: str) -> Place | None:
    """Divide CPUs among as few processes as can have as many each, or say that they are not free.

    Args:
        wanted: CPUs.
        free: by node, whole CPUs that nobody holds.
        here: this process's node; where it has all that is wanted, nothing else is started.
    """
    if free.get(here, 0) >= wanted:
        return Place(1, wanted, here=True)
    for each in range(min(wanted, max(free.values(), default=0)), 0, -1):
        processes = wanted // each
        if wanted % each == 0 and sum(there // each for there in free.values()) >= processes:
            return Place(processes, each, here=False)
    return None


@contextmanager
def found(
    wanted: int, progress: Callable[[str, int, int, str], None]
) -> Iterator[tuple[Place, list[str]]]:
    """Wait for CPUs, and give where they are; after :data:`SECONDS` make do with what is free.

    Those of this process's node are set aside until the end of the ``with``. Others are for who
    starts processes there, for which Ray sets them aside.

    Args:
        wanted: CPUs; at most the whole cluster's (:func:`partitions`).
        progress: told while it waits.

    Raises:
        InfrastructureError: not one became free.
    """
    import ray  # noqa: PLC0415 - who only divides CPUs needs none

    context: Any = ray.get_runtime_context()
    here = context.get_node_id()
    deadline = time.monotonic() + SECONDS
    while True:
        free = _free()
        late, there = time.monotonic() >= deadline, sum(free.values())
        if late and not there:
            raise InfrastructureError(
                "cluster_busy", f"No CPU of the Ray cluster became free within {SECONDS:.0f} s."
            )
        place = arrange(min(wanted, there) if late else wanted, free, here)
        # Another job may have been faster; what it took is no longer free at the next look.
        if place is not None and (group := _set_aside(place, here)) is not None:
            break
        progress("waiting", there, wanted, f"waiting for CPUs: {there} of {wanted} are free")
        time.sleep(0.5)
    less = f"num_partitions lowered from {wanted} to {place.cpus}: no more CPUs became free"
    try:
        yield place, [less] if place.cpus < wanted else []
    finally:
        for each in group:
            _give_back(each)


def _free() -> dict[str, int]:
    """Return the whole CPUs that nobody holds, by node."""
    from ray._private.state import available_resources_per_node  # noqa: PLC0415

    available: Any = available_resources_per_node
    return {node: int(there.get("CPU", 0)) for node, there in available().items()}


def _set_aside(place: Place, here: str) -> list[Any] | None:
    """Return what holds the CPUs of this process; None where they are gone."""
    if not place.here:
        return []
    from ray.util.placement_group import placement_group  # noqa: PLC0415

    make: Any = placement_group
    group = make([{"CPU": place.cpus}], bundle_label_selector=[{"ray.io/node-id": here}])
    if group.wait(_GRANT_SECONDS):
        return [group]
    _give_back(group)
    return None


def _give_back(group: Any) -> None:  # noqa: ANN401 - Ray's are of no type
    from ray.util.placement_group import remove_placement_group  # noqa: PLC0415

    remove: Any = remove_placement_group
    remove(group)

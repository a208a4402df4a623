"""Choose where a model is trained: in as few processes as possible, if possible in this one.

A separate process costs ten seconds of processor time before its first row (Ray's worker, and the
import of Ray Train and XGBoost) and a copy of its rows. Threads of one process share both.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .. import cluster
from ..protocol import InfrastructureError

#: How long to wait for CPUs that other jobs hold.
MOST_SECONDS = 300.0
#: How long the reservation of free CPUs may take before they are counted again.
_GRANT_SECONDS = 5.0
#: A CPU with fewer rows than this costs more than it gains.
MIN_ROWS_PER_CPU = 10


@dataclass(frozen=True)
class Place:
    """The processes that train one model together.

    Attributes:
        processes: their number.
        cpus_each: the CPUs, and so the threads, of each process.
        here: whether the only process is this one.
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
    """Divide CPUs equally among as few processes as possible; return None if they are not free.

    Args:
        wanted: the number of CPUs.
        free: by node, the whole CPUs that are free.
        here: this process's node; if it has enough free CPUs, no other process is started.
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
    """Wait for CPUs and yield the placement; after :data:`MOST_SECONDS` take those that are free.

    The CPUs of this process's node are reserved until the end of the ``with``. Ray reserves the
    others for the processes that the caller starts there.

    Args:
        wanted: the number of CPUs; at most that of the whole cluster (:func:`partitions`).
        progress: called while it waits.

    Raises:
        InfrastructureError: no CPU became free.
    """
    import ray  # noqa: PLC0415 - not needed to divide CPUs

    context: Any = ray.get_runtime_context()
    here = context.get_node_id()
    deadline = time.monotonic() + MOST_SECONDS
    while True:
        free = _free()
        late, there = time.monotonic() >= deadline, sum(free.values())
        if late and not there:
            raise InfrastructureError(
                "cluster_busy",
                f"No CPU of the Ray cluster became free within {MOST_SECONDS:.0f} s.",
            )
        place = arrange(min(wanted, there) if late else wanted, free, here)
        # Another job may have been faster; the CPUs that it took are not free at the next count.
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
    """Return the number of free whole CPUs, by node."""
    from ray._private.state import available_resources_per_node  # noqa: PLC0415

    available: Any = available_resources_per_node
    return {node: int(there.get("CPU", 0)) for node, there in available().items()}


def _set_aside(place: Place, here: str) -> list[Any] | None:
    """Return a reservation of this process's CPUs; None if they are no longer free."""
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

"""Runs in a process of its own: trainings on a Ray of two nodes with two CPUs each.

``python two_nodes.py FOLDER``: the folder holds ``datasets/`` and ``models/``. Prints, as JSON, per
case what a training gave, the CPUs that were free while it grew, and whether it needed Ray Train.
"""

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group, remove_placement_group

from tasks.ray_jobs.job import Reporter
from tasks.ray_jobs.protocol import InfrastructureError, JobRequest
from tasks.ray_jobs.training import boosting, placement
from tasks.ray_jobs.training import job as training_job
from tasks.schemas.models import model_config_from

CPUS = 2
_ray: Any = ray
_group: Any = placement_group
_remove: Any = remove_placement_group


@contextmanager
def held(number: int) -> Iterator[None]:
    """Let another job hold CPUs of this process's node."""
    node = _ray.get_runtime_context().get_node_id()
    group = _group([{"CPU": number}], bundle_label_selector=[{"ray.io/node-id": node}])
    assert group.wait(20)
    yield
    _remove(group)


def trained(folder: Path, name: str, wanted: int) -> dict[str, Any]:
    """Train the wine sample on so many CPUs."""
    grow, free = boosting.grow, []

    def look(*given: Any, **more: Any) -> bytes:  # noqa: ANN401 - grow's own
        free.append(sum(placement._free().values()))
        return grow(*given, **more)

    boosting.grow = look
    models = folder / f"models-{name}"
    models.mkdir()
    config = model_config_from(
        {"target": "quality", "n_estimators": 5, "max_depth": 4, "num_partitions": wanted}
    )
    parameters = config.training("winequality.csv").as_json()
    request = JobRequest(name, str(folder / "runs"), str(folder), str(models), "test", parameters)
    try:
        result = training_job.main(request, Reporter(folder / "runs" / name))
    except InfrastructureError as error:
        return {"kind": error.kind, "error": str(error)}
    finally:
        boosting.grow = grow
    return {**result, "free": free, "ray_train": "ray.train" in sys.modules}


def main(folder: Path) -> None:
    """Go through the cases; the one that needs no Ray Train comes first."""
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": CPUS})
    other = nodes.add_node(num_cpus=CPUS)
    ray.init(address=nodes.address, logging_level=logging.ERROR)
    placement.MOST_SECONDS = 1.0
    found = {"here": trained(folder, "here", 2)}
    found["both"] = trained(folder, "both", 4)
    nodes.remove_node(other)
    with held(1):
        found["fewer"] = trained(folder, "fewer", 2)
    with held(2):
        found["none"] = trained(folder, "none", 1)
    deadline = time.monotonic() + 20
    while placement._free() != {ray.get_runtime_context().get_node_id(): CPUS}:
        assert time.monotonic() < deadline, "CPUs that were set aside are not given back"
        time.sleep(0.05)
    # In this order: a process whose node ends before it leaves ends with 1.
    _ray.shutdown()
    nodes.shutdown()  # type: ignore[no-untyped-call]
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

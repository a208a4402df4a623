"""Data-parallel XGBoost on Ray Train: one model, each worker holding its own rows.

The workers exchange gradient histograms (allreduce), so that the model is one grown on all rows,
whatever their number. Ray Train places the workers, connects them, and starts them again when a
node is lost.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import ray
import ray.train
from ray.train.xgboost import XGBoostTrainer

from . import cluster
from .boosting import Matrix, grow
from .protocol import InfrastructureError

# Ray's annotations do not cover what Ray Train's second version added.
_ray: Any = ray

#: What Ray Train's defaults would cost a short job: the controller looks at its workers every
#: 2 s, and starts actors for metrics and preemption notices that nobody here reads.
TRAIN_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "120",
}

#: How long to wait for the CPUs that other jobs hold.
PLACEMENT_SECONDS = 300.0
#: A worker with fewer rows than this costs more than it helps.
MIN_ROWS_PER_WORKER = 10


def connect() -> None:
    """Join the cluster that this job runs on."""
    os.environ.update(TRAIN_ENVIRONMENT)
    cluster.connect()


def partitions(wanted: int, rows: int) -> tuple[int, list[str]]:
    """Give the number of workers that the rows and the whole cluster allow, and warnings.

    Raises:
        InfrastructureError: the cluster has no CPU at all.
    """
    cpus = cluster.cpus()
    warnings = []
    granted = wanted
    if granted > cpus:
        warnings.append(f"num_partitions lowered from {wanted} to {cpus}: the cluster's CPUs")
        granted = cpus
    useful = max(1, rows // MIN_ROWS_PER_WORKER)
    if granted > useful:
        warnings.append(f"num_partitions lowered from {wanted} to {useful}: {rows} training rows")
        granted = useful
    return granted, warnings


def wait_for_cpus(
    wanted: int,
    progress: Callable[[str, int, int, str], None],
    seconds: float = PLACEMENT_SECONDS,
) -> tuple[int, list[str]]:
    """Wait until ``wanted`` CPUs are free; after ``seconds``, make do with those that are.

    Raises:
        InfrastructureError: not one became free.
    """
    deadline = time.monotonic() + seconds
    while True:
        free = int(_ray.available_resources().get("CPU", 0))
        if free >= wanted:
            return wanted, []
        if time.monotonic() >= deadline:
            break
        progress("waiting", free, wanted, f"waiting for CPUs: {free} of {wanted} are free")
        time.sleep(0.5)
    if free < 1:
        raise InfrastructureError(
            "cluster_busy", f"No CPU of the Ray cluster became free within {seconds:.0f} s."
        )
    return free, [f"num_partitions lowered from {wanted} to {free}: no more CPUs became free"]


def train(
    matrix: Matrix, parameters: dict[str, Any], rounds: int, workers: int, run_dir: Path
) -> bytes:
    """Grow one model on ``workers`` Ray Train workers.

    Args:
        matrix: all training rows; worker ``i`` of ``n`` gets rows ``i, i+n, i+2n, ...``.
        parameters: XGBoost's.
        rounds: boosting rounds.
        workers: number of workers, one CPU each.
        run_dir: where Ray Train keeps its state; the nodes share it.

    Returns:
        The model in XGBoost's UBJSON format.
    """
    shards = [
        ray.put((matrix.x[rank::workers], matrix.y[rank::workers])) for rank in range(workers)
    ]
    train: Any = ray.train
    trainer = XGBoostTrainer(
        cast("Any", _train_on_one_worker),
        train_loop_config={
            "shards": shards,
            "names": matrix.names,
            "types": matrix.types,
            "parameters": parameters,
            "rounds": rounds,
        },
        scaling_config=train.ScalingConfig(num_workers=workers, resources_per_worker={"CPU": 1}),
        run_config=train.RunConfig(
            name="train",
            storage_path=str(run_dir),
            failure_config=train.FailureConfig(max_failures=1, controller_failure_limit=1),
        ),
    )
    model = cast("Any", trainer.fit()).return_value
    if not isinstance(model, bytes):
        raise InfrastructureError("no_model", "Ray Train ended without returning a model.")
    return model


def _train_on_one_worker(config: dict[str, Any]) -> bytes | None:
    """Run in every Ray Train worker: train on the own shard, together with the others."""
    rank = ray.train.get_context().get_world_rank()
    x, y = ray.get(config["shards"][rank])
    shard = Matrix(x, y, config["names"], config["types"])
    model = grow(shard, config["parameters"], config["rounds"], tell=rank == 0)
    return model if rank == 0 else None

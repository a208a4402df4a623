"""Data-parallel XGBoost on Ray Train: one model, trained by processes that each hold some rows.

It is for CPUs that no single node has free (:mod:`training.placement`). The workers exchange
gradient histograms (allreduce), so that the model is trained on all rows, whatever the number of
workers. Ray Train places the workers, connects them, and restarts them when a node is lost.
"""

import os
from pathlib import Path
from typing import Any, cast

import ray
import ray.train
from ray.train.xgboost import XGBoostTrainer

from ..protocol import InfrastructureError
from .boosting import Matrix, grow
from .placement import Place

#: Ray Train's defaults are slow for a short job: the controller checks its workers every 2 s, and
#: starts actors for metrics and preemption notices that celray does not use.
TRAIN_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "120",
}


def train(
    matrix: Matrix, parameters: dict[str, Any], rounds: int, place: Place, run_dir: Path
) -> bytes:
    """Train one model on Ray Train workers.

    Args:
        matrix: all training rows; worker ``i`` of ``n`` gets rows ``i, i+n, i+2n, ...``.
        parameters: XGBoost's parameters.
        rounds: boosting rounds.
        place: number of workers and the CPUs of each.
        run_dir: the folder for Ray Train's state; the nodes share it.

    Returns:
        The model in XGBoost's UBJSON format.
    """
    os.environ.update(TRAIN_ENVIRONMENT)
    workers = place.processes
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
            "parameters": {**parameters, "nthread": place.cpus_each},
            "rounds": rounds,
        },
        scaling_config=train.ScalingConfig(
            num_workers=workers, resources_per_worker={"CPU": place.cpus_each}
        ),
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
    """Train on the own rows, together with the other workers; runs in every Ray Train worker."""
    rank = ray.train.get_context().get_world_rank()
    x, y = ray.get(config["shards"][rank])
    shard = Matrix(x, y, config["names"], config["types"])
    model = grow(shard, config["parameters"], config["rounds"], tell=rank == 0)
    return model if rank == 0 else None

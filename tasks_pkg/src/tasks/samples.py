"""Safe samples: for each task a call that may be sent to a production service at any time."""

from dataclasses import dataclass, field
from typing import Any

#: Relative to the datasets folder; the deployment puts it there.
TRAINING_SAMPLE = "examples/winequality.csv"


@dataclass(frozen=True)
class Sample:
    """One safe call, and what its result must contain.

    Args:
        kwargs: the call's arguments.
        statuses: the accepted values of the result's ``status``.
        seconds: time limit for the task.
        after: the task whose sample's result this one needs; this one is sent after it.
        takes: arguments taken from that result, each with the key in that result.
    """

    kwargs: dict[str, Any] = field(default_factory=dict)
    statuses: frozenset[str] = frozenset({"success"})
    seconds: float = 30.0
    after: str | None = None
    takes: dict[str, str] = field(default_factory=dict)


#: Samples by task name; the report names a task without one as not sent.
SAMPLES: dict[str, Sample] = {
    "tasks.simple_tasks.ping": Sample(statuses=frozenset({"pong"})),
    "tasks.simple_tasks.check_cluster_health": Sample(statuses=frozenset({"healthy"})),
    # A channel that is never configured: the task runs completely and notifies nobody.
    "tasks.simple_tasks.send_notification": Sample(
        {"message": "celray verify", "channel": "celray-verify-no-such-channel"},
        frozenset({"not_configured"}),
    ),
    "tasks.simple_tasks.cleanup_old_results": Sample({"dry_run": True}, frozenset({"completed"})),
    "tasks.ml_tasks.distributed_training": Sample(
        {
            "model_config": {
                "n_estimators": 20,
                "max_depth": 4,
                "num_partitions": 2,
                "target": "quality",
            },
            "dataset_path": TRAINING_SAMPLE,
        },
        seconds=300.0,
    ),
    "tasks.ml_tasks.batch_predictions": Sample(
        {"data_batches": [TRAINING_SAMPLE]},
        seconds=300.0,
        after="tasks.ml_tasks.distributed_training",
        takes={"model_path": "model_path"},
    ),
    "tasks.ml_tasks.hyperparameter_search": Sample(
        {
            "param_grid": [{"max_depth": 3}, {"max_depth": 5}],
            "dataset_path": TRAINING_SAMPLE,
            "search_config": {"target": "quality", "n_estimators": 20, "folds": 2},
        },
        seconds=300.0,
    ),
    "tasks.data_tasks.process_large_csv": Sample(
        {
            "file_path": TRAINING_SAMPLE,
            "output_path": "examples/winequality-strong.parquet",
            "transformations": {
                "filter": {"alcohol": 12},
                "new_columns": {"free share": "df['free_sulfur_dioxide'] / total_sulfur_dioxide"},
            },
        },
        seconds=120.0,
    ),
    # No names: the task runs completely and retrains nothing.
    "tasks.ml_tasks.retrain_models": Sample({"names": []}, seconds=300.0),
    "tasks.data_tasks.aggregate_data": Sample(
        {
            "data_sources": [TRAINING_SAMPLE],
            "output_path": "examples/winequality-by-quality.csv",
            "group_by": ["quality"],
        },
        seconds=120.0,
    ),
    # It takes files that have lain there for a day; the hourly run would have taken them before.
    "tasks.data_tasks.process_new_data": Sample({"settle_seconds": 86_400.0}, seconds=300.0),
}

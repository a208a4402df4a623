"""The machine-learning tasks: each checks what it was given and runs one Ray job."""

from typing import Any, cast

from tasks import datasets
from tasks.contracts import Untyped, validated
from tasks.orchestration import ray_task, run_job
from tasks.schemas_ml import TrainingResult, model_config_from
from tasks.settings import get_settings


@ray_task("tasks.ml_tasks.distributed_training")
@validated
def distributed_training(
    self: Untyped,
    model_config: dict[str, Any],
    dataset_path: str,
) -> TrainingResult:
    """Train one gradient-boosted model on one dataset, on several Ray workers at once.

    Progress, stopping and errors are those of :func:`tasks.orchestration.run_job`.

    Args:
        self: the bound task.
        model_config: see :class:`tasks.schemas_ml.ModelConfig`.
        dataset_path: a ``.csv`` or ``.parquet`` file, a folder of them, or the prefix of
            ``<dataset_path>_part_<i>.csv``; under the datasets or the models folder, relative to
            the former.

    Returns:
        See :class:`tasks.schemas_ml.TrainingResult`.

    Raises:
        InvalidArgumentsError: a mistake in the arguments or the data; never retried.
    """
    config = model_config_from(model_config)
    wanted = {config.target: "model_config.target"} | dict.fromkeys(
        config.exclude_columns, "model_config.exclude_columns"
    )
    datasets.check(dataset_path, wanted, get_settings())
    result = run_job(self, "train", config.parameters(dataset_path))
    return cast("TrainingResult", result)

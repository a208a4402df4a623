"""The machine-learning tasks: each checks what it was given and runs one Ray job."""

from typing import Annotated, Any, cast

from tasks import datasets, predictions
from tasks.contracts import Shape, Untyped, validated
from tasks.orchestration import ray_task, run_job
from tasks.schemas_ml import ModelConfig, PredictionResult, TrainingResult, model_config_from
from tasks.settings import get_settings


@ray_task("tasks.ml_tasks.distributed_training")
@validated
def distributed_training(
    self: Untyped,
    model_config: Annotated[dict[str, Any], Shape(ModelConfig, model_config_from)],
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


@ray_task("tasks.ml_tasks.batch_predictions")
@validated
def batch_predictions(
    self: Untyped,
    model_path: str,
    data_batches: str | list[Any],
    id_column: str | None = None,
) -> PredictionResult:
    """Predict rows with a model that ``distributed_training`` made, on a pool of Ray Data actors.

    Progress, stopping and errors are those of :func:`tasks.orchestration.run_job`. A model is
    read only when its files have the digests in its manifest, and nothing in it is executed.

    Args:
        self: the bound task.
        model_path: a training's ``model_path``; a relative one is taken under the models folder.
        data_batches: a list of batches, each a list of rows or a path; or one path. A row is an
            object by column name, or a list of values in the order of the training table's
            columns. A path is what ``dataset_path`` of ``distributed_training`` is.
        id_column: the column whose values identify rows in the output; must differ in every
            row. By default rows are numbered from 0.

    Returns:
        See :class:`tasks.schemas_ml.PredictionResult`.

    Raises:
        InvalidArgumentsError: a mistake in the arguments or the data; never retried.
    """
    predictions.check(model_path, data_batches, id_column, get_settings())
    parameters = {"model_path": model_path, "data_batches": data_batches, "id_column": id_column}
    return cast("PredictionResult", run_job(self, "predict", parameters))

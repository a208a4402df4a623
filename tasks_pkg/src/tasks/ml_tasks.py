"""The machine-learning tasks: each checks its arguments and runs one Ray job."""

from typing import Annotated, Any, cast

from tasks.contracts import Shape, Untyped, validated
from tasks.orchestration import ray_task, run_job, tried_again
from tasks.preconditions import datasets, predictions, retraining
from tasks.ray_jobs.requests import (
    PredictRequest,
    RetrainRequest,
    RollbackRequest,
    TrainRequest,
)
from tasks.schemas.common import Separator
from tasks.schemas.csv_arguments import csv_arguments, csv_options
from tasks.schemas.models import (
    ModelConfig,
    PredictionResult,
    RetrainingResult,
    RollbackResult,
    TrainingResult,
    model_config_from,
)
from tasks.schemas.search import (
    SearchConfig,
    SearchResult,
    grid_from,
    search_config_from,
    search_from,
)
from tasks.settings import get_settings


@ray_task("tasks.ml_tasks.distributed_training")
@validated
def distributed_training(
    self: Untyped,
    model_config: Annotated[dict[str, Any], Shape(ModelConfig, model_config_from)],
    dataset_path: str,
) -> TrainingResult:
    """Train one gradient-boosted model on one dataset, on several Ray workers at once.

    Progress, stopping and errors are those of every Ray job, see docs/tasks.md.

    Args:
        self: the bound task.
        model_config: see :class:`tasks.schemas.models.ModelConfig`.
        dataset_path: a ``.csv``, ``.tsv``, ``.txt`` (also compressed as ``.gz`` or ``.zst``) or
            ``.parquet`` file, a folder of them, or the prefix of ``<dataset_path>_part_<i>.csv``;
            under the datasets or the models folder, relative to the former.

    Returns:
        See :class:`tasks.schemas.models.TrainingResult`.

    Raises:
        InvalidArgumentsError: a mistake in the arguments or the data; never retried.
    """
    config = model_config_from(model_config)
    datasets.check(dataset_path, _wanted(config, "model_config"), get_settings(), config.options())
    return cast("TrainingResult", run_job(self, TrainRequest.JOB, config.training(dataset_path)))


@ray_task("tasks.ml_tasks.batch_predictions")
@validated
@csv_arguments("schema")
def batch_predictions(  # noqa: PLR0913, PLR0917 - what callers may name
    self: Untyped,
    model_path: str,
    data_batches: str | list[Any],
    id_column: str | None = None,
    missing: list[str] | None = None,
    separator: Separator | None = None,
    **csv: Untyped,
) -> PredictionResult:
    """Predict rows with a model that ``distributed_training`` made, on a pool of Ray Data actors.

    Progress, stopping and errors are those of every Ray job, see docs/tasks.md. A model is read
    only if its files have the digests in its manifest, and nothing in it is executed.

    Args:
        self: the bound task.
        model_path: a training's ``model_path``; a relative one is taken under the models folder.
        data_batches: a list of batches, each a list of rows or a path; or one path. A row is an
            object by column name, or a list of values in the order of the training table's columns.
            A path is as ``dataset_path`` of ``distributed_training``.
        id_column: the column whose values identify rows in the output; must differ in every
            row. By default rows are numbered from 0.
        missing: what stands for a missing value in CSV, quoted or not; by default as in the
            model's training.
        separator: the character between fields in CSV; by default it is detected.
        csv: other options of the CSV format, see
            :class:`tasks.schemas.common.CsvWritten`; by default as in the model's training.

    Returns:
        See :class:`tasks.schemas.models.PredictionResult`.

    Raises:
        InvalidArgumentsError: a mistake in the arguments or the data; never retried.
    """
    said = {"missing": missing, "separator": separator, **csv}
    request = PredictRequest(
        model_path=model_path,
        data_batches=data_batches,
        id_column=id_column,
        csv=csv_options("batch_predictions", said),
    )
    predictions.check(request, get_settings())
    return cast("PredictionResult", run_job(self, request.JOB, request))


@ray_task("tasks.ml_tasks.hyperparameter_search")
@validated
def hyperparameter_search(
    self: Untyped,
    param_grid: Annotated[list[dict[str, Any]] | dict[str, Any], Shape(None, grid_from)],
    dataset_path: str,
    search_config: Annotated[dict[str, Any] | None, Shape(SearchConfig, search_config_from)] = None,
) -> SearchResult:
    """Try combinations of parameters on one dataset, and train a model with the best.

    Progress, stopping and errors are those of every Ray job, see docs/tasks.md. A search that was
    interrupted, because a worker or the head was killed, resumes with the unfinished trials.

    Args:
        self: the bound task.
        param_grid: the candidates. A list of combinations, each an object; or an object with a list
            of values per parameter, of which every combination is tried; or a search space, in
            which a parameter is ``{"low": 2, "high": 8}`` (with ``log`` or ``step``) or
            ``{"choice": [..]}``, searched by Optuna.
        dataset_path: as in ``distributed_training``.
        search_config: see :class:`tasks.schemas.search.SearchConfig`.

    Returns:
        See :class:`tasks.schemas.search.SearchResult`.

    Raises:
        InvalidArgumentsError: a mistake in the arguments or the data; never retried.
    """
    config, tried = search_from(param_grid, search_config or {})
    datasets.check(dataset_path, _wanted(config, "search_config"), get_settings(), config.options())
    request = config.search(dataset_path, tried)
    return cast("SearchResult", run_job(self, request.JOB, request))


@ray_task("tasks.ml_tasks.retrain_models")
@validated
def retrain_models(
    self: Untyped, names: list[str] | None = None, *, force: bool = False
) -> RetrainingResult:
    """Retrain the registered models whose data are new, and use those that pass their gates.

    The old and the new model are scored on the same held-out rows, which are chosen once per model
    and never trained on. docs/tasks.md describes how models are registered, and what all Ray jobs
    have in common.

    Args:
        self: the bound task.
        names: only these models; by default all that are enabled.
        force: also retrain if data and parameters are those of the last version.

    Returns:
        See :class:`tasks.schemas.models.RetrainingResult`.

    Raises:
        InvalidArgumentsError: a name is not registered.
    """
    settings = get_settings()
    with tried_again(self):
        models = retraining.models(settings, names)
    request = RetrainRequest(models=models, force=force, mlflow_uri=settings.mlflow_tracking_uri)
    return cast("RetrainingResult", run_job(self, request.JOB, request))


@ray_task("tasks.ml_tasks.rollback_model")
@validated
def rollback_model(self: Untyped, name: str, version: int | None = None) -> RollbackResult:
    """Use an earlier version of a registered model again.

    Args:
        self: the bound task.
        name: the model's name in the registry.
        version: the version's number; by default the one that was in use before.

    Returns:
        See :class:`tasks.schemas.models.RollbackResult`.

    Raises:
        InvalidArgumentsError: there is no such model or version, or it is damaged.
    """
    retraining.require_name(name)
    uri = get_settings().mlflow_tracking_uri
    request = RollbackRequest(name=name, version=version, mlflow_uri=uri)
    return cast("RollbackResult", run_job(self, request.JOB, request))


def _wanted(config: ModelConfig, origin: str) -> dict[str, str]:
    """Return the required columns of a dataset, and the argument that names each."""
    excluded = dict.fromkeys(config.exclude_columns, f"{origin}.exclude_columns")
    declared = dict.fromkeys(config.declared, f"{origin}.schema")
    if isinstance(config.date_format, dict):
        declared |= dict.fromkeys(config.date_format, f"{origin}.date_format")
    return {config.target: f"{origin}.target"} | excluded | declared

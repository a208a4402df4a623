"""The arguments and results of training, predictions and the registry: names, units, bounds."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from tasks.ray_jobs.requests import ModelOptions, TrainRequest
from tasks.schemas.common import CsvWritten, JobReport, JobTimes, RowAccount, checked


class ModelConfig(CsvWritten):
    """``model_config`` of ``distributed_training``; every key has a default.

    ``n_estimators``, ``max_depth`` and ``num_partitions`` are the keys that callers have always
    sent.
    """

    # Beside what CsvWritten sets.
    model_config = ConfigDict(allow_inf_nan=False)

    n_estimators: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Boosting rounds; with k > 2 classes, each grows k trees."""
    max_depth: Annotated[int, Field(ge=1, le=30)] | None = 6
    """Levels of a tree; None means 6, XGBoost's own default."""
    num_partitions: Annotated[int, Field(ge=1, le=1024)] = 2
    """Ray Train workers that share the training rows, one CPU each."""
    target: Annotated[str, Field(min_length=1)] = "target"
    """The column to predict."""
    task: Literal["auto", "classification", "regression"] = "auto"
    """``auto``: text, booleans, and few whole numbers are classes: ``ray_jobs.model.target``."""
    test_fraction: Annotated[float, Field(gt=0.0, le=0.9)] = 0.2
    """Share of the rows held out for the score, 0 to 1."""
    seed: Annotated[int, Field(ge=0, lt=1 << 31)] = 42
    """Seed for the choice of held-out rows and for XGBoost's own sampling."""
    metric: Literal["accuracy", "f1", "log_loss", "roc_auc", "r2", "rmse", "mae"] | None = None
    """The held-out metric that ``avg_score`` holds; by default accuracy or r2."""
    exclude_columns: list[str] = []  # noqa: RUF012 - pydantic copies it
    """Columns to leave out, such as identifiers."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,60}$")] | None = None
    """Start of the model's folder name; by default the dataset's name."""
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 0.3
    """Weight of each new tree."""
    subsample: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Share of the rows that each tree sees."""
    colsample_bytree: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Share of the columns that each tree sees."""
    min_child_weight: Annotated[float, Field(ge=0.0)] = 1.0
    """Least sum of second derivatives in a leaf."""
    reg_alpha: Annotated[float, Field(ge=0.0)] = 0.0
    """L1 penalty on leaf weights."""
    reg_lambda: Annotated[float, Field(ge=0.0)] = 1.0
    """L2 penalty on leaf weights."""

    def model_options(self) -> ModelOptions:
        """Return the options that decide how a model is trained, in the form that jobs receive."""
        return ModelOptions(
            n_estimators=self.n_estimators,
            max_depth=6 if self.max_depth is None else self.max_depth,
            num_partitions=self.num_partitions,
            target=self.target,
            task=self.task,
            test_fraction=self.test_fraction,
            seed=self.seed,
            metric=self.metric,
            exclude_columns=self.exclude_columns,
            name=self.name,
            learning_rate=self.learning_rate,
            subsample=self.subsample,
            colsample_bytree=self.colsample_bytree,
            min_child_weight=self.min_child_weight,
            reg_alpha=self.reg_alpha,
            reg_lambda=self.reg_lambda,
        )

    def training(self, dataset_path: str) -> TrainRequest:
        """Return the request for the Ray job of a training."""
        return TrainRequest(
            model=self.model_options(), csv=self.options(), dataset_path=dataset_path
        )


class TrainingResult(RowAccount, JobReport):
    """What ``distributed_training`` returns. Scores are on rows that were never trained on."""

    status: Literal["success"]
    avg_score: float | None
    """The metric named by ``metric``; None if it is not defined."""
    metric: str
    metrics: dict[str, float | None]
    task: Literal["classification", "regression"]
    target: str
    classes: list[str | int | float | bool] | None
    total_samples: int
    """Rows that have a target: train_samples + test_samples."""
    train_samples: int
    test_samples: int
    num_features: int
    num_partitions: int
    """Workers that took part; ``warnings`` tells when they are fewer than requested."""
    model_path: str


class PredictionResult(RowAccount, JobReport):
    """What ``batch_predictions`` returns; all predictions are in ``predictions_path``.

    Warnings concern the CSV format, and values that the model has not seen or reads differently.
    """

    status: Literal["success"]
    total_predictions: int
    predictions: list[Any]
    """The first 100, in the order of the rows: labels, or numbers for regression."""
    ids: list[Any]
    """For the same rows: the values of ``id_column``, or the row numbers from 0."""
    task: Literal["classification", "regression"]
    model_path: str
    predictions_path: str
    """Parquet: ``id``, ``prediction`` and, for classes, ``probability`` of the predicted one."""
    num_actors: int
    """Ray Data actors that predicted; 0 if the rows were too few to need one."""


#: Keys of whole numbers, which JSON from some clients has as 10.0; a search's too.
WHOLE = ("n_estimators", "max_depth", "num_partitions", "seed", "folds", "max_trials")


class RetrainingResult(JobReport):
    """What ``retrain_models`` returns."""

    status: Literal["success", "partial", "failed"]
    """Of the models: none, some, or all failed."""
    models: list[dict[str, Any]]
    """Per model ``name``, ``outcome`` (promoted, rejected, unchanged, failed), ``reason`` and,
    where it was retrained, ``version``, ``model_path``, ``metric``, ``score``, ``score_in_use``
    and its training's ``warnings`` and account (``rows_read`` and so on)."""
    retrained: int
    promoted: int
    failed: int
    registry: str
    """The folder, or the MLflow server's address."""


class RollbackResult(JobTimes):
    """What ``rollback_model`` returns."""

    status: Literal["success"]
    name: str
    version: int
    """The version that is in use now."""
    model_path: str
    previous_version: int
    registry: str


def model_config_from(value: dict[str, Any], origin: str = "model_config") -> ModelConfig:
    """Check a caller's ``model_config``.

    Args:
        value: the dictionary as given.
        origin: its name in error messages.

    Raises:
        InvalidArgumentsError: names each wrong key or value, and the nearest right one.
    """
    return checked(ModelConfig, value, origin, WHOLE)

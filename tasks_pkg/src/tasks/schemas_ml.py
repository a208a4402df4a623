"""What the machine-learning tasks take and give: names, units, bounds."""

import difflib
from typing import Annotated, Any, Literal, TypedDict

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.contracts import InvalidArgumentsError

_SHOWN = 80


class ModelConfig(BaseModel):
    """``model_config`` of ``distributed_training``; every key has a default.

    ``n_estimators``, ``max_depth`` and ``num_partitions`` are what callers have always sent.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )

    n_estimators: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Boosting rounds; with k > 2 classes, each grows k trees."""
    max_depth: Annotated[int, Field(ge=1, le=30)] | None = 6
    """Levels of a tree; None means 6, XGBoost's own default."""
    num_partitions: Annotated[int, Field(ge=1, le=1024)] = 2
    """Ray Train workers that share the training rows, one CPU each."""
    target: Annotated[str, Field(min_length=1)] = "target"
    """The column to predict."""
    task: Literal["auto", "classification", "regression"] = "auto"
    """``auto``: text, booleans, and few whole numbers are classes (``ray_jobs.target.decide``)."""
    test_fraction: Annotated[float, Field(gt=0.0, le=0.9)] = 0.2
    """Share of the rows held out for the score, 0 to 1."""
    seed: Annotated[int, Field(ge=0, lt=1 << 31)] = 42
    """Decides the held-out rows, and XGBoost's own sampling."""
    metric: Literal["accuracy", "f1", "log_loss", "roc_auc", "r2", "rmse", "mae"] | None = None
    """Which held-out metric ``avg_score`` is; by default accuracy or r2."""
    exclude_columns: list[str] = []
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

    def parameters(self, dataset_path: str) -> dict[str, Any]:
        """Give the parameters of the Ray job."""
        return {
            **self.model_dump(),
            "max_depth": 6 if self.max_depth is None else self.max_depth,
            "dataset_path": dataset_path,
        }


class TrainingResult(TypedDict):
    """What ``distributed_training`` returns. Scores are on rows that were never trained on."""

    status: Literal["success"]
    avg_score: float | None
    """The metric named by ``metric``; None where it is not defined."""
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
    """Workers that really trained; ``warnings`` says when that is fewer than asked for."""
    model_path: str
    manifest_path: str
    warnings: list[str]
    reused: bool
    """An identical request had been trained before, and this is its result."""
    ray_submission_id: str
    queue_seconds: float | None
    """Publishing to the task's start; None where the client stamps no messages."""
    startup_seconds: float
    """Submission to the first line of the job's code."""
    engine_seconds: float
    """The first line of the job's code to its result."""


class PredictionResult(TypedDict):
    """What ``batch_predictions`` returns; all predictions are in ``predictions_path``."""

    status: Literal["success"]
    total_predictions: int
    predictions: list[Any]
    """The first 100, in the order of the rows: labels, or numbers for regression."""
    ids: list[Any]
    """Of the same rows: the values of ``id_column``, or the rows' numbers from 0."""
    task: Literal["classification", "regression"]
    model_path: str
    predictions_path: str
    """Parquet: ``id``, ``prediction`` and, for classes, ``probability`` of the predicted one."""
    manifest_path: str
    num_actors: int
    """Ray Data actors that predicted; 0 where the rows were too few to need them."""
    reused: bool
    """An identical request had been answered before, and this is its result."""
    ray_submission_id: str
    queue_seconds: float | None
    """Publishing to the task's start; None where the client stamps no messages."""
    startup_seconds: float
    """Submission to the first line of the job's code."""
    engine_seconds: float
    """The first line of the job's code to its result."""


def model_config_from(value: dict[str, Any]) -> ModelConfig:
    """Check a caller's ``model_config``.

    Raises:
        InvalidArgumentsError: names each wrong key or value, and the nearest right one.
    """
    # JSON from some clients carries whole numbers as 10.0.
    whole = {
        key: int(item) if isinstance(item, float) and item.is_integer() else item
        for key, item in value.items()
        if key in ("n_estimators", "max_depth", "num_partitions", "seed")
    }
    try:
        return ModelConfig.model_validate({**value, **whole})
    except ValidationError as error:
        raise InvalidArgumentsError("; ".join(_explain(e) for e in error.errors())) from None


def _explain(error: Any) -> str:  # noqa: ANN401 - pydantic's ErrorDetails is a plain dict
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = list(ModelConfig.model_fields)
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it accepts: {', '.join(known)}"
        return f"model_config: unknown key {key!r}; {hint}"
    shown = repr(error["input"])
    shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
    return f"model_config.{key}: {error['msg']}, got {shown}"

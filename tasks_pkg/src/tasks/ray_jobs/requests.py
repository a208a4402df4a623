"""The request of each job: one class per job, written by workers, read by jobs. Stdlib only.

A request travels as the flat JSON of :meth:`Request.as_json`. The keys are in the order of the
fields, and that order must stay: digests of earlier results depend on it.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, fields, is_dataclass, replace
from typing import Any, ClassVar, Literal, Self, TypeVar

from .csv.dialect import CsvOptions
from .csv.files import MISSING
from .protocol import InputProblemError, JobRequest

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The options of training a model; see :class:`tasks.schemas.models.ModelConfig`."""

    n_estimators: int
    max_depth: int
    num_partitions: int
    target: str
    task: Literal["auto", "classification", "regression"]
    test_fraction: float
    seed: int
    metric: str | None
    exclude_columns: Sequence[str]
    name: str | None
    learning_rate: float
    subsample: float
    colsample_bytree: float
    min_child_weight: float
    reg_alpha: float
    reg_lambda: float


@dataclass(frozen=True, kw_only=True)
class Request:
    """The request of one job.

    The fields ``model`` and ``csv`` are groups: their keys stand in the flat JSON in their place.
    """

    JOB: ClassVar[str]

    def as_json(self) -> dict[str, Any]:
        """Return the request in its JSON form: :attr:`JobRequest.parameters`."""
        found: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, CsvOptions):
                found |= self.csv_as_json(value)
            elif isinstance(value, ModelOptions):
                found |= _plain(value)
            else:
                found[each.name] = _plain(value)
        return found

    def csv_as_json(self, options: CsvOptions) -> dict[str, Any]:
        """Return the CSV options to send: those that the caller gave."""
        return options.given()

    @classmethod
    def of(cls, request: JobRequest) -> Self:
        """Return the request of a job.

        Raises:
            InputProblemError: names keys that are unknown to the job, or missing.
        """
        given, needed = request.parameters, []
        for each in fields(cls):
            if each.type is not CsvOptions:
                needed += _keys_of(ModelOptions) if each.type is ModelOptions else [each.name]
        has_csv = any(each.type is CsvOptions for each in fields(cls))
        known = [*needed, *(CsvOptions.KEYS if has_csv else ())]
        _check(given, known, needed, f"the job {cls.JOB}")
        return cls(**{each.name: _taken(each, given) for each in fields(cls)})


@dataclass(frozen=True, kw_only=True)
class TrainRequest(Request):
    """A request to train one model on one dataset."""

    JOB = "train"

    model: ModelOptions
    csv: CsvOptions
    dataset_path: str


@dataclass(frozen=True, kw_only=True)
class SearchRequest(Request):
    """A request for trials on one dataset: ``combinations``, or draws from ``space``."""

    JOB = "search"

    model: ModelOptions
    folds: int
    max_trials: int
    max_seconds: float | None
    early_stopping: bool | None
    max_concurrent: int | None
    csv: CsvOptions
    dataset_path: str
    space: Mapping[str, Mapping[str, Any]] | None
    combinations: Sequence[Mapping[str, Any]] | None

    def training(self, chosen: Mapping[str, Any]) -> TrainRequest:
        """Return the training request for one combination."""
        depth = chosen.get("max_depth", self.model.max_depth)
        options = {**chosen, "max_depth": 6 if depth is None else depth}
        model = replace(self.model, **options)
        return TrainRequest(model=model, csv=self.csv, dataset_path=self.dataset_path)


@dataclass(frozen=True, kw_only=True)
class PredictRequest(Request):
    """A request for predictions of one model."""

    JOB = "predict"

    model_path: str
    data_batches: str | list[Any]
    id_column: str | None
    csv: CsvOptions


@dataclass(frozen=True, kw_only=True)
class DataRequest(Request):
    """A request that always sends the CSV options schema and missing."""

    def csv_as_json(self, options: CsvOptions) -> dict[str, Any]:
        """Return the CSV options to send; schema and missing even if they are the default."""
        return {"schema": {}, "missing": list(MISSING)} | options.given()


@dataclass(frozen=True, kw_only=True)
class ProcessCsvRequest(DataRequest):
    """A request to filter one large CSV file and add derived columns.

    ``bad_rows`` applies if ``csv.bad_rows`` is None.
    """

    JOB = "process_csv"

    filter: str | Mapping[str, int | float | str] | None
    new_columns: Mapping[str, str]
    num_chunks: int | None
    columns: Sequence[str] | None
    overwrite: bool
    csv: CsvOptions
    bad_rows: Literal["fail", "reject"]
    file_path: str
    output_path: str


@dataclass(frozen=True, kw_only=True)
class AggregateRequest(DataRequest):
    """A request for aggregates of many sources."""

    JOB = "aggregate"

    data_sources: Sequence[str]
    output_path: str
    group_by: Sequence[str]
    aggregations: Mapping[str, Sequence[str]] | None
    overwrite: bool
    csv: CsvOptions


@dataclass(frozen=True, kw_only=True)
class InboxRequest(Request):
    """A request to convert delivered files to Parquet."""

    JOB = "inbox"

    settle_seconds: float
    stale_seconds: float
    csv: CsvOptions


@dataclass(frozen=True, kw_only=True)
class Gate:
    """The gate of a new model, in its metric's unit; see ``preconditions.retraining.Gate``."""

    min_score: float | None
    min_improvement: float


@dataclass(frozen=True, kw_only=True)
class RegisteredModel:
    """A model to retrain; ``parameters`` are the JSON of a :class:`TrainRequest`."""

    name: str
    parameters: dict[str, Any]
    gate: Gate


@dataclass(frozen=True, kw_only=True)
class BrokenEntry:
    """A model whose registry entry cannot be used, and the reason."""

    name: str
    problem: str


@dataclass(frozen=True, kw_only=True)
class RetrainRequest(Request):
    """A request to retrain registered models whose data are new."""

    JOB = "retrain"

    models: Sequence[RegisteredModel | BrokenEntry]
    force: bool
    mlflow_uri: str | None

    @classmethod
    def of(cls, request: JobRequest) -> Self:
        """Return the request of the job; see :meth:`Request.of`."""
        asked = super().of(request)
        sent: Sequence[Any] = asked.models
        return replace(asked, models=[_entry(each) for each in sent])


@dataclass(frozen=True, kw_only=True)
class RollbackRequest(Request):
    """A request to use an earlier version of a registered model again."""

    JOB = "rollback"

    name: str
    version: int | None
    mlflow_uri: str | None


def _keys_of(kind: Any) -> list[str]:  # noqa: ANN401 - any dataclass
    return [each.name for each in fields(kind)]


def _taken(each: Field[Any], given: Mapping[str, Any]) -> Any:  # noqa: ANN401 - the field's type
    if each.type is CsvOptions:
        return CsvOptions.of(given)
    if each.type is ModelOptions:
        return ModelOptions(**{name: given[name] for name in _keys_of(ModelOptions)})
    return given[each.name]


def _entry(sent: Mapping[str, Any]) -> RegisteredModel | BrokenEntry:
    if "problem" in sent:
        return _made(BrokenEntry, sent, "an entry of the job retrain")
    found = _made(RegisteredModel, sent, "an entry of the job retrain")
    return replace(found, gate=_made(Gate, sent["gate"], "a gate of the job retrain"))


def _made(kind: type[T], given: Mapping[str, Any], shown: str) -> T:
    names = _keys_of(kind)
    _check(given, names, names, shown)
    return kind(**given)


def _check(
    given: Mapping[str, Any], known: Sequence[str], needed: Sequence[str], shown: str
) -> None:
    """Refuse a request with an unknown or a missing key.

    Raises:
        InputProblemError: names the key.
    """
    way_out = "Worker and job are of different releases: deploy again, and send the task again."
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes: {', '.join(known)}."
            message = f"The request has {name!r}, which {shown} does not know; {hint}"
            raise InputProblemError("request_unknown_key", message, way_out)
    for name in needed:
        if name not in given:
            message = f"The request lacks {name!r}, which {shown} needs."
            raise InputProblemError("request_missing_key", message, way_out)


def _plain(value: Any) -> Any:  # noqa: ANN401 - JSON of what a field holds
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value

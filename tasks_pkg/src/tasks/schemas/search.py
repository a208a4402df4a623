"""The arguments and the result of ``hyperparameter_search``: names, units, bounds."""

import difflib
import itertools
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tasks.contracts import InvalidArgumentsError
from tasks.ray_jobs.requests import SearchRequest
from tasks.schemas.common import JobReport, RowAccount, as_whole, checked
from tasks.schemas.models import WHOLE, ModelConfig, model_config_from

#: The parameters that a search may vary.
SEARCHED = (
    "n_estimators",
    "max_depth",
    "learning_rate",
    "subsample",
    "colsample_bytree",
    "min_child_weight",
    "reg_alpha",
    "reg_lambda",
)
_MOST_COMBINATIONS = 1000


@dataclass(frozen=True, kw_only=True)
class Tried:
    """The candidates of a search: a list of combinations, or a space to draw from."""

    space: dict[str, dict[str, Any]] | None = None
    combinations: list[dict[str, Any]] | None = None


class SearchConfig(ModelConfig):
    """``search_config`` of ``hyperparameter_search``: what all trials share.

    The keys of ``model_config`` are allowed, and apply unless ``param_grid`` overrides them.
    """

    folds: Annotated[int, Field(ge=0, le=20)] = 3
    """Folds of cross-validation; 0 holds out a quarter of the training rows instead."""
    max_trials: Annotated[int, Field(ge=1, le=1000)] = 20
    """Trials of a search space; a list is tried completely."""
    max_seconds: Annotated[float, Field(gt=0)] | None = None
    """Time limit in seconds, after which no trial begins or continues."""
    early_stopping: bool | None = None
    """Whether ASHA stops trials that fall behind; by default for a search space, not a list."""
    max_concurrent: Annotated[int, Field(ge=1)] | None = None
    """Concurrent trials, one CPU each; by default all CPUs of the cluster."""

    @field_validator("folds")
    @classmethod
    def _enough(cls, folds: int) -> int:
        if folds == 1:
            message = "must be 0 (held-out rows) or at least 2"
            raise ValueError(message)
        return folds

    def search(self, dataset_path: str, tried: Tried) -> SearchRequest:
        """Return the request for the Ray job of a search."""
        return SearchRequest(
            model=self.model_options(),
            folds=self.folds,
            max_trials=self.max_trials,
            max_seconds=self.max_seconds,
            early_stopping=self.early_stopping,
            max_concurrent=self.max_concurrent,
            csv=self.options(),
            dataset_path=dataset_path,
            space=tried.space,
            combinations=tried.combinations,
        )


class _Range(BaseModel):
    """A range of a search space, both ends included."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    low: float
    high: float
    log: bool = False
    step: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            message = f"low {self.low:g} is above high {self.high:g}"
            raise ValueError(message)
        if self.log and (self.low <= 0 or self.step is not None):
            message = "log needs low above 0 and no step"
            raise ValueError(message)
        return self


class SearchResult(RowAccount, JobReport):
    """What ``hyperparameter_search`` returns."""

    status: Literal["success"]
    best_params: dict[str, Any]
    best_score: float
    """The metric on the validation rows: the mean over the folds."""
    all_results: list[dict[str, Any]]
    """Per trial, best first: ``params``, ``score``, ``status`` (complete, stopped early,
    failed, not finished), ``rounds`` (boosting rounds done) and ``seconds``."""
    metric: str
    direction: Literal["max", "min"]
    validation: str
    num_trials: int
    holdout_score: float | None
    """The metric of the best model on rows that no trial has seen."""
    model_path: str
    """The best model, trained on all training rows, as ``distributed_training`` keeps it."""
    trials_path: str
    plot_png: str
    plot_html: str
    resumed: bool
    """Whether an interrupted identical search was found and resumed."""


def search_config_from(value: dict[str, Any]) -> SearchConfig:
    """Check a caller's ``search_config``; errors are those of :func:`model_config_from`."""
    return checked(SearchConfig, value, "search_config", WHOLE)


def search_from(
    param_grid: list[dict[str, Any]] | dict[str, Any], search_config: dict[str, Any]
) -> tuple[SearchConfig, Tried]:
    """Check a caller's ``param_grid`` and ``search_config``.

    Returns:
        The search config, and the candidates.

    Raises:
        InvalidArgumentsError: names each wrong key or value, and the nearest right one.
    """
    return search_config_from(search_config), grid_from(param_grid)


def grid_from(param_grid: list[dict[str, Any]] | dict[str, Any]) -> Tried:
    """Check a caller's ``param_grid``; see :func:`search_from`."""
    if isinstance(param_grid, dict) and any(isinstance(v, dict) for v in param_grid.values()):
        return Tried(space=_space(param_grid))
    if isinstance(param_grid, dict):
        lists = {key: v if isinstance(v, list) else [v] for key, v in param_grid.items()}
        if math.prod(map(len, lists.values())) > _MOST_COMBINATIONS:
            message = (
                f"param_grid has more than {_MOST_COMBINATIONS} combinations; make it smaller, or"
                " give ranges, of which search_config.max_trials are tried"
            )
            raise InvalidArgumentsError(message)
        param_grid = [
            dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())
        ]
    if not param_grid or param_grid == [{}]:
        message = "param_grid holds no combination; send a list such as [{'max_depth': 4}]"
        raise InvalidArgumentsError(message)
    if len(param_grid) > _MOST_COMBINATIONS:
        message = f"param_grid has {len(param_grid)} combinations; {_MOST_COMBINATIONS} at most"
        raise InvalidArgumentsError(message)
    for position, combination in enumerate(param_grid):
        _searched(combination, f"param_grid[{position}]")
    combinations = [
        {key: _whole(key, value) for key, value in combination.items()}
        for combination in param_grid
    ]
    return Tried(combinations=combinations)


def _searched(values: dict[str, Any], origin: str) -> None:
    known = (*SEARCHED, "num_partitions")
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it accepts: {', '.join(known)}"
            if key in SearchConfig.model_fields:
                hint = "it belongs into search_config, because all trials have it in common"
            message = f"{origin}: unknown key {key!r}; {hint}"
            raise InvalidArgumentsError(message)
    model_config_from(values, origin)


def _space(grid: dict[str, Any]) -> dict[str, dict[str, Any]]:
    space: dict[str, dict[str, Any]] = {}
    for key, value in grid.items():
        origin = f"param_grid.{key}"
        choices = value.get("choice") if isinstance(value, dict) else value
        if isinstance(value, dict) and "choice" not in value:
            found = checked(_Range, value, origin)
            ends = {name: _whole(key, getattr(found, name)) for name in ("low", "high")}
            for end in ends.values():
                _searched({key: end}, "param_grid")
            step = _whole(key, found.step)
            if key in WHOLE and isinstance(step, float):
                message = f"{origin}.step: must be a whole number, as {key} is, got {step:g}"
                raise InvalidArgumentsError(message)
            space[key] = {**ends, "log": found.log, "step": step, "whole": key in WHOLE}
            continue
        choices = choices if isinstance(choices, list) else [choices]
        if not choices or (isinstance(value, dict) and set(value) != {"choice"}):
            message = f"{origin}: give 'choice' alone, with a list of at least one value"
            raise InvalidArgumentsError(message)
        for choice in choices:
            _searched({key: choice}, "param_grid")
        space[key] = {"choice": [_whole(key, choice) for choice in choices]}
    return space


def _whole(key: str, value: Any) -> Any:  # noqa: ANN401 - JSON
    return as_whole(value) if key in WHOLE else value

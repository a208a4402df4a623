"""One trial of a search, with the same rows and score in every runner."""

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import xgboost
from numpy.typing import NDArray

from ..model import metrics
from ..model.predictor import columns
from ..model.scaling import AS_IT_IS, Scaling
from ..training import split
from ..training.boosting import Matrix, scaled

#: The number of reports per trial, at each of which it may be stopped early.
REPORTS = 10
#: The share of training rows for validation without cross-validation.
VALIDATION_FRACTION = 0.25

Status = Literal["complete", "stopped early", "failed", "not finished"]


@dataclasses.dataclass(frozen=True)
class Trial:
    """The outcome of one combination.

    Attributes:
        number: the combination's index, from 0.
        params: the combination.
        status: ``stopped early`` has a score, from fewer rounds than planned.
        score: the last report's score; None without a report.
        rounds: the completed boosting rounds.
        seconds: its duration.
        error: why it failed.
    """

    number: int
    params: dict[str, Any]
    status: Status
    score: float | None
    rounds: int
    seconds: float
    error: str | None = None


@dataclasses.dataclass(frozen=True)
class Problem:
    """What all trials of a search share.

    Attributes:
        rows: all training rows.
        folds: for each fold, which rows are for validation.
        classes: the number of classes; 0 for regression.
        settings: XGBoost's parameters, to which a combination adds.
        metric: the deciding metric.
        rounds: boosting rounds if a combination gives none.
        scaling: how the target of a regression became the numbers in ``rows``.
    """

    rows: Matrix
    folds: tuple[NDArray[np.bool_], ...]
    classes: int
    settings: dict[str, Any]
    metric: str
    rounds: int
    scaling: Scaling = AS_IT_IS

    @property
    def direction(self) -> Literal["max", "min"]:
        """Return whether more or less of the metric is better."""
        return "min" if self.metric in metrics.LOWER_IS_BETTER else "max"


def divide(rows: int, seed: int, folds: int, classes: NDArray[np.int64] | None) -> tuple[Any, ...]:
    """Choose each fold's validation rows; the rows held out for the final score are not among them.

    Args:
        rows: the number of training rows.
        seed: the caller's seed.
        folds: parts of cross-validation; 0 for one part of :data:`VALIDATION_FRACTION`.
        classes: class number per row.
    """
    if folds:
        fold = split.folds(rows, seed + 1, folds, classes)
        return tuple(fold == number for number in range(folds))
    return (split.holdout_mask(rows, seed + 1, VALIDATION_FRACTION, classes),)


def rounds_of(problem: Problem, params: Mapping[str, Any]) -> int:
    """Return the boosting rounds for a combination."""
    return int(params.get("n_estimators", problem.rounds))


def scores(problem: Problem, params: dict[str, Any]) -> Iterator[tuple[int, float]]:
    """Train one model per fold, and yield rounds and mean score at every report.

    The models are trained in step, so that a trial can be stopped when its mean falls behind.

    Raises:
        ValueError: the metric is not defined on the validation rows.
    """
    settings = {**problem.settings}
    settings |= scaled(
        {name: value for name, value in params.items() if name != "n_estimators"}, problem.scaling
    )
    settings.pop("num_partitions", None)
    if settings.get("max_depth", 6) is None:
        settings["max_depth"] = 6
    pairs = []
    for tested in problem.folds:
        train, valid = _part(problem.rows, ~tested), _part(problem.rows, tested)
        data = train.data()
        booster = xgboost.Booster(settings, [data])
        truth = problem.scaling.undo(valid.y.astype(np.float64))
        pairs.append((booster, data, valid.data(), truth))
    total = rounds_of(problem, params)
    step = math.ceil(total / REPORTS)
    for end in [*range(step, total, step), total]:
        for done in range(max(0, (math.ceil(end / step) - 1) * step), end):
            for booster, data, _, _ in pairs:
                booster.update(data, done)
        found = [_score(problem, booster, valid, y) for booster, _, valid, y in pairs]
        yield end, float(np.mean(found))


def _part(rows: Matrix, chosen: NDArray[np.bool_]) -> Matrix:
    return Matrix(rows.x[chosen], rows.y[chosen], rows.names, rows.types)


def _score(
    problem: Problem,
    booster: xgboost.Booster,
    valid: xgboost.DMatrix,
    truth: NDArray[np.float64],
) -> float:
    answers = columns(booster.predict(valid), problem.classes, problem.scaling)
    score = metrics.classification if problem.classes else metrics.regression
    value = score(truth, answers)[problem.metric]
    if value is None:
        message = f"{problem.metric} is not defined on these validation rows"
        raise ValueError(message)
    return value


def run(
    problem: Problem,
    number: int,
    params: dict[str, Any],
    go_on: Any = None,  # noqa: ANN401
) -> Trial:
    """Run one trial in this process.

    Args:
        problem: what all trials share.
        number: the combination's index.
        params: the combination.
        go_on: called with rounds and score after each report; False stops the trial.
    """
    started, rounds, score = time.monotonic(), 0, None
    status: Status = "complete"
    error = None
    try:
        for rounds, score in scores(problem, params):
            if (
                go_on is not None
                and not go_on(rounds, score)
                and rounds < rounds_of(problem, params)
            ):
                status = "stopped early"
                break
    except (ValueError, xgboost.core.XGBoostError) as problem_found:
        status, error = "failed", str(problem_found).strip().splitlines()[0]
    return Trial(number, params, status, score, rounds, time.monotonic() - started, error)


def ranked(trials: list[Trial], direction: str) -> list[Trial]:
    """Sort trials, best first: complete ones, then by score; failed ones last."""
    sign = -1.0 if direction == "max" else 1.0

    def key(trial: Trial) -> tuple[int, float, int]:
        order = {"complete": 0, "stopped early": 1}.get(trial.status, 2)
        usable = trial.score is not None and math.isfinite(trial.score)
        return order if usable else 3, sign * (trial.score or 0.0) if usable else 0.0, trial.number

    return sorted(trials, key=key)

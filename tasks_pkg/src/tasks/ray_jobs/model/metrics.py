"""Held-out metrics by their textbook definitions; tests compare them with scikit-learn."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: For these metrics, less is better.
LOWER_IS_BETTER = frozenset({"log_loss", "rmse", "mae"})
CLASSIFICATION = ("accuracy", "f1", "log_loss", "roc_auc")
REGRESSION = ("r2", "rmse", "mae")


def chosen(wanted: str | None, classes: Sequence[object]) -> str:
    """Return the deciding metric: the requested one, otherwise accuracy or r2."""
    return wanted or ("accuracy" if classes else "r2")


def classification(truth: Floats, probabilities: Floats) -> dict[str, float | None]:
    """Score class probabilities.

    Args:
        truth: class number per row.
        probabilities: one column per class.

    Returns:
        ``accuracy``; ``f1`` (of the second class when there are two, else the plain mean over
        the classes); ``log_loss`` (natural logarithm); ``roc_auc`` (two classes, else None, as
        it also is when the rows hold one class alone).
    """
    guess = probabilities.argmax(axis=1)
    number = probabilities.shape[1]
    own = np.clip(probabilities[np.arange(len(truth)), truth.astype(np.int64)], 1e-15, 1.0)
    seen = [1] if number == 2 else sorted({*truth.astype(int), *guess})  # noqa: PLR2004
    return {
        "accuracy": float((guess == truth).mean()),
        "f1": float(np.mean([_f1(truth == label, guess == label) for label in seen])),
        "log_loss": float(-np.log(own).mean()),
        "roc_auc": roc_auc(truth, probabilities[:, 1]) if number == 2 else None,  # noqa: PLR2004
    }


def _f1(truth: NDArray[np.bool_], guess: NDArray[np.bool_]) -> float:
    total = int(truth.sum()) + int(guess.sum())
    return 2.0 * int((truth & guess).sum()) / total if total else 0.0


def roc_auc(truth: Floats, scores: Floats) -> float | None:
    """Return the probability that a row of class 1 scores above one of class 0 (Mann-Whitney)."""
    positive = truth == 1
    ones, zeros = int(positive.sum()), int((~positive).sum())
    if not ones or not zeros:
        return None
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]  # ties share their mean rank
    return float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def regression(truth: Floats, guess: Floats) -> dict[str, float | None]:
    """Score numbers: ``r2`` (None when all true values are equal), ``rmse`` and ``mae``."""
    deviation, residual = truth - truth.mean(), truth - guess
    # The squares of very small or large numbers would be zero or infinite.
    unit = float(np.abs(deviation).max()) or 1.0
    spread = float(((deviation / unit) ** 2).sum())
    squares = (residual / unit) ** 2
    return {
        "r2": 1.0 - float(squares.sum()) / spread if spread > 0 else None,
        "rmse": unit * float(np.sqrt(squares.mean())),
        "mae": float(np.abs(residual).mean()),
    }


def of_constant(learnt: Floats, truth: Floats, classes: int) -> dict[str, float | None]:
    """Score a constant answer: the mean, or the most frequent class with its share.

    Args:
        learnt: the targets of the training rows.
        truth: the targets of the rows that are scored.
        classes: the number of classes; 0 for regression.
    """
    if not classes:
        return regression(truth, np.full(len(truth), learnt.mean()))
    shares = np.bincount(learnt.astype(np.int64), minlength=classes) / len(learnt)
    return classification(truth, np.tile(shares, (len(truth), 1)))


def rounded(metrics: dict[str, float | None]) -> dict[str, Any]:
    """Return each metric rounded by :func:`six_digits`."""
    return {name: six_digits(value) for name, value in metrics.items()}


def six_digits(value: float | None) -> float | None:
    """Return a metric with six digits: more would be noise, and decimals would hide 1e-9."""
    if value is None or not np.isfinite(value):
        return value
    return round(value, 6) if abs(value) >= 1 else float(f"{value:.6g}")

"""Growing one XGBoost model from rows in memory: the same call with Ray and without it."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import xgboost
from numpy.typing import NDArray

from ..job import PROGRESS_INTERVAL_SECONDS, emit
from ..model.scaling import Scaling
from ..protocol import Progress


@dataclass(frozen=True)
class Matrix:
    """Training rows in the model's numbers.

    Attributes:
        x: one row per row, NaN where missing.
        y: class number or number per row.
        names: of the features.
        types: of the features, in XGBoost's letters.
    """

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    names: list[str]
    types: list[str]

    def data(self) -> xgboost.DMatrix:
        """Return the rows as XGBoost takes them."""
        return xgboost.DMatrix(self.x, **self._described())

    def binned(self, threads: int) -> xgboost.QuantileDMatrix:
        """Return the rows to learn from in XGBoost's bins: a byte a value in place of eight.

        Args:
            threads: that bin them.
        """
        return xgboost.QuantileDMatrix(self.x, **self._described(), nthread=threads)

    def _described(self) -> dict[str, Any]:
        return {
            "label": self.y,
            "feature_names": self.names,
            "feature_types": self.types,
            "enable_categorical": True,
        }


def scaled(parameters: dict[str, Any], scaling: Scaling) -> dict[str, Any]:
    """Return XGBoost's parameters for a scaled target.

    The L1 penalty is compared with sums of residuals, so it is in the target's unit; the L2 penalty
    and the weights are not.
    """
    if "reg_alpha" not in parameters:
        return parameters
    return {**parameters, "reg_alpha": parameters["reg_alpha"] / scaling.scale}


def grow(matrix: Matrix, parameters: dict[str, Any], rounds: int, *, tell: bool) -> bytes:
    """Grow a model; inside a Ray Train worker, together with the others.

    Args:
        matrix: the rows of this process.
        parameters: XGBoost's; ``nthread`` is the number of CPUs of this process.
        rounds: boosting rounds.
        tell: whether this process reports how far it is.

    Returns:
        The model in XGBoost's UBJSON format.
    """
    callbacks = [_RoundsReported(rounds)] if tell else None
    rows = matrix.binned(parameters["nthread"])
    booster = xgboost.train(parameters, rows, num_boost_round=rounds, callbacks=callbacks)
    return bytes(booster.save_raw("ubj"))


class _RoundsReported(xgboost.callback.TrainingCallback):
    """Says how far the training is.

    Ray brings what a worker prints into the driver's log, where the submitter finds it.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.last = 0.0

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:  # noqa: ANN401, ARG002
        """Report after a round, where somebody could read it; never ask to stop."""
        now, done = time.monotonic(), epoch + 1
        if now - self.last >= PROGRESS_INTERVAL_SECONDS or done == self.total:
            self.last = now
            progress: Progress = {
                "phase": "training",
                "done": done,
                "total": self.total,
                "message": "boosting rounds",
            }
            emit({"type": "progress", "at": time.time(), "progress": progress})
        return False

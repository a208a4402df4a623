"""Train one XGBoost model on rows in memory, by the same call with and without Ray."""

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
        x: one row per training row, NaN for missing values.
        y: the class number or the number of each row.
        names: the features' names.
        types: the features' types, in XGBoost's letters.
    """

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    names: list[str]
    types: list[str]

    def data(self) -> xgboost.DMatrix:
        """Return the rows as an XGBoost matrix."""
        return xgboost.DMatrix(self.x, **self._described())

    def binned(self, threads: int) -> xgboost.QuantileDMatrix:
        """Return the training rows in XGBoost's bins: one byte per value instead of eight.

        Args:
            threads: the number of threads for the binning.
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

    The L1 penalty is compared with sums of residuals, so it has the target's unit; the L2 penalty
    and the weights have not.
    """
    if "reg_alpha" not in parameters:
        return parameters
    return {**parameters, "reg_alpha": parameters["reg_alpha"] / scaling.scale}


def grow(matrix: Matrix, parameters: dict[str, Any], rounds: int, *, tell: bool) -> bytes:
    """Train a model; inside a Ray Train worker, together with the other workers.

    Args:
        matrix: the rows of this process.
        parameters: XGBoost's parameters; ``nthread`` is this process's number of CPUs.
        rounds: boosting rounds.
        tell: whether this process reports the progress.

    Returns:
        The model in XGBoost's UBJSON format.
    """
    callbacks = [_RoundsReported(rounds)] if tell else None
    rows = matrix.binned(parameters["nthread"])
    booster = xgboost.train(parameters, rows, num_boost_round=rounds, callbacks=callbacks)
    return bytes(booster.save_raw("ubj"))


class _RoundsReported(xgboost.callback.TrainingCallback):
    """Reports the progress of the training.

    Ray copies a worker's output into the driver's log, where the submitter finds it.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.last = 0.0

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:  # noqa: ANN401, ARG002
        """Report after a round if there is a reader; never ask to stop."""
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

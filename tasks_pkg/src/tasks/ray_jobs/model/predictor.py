"""Load a model that :mod:`training.job` wrote, and predict with it; nothing in it is executed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import xgboost
from numpy.typing import NDArray

from ..files import sha256
from ..protocol import InputProblemError
from . import features, signature
from .files import MODEL, PREPROCESSING
from .scaling import Scaling


def outputs(
    booster: Any,  # noqa: ANN401 - a Booster
    x: NDArray[np.float32],
    plan: features.Plan,
    classes: int,
    scaling: Scaling,
) -> NDArray[np.float64]:
    """Return the model's output: one column per class, or numbers for regression (0 classes)."""
    data = xgboost.DMatrix(
        x,
        feature_names=plan.feature_names,
        feature_types=plan.feature_types,
        enable_categorical=True,
    )
    return columns(booster.predict(data), classes, scaling)


def columns(predicted: Any, classes: int, scaling: Scaling) -> NDArray[np.float64]:  # noqa: ANN401
    """Return XGBoost's prediction as one column per class, or the numbers for regression."""
    raw = np.asarray(predicted, dtype=np.float64)
    if classes == 2:  # noqa: PLR2004 - XGBoost returns only the second class's probability
        return np.column_stack([1.0 - raw, raw])
    return raw if classes else scaling.undo(raw)


def verify(model: signature.Model) -> None:
    """Check a model's files against its manifest, by their digests.

    Raises:
        InputProblemError: names the file that differs.
    """
    for name in (MODEL, PREPROCESSING):
        file = model.folder / name
        try:
            same = sha256(file) == model.manifest["files"][name]["sha256"]
        except (OSError, KeyError, TypeError):
            same = False
        if not same:
            raise _damaged(file)


def _damaged(file: Path) -> InputProblemError:
    return InputProblemError(
        "model_damaged",
        f"{file} is not the file that the manifest describes.",
        "Train the model again.",
    )


class Predictor:
    """A trained model with its preprocessing.

    Args:
        model: the result of :func:`model.signature.find`.

    Raises:
        InputProblemError: a file differs from the manifest, or model and preprocessing disagree
            about the columns.
    """

    def __init__(self, model: signature.Model) -> None:
        verify(model)
        folder = model.folder
        try:
            stored = json.loads((folder / PREPROCESSING).read_text())
            self.plan = features.Plan.from_json(stored["plan"])
            self.classes: list[Any] = stored["target"]["classes"]
            self.scaling = Scaling.from_json(stored.get("scaling"))
            self.booster = xgboost.Booster(model_file=folder / MODEL)
        except (ValueError, KeyError, TypeError):  # XGBoost's error is a ValueError
            raise InputProblemError(
                "model_foreign",
                f"{folder} holds files that its manifest describes, but that are no model of ours.",
                "Train the model again; models from elsewhere, such as pickles, are not loaded.",
            ) from None
        if self.plan.roles != model.types:
            raise _damaged(folder / PREPROCESSING)

    def answers(self, frame: pl.DataFrame) -> NDArray[np.float64]:
        """Return :func:`outputs` for every row of ``frame``."""
        x = features.transform(frame, self.plan)
        return outputs(self.booster, x, self.plan, len(self.classes), self.scaling)

    def predict(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Predict every row of ``frame``.

        Returns:
            ``prediction``, and for classes ``probability`` of the predicted class.
        """
        answers = self.answers(frame)
        if not self.classes:
            return pl.DataFrame({"prediction": answers})
        best = answers.argmax(axis=1)
        return pl.DataFrame(
            {
                "prediction": [self.classes[code] for code in best],
                "probability": answers.max(axis=1),
            }
        )

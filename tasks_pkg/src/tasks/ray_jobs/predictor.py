"""Loads a model that :mod:`train` wrote, and predicts with it. Nothing in it is executed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import xgboost
from numpy.typing import NDArray

from . import features
from .artefacts import MANIFEST
from .files import sha256
from .models import MODEL, PREPROCESSING
from .protocol import InputProblemError


def outputs(booster: Any, x: NDArray[np.float32], plan: features.Plan, classes: int) -> Any:  # noqa: ANN401
    """Give the model's answers: one column per class, or the numbers for regression (0 classes)."""
    data = xgboost.DMatrix(
        x,
        feature_names=plan.feature_names,
        feature_types=plan.feature_types,
        enable_categorical=True,
    )
    raw = np.asarray(booster.predict(data), dtype=np.float64)
    if classes == 2:  # noqa: PLR2004 - XGBoost gives the second class's probability alone
        return np.column_stack([1.0 - raw, raw])
    return raw


class Predictor:
    """A trained model with its preprocessing.

    Args:
        folder: the model's folder, as the result's ``model_path`` names it.

    Raises:
        InputProblemError: no manifest, or a file is not the one that the manifest describes.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self.manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        except (OSError, ValueError):
            raise InputProblemError(
                "model_missing",
                f"{folder} holds no readable {MANIFEST}, so no finished model.",
                "Name a model_path from a training's result.",
            ) from None
        for name in (MODEL, PREPROCESSING):
            if sha256(folder / name) != self.manifest["files"][name]["sha256"]:
                raise InputProblemError(
                    "model_damaged",
                    f"{folder / name} is not the file that the manifest describes.",
                    "Train the model again.",
                )
        stored = json.loads((folder / PREPROCESSING).read_text())
        self.plan = features.Plan.from_json(stored["plan"])
        self.classes: list[Any] = stored["target"]["classes"]
        self.booster = xgboost.Booster(model_file=folder / MODEL)

    def predict(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Predict every row of ``frame``.

        Returns:
            ``prediction``, and for classes ``probability`` of the predicted one.
        """
        x = features.transform(frame, self.plan)
        answers = outputs(self.booster, x, self.plan, len(self.classes))
        if not self.classes:
            return pl.DataFrame({"prediction": answers})
        best = answers.argmax(axis=1)
        return pl.DataFrame(
            {
                "prediction": [self.classes[code] for code in best],
                "probability": answers.max(axis=1),
            }
        )

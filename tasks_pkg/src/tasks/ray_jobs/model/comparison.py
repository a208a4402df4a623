"""Score a model on rows that are also used to score another model."""

from typing import Any

import numpy as np
import polars as pl

from . import metrics
from .predictor import Predictor
from .signature import Model


def score(model: Model, rows: pl.DataFrame, metric: str) -> float | None:
    """Score a model on rows with known targets; unknown classes get no probability.

    A column that was added after the rows were chosen is missing in them.

    Args:
        model: a model of celray.
        rows: rows with the model's target.
        metric: a metric of the model's kind.

    Returns:
        The metric to six digits; None if it is not defined on these rows.

    Raises:
        InputProblemError: the model is damaged.
    """
    predictor = Predictor(model)
    truth = rows[model.manifest["signature"]["output"]["name"]]
    later = [name for name in model.needed if name not in rows.columns]
    answers = predictor.answers(rows.with_columns(pl.lit(None).alias(name) for name in later))
    if not predictor.classes:
        numbers = truth.cast(pl.Float64, strict=False)
        known = (numbers.is_not_null() & numbers.is_finite()).fill_null(value=False).to_numpy()
        found = metrics.regression(numbers.to_numpy()[known], answers[known])
        return metrics.rounded(found).get(metric)
    labels = [_label(value) for value in truth]
    own = [_label(value) for value in predictor.classes]
    classes = [*own, *sorted(set(labels) - set(own))]
    aligned = np.zeros((len(labels), len(classes)))
    aligned[:, : len(own)] = answers
    codes = np.array([classes.index(label) for label in labels], dtype=np.float64)
    return metrics.rounded(metrics.classification(codes, aligned)).get(metric)


def _label(value: Any) -> str:  # noqa: ANN401 - a cell
    """Return a label as text in which 3 and 3.0 are the same."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)

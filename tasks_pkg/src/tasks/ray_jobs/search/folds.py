"""Choose the number of cross-validation folds so that every fold can be scored."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..protocol import InputProblemError

#: Metrics of two classes that are meaningless if a fold tests only one of them.
OF_BOTH = ("f1", "roc_auc")
#: One part for training and one for validation; of each class, one row in both.
LEAST = 2
_SHOWN_LABELS = 10


def folds(
    wanted: int,
    rows: int,
    labels: Sequence[Any],
    classes: NDArray[np.int64] | None,
    metric: str,
) -> tuple[int, list[str]]:
    """Return the number of folds that the rows allow, at most ``wanted``, and warnings.

    Args:
        wanted: the caller's number; 0 validates on one part of the training rows.
        rows: the number of training rows.
        labels: the classes' labels, by class number; none for regression.
        classes: class number per training row; None for regression.
        metric: the metric that ranks the trials.

    Raises:
        InputProblemError: there are too few rows to validate on.
    """
    counts = [rows] if classes is None else np.bincount(classes, minlength=len(labels)).tolist()
    most, why = _most(counts, labels, metric)
    if most < LEAST:
        raise InputProblemError(
            "too_few_rows",
            f"No trial can be validated by {metric}: {why}.",
            "Bring more rows, lower test_fraction, or choose another metric.",
        )
    used = min(wanted, most)
    warnings = [f"folds lowered from {wanted} to {used}: {why}"] if used < wanted else []
    least = used or LEAST
    rare = [f"{label!r} ({n})" for label, n in zip(labels, counts, strict=False) if n < least]
    if rare:
        shown = ", ".join(rare[:_SHOWN_LABELS]) + (", ..." if len(rare) > _SHOWN_LABELS else "")
        warnings.append(
            f"classes with fewer than {least} training rows are learnt from, and not validated on:"
            f" {shown}"
        )
    return used, warnings


def _most(counts: list[int], labels: Sequence[Any], metric: str) -> tuple[int, str]:
    """Return the largest number of folds that can all be scored, and the reason for this limit."""
    if not labels:
        each = LEAST if metric == "r2" else 1  # a variance takes two rows
        return counts[0] // each, f"there are {counts[0]} training rows"
    decides = min if len(labels) == 2 and metric in OF_BOTH else max  # noqa: PLR2004
    most = decides(counts)
    which = "rarest" if decides is min else "most frequent"
    return most, f"{labels[counts.index(most)]!r}, the {which} class, has {most} training rows"

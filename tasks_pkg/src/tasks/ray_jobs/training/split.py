"""Choose the held-out rows by row number and seed, before anything else is done.

The number of workers plays no part, so that the same seed gives the same hold-out on one machine
and on twenty.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def row_keys(rows: int, seed: int) -> NDArray[np.uint64]:
    """Return a key for every row number that looks random and is the same everywhere.

    This is SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators,
    OOPSLA 2014), started at ``seed`` and stepped ``row`` times.
    """
    golden, first, second = (
        np.uint64(0x9E3779B97F4A7C15),
        np.uint64(0xBF58476D1CE4E5B9),
        np.uint64(0x94D049BB133111EB),
    )
    start = np.uint64((seed * int(golden) + 1) % (1 << 64))
    with np.errstate(over="ignore"):
        z = start + np.arange(1, rows + 1, dtype=np.uint64) * golden
        z = (z ^ (z >> np.uint64(30))) * first
        z = (z ^ (z >> np.uint64(27))) * second
        return np.asarray(z ^ (z >> np.uint64(31)), dtype=np.uint64)


def _members(rows: int, classes: NDArray[np.int64] | None) -> Iterator[NDArray[np.intp]]:
    """Yield each class's row numbers; without classes, those of all rows at once."""
    groups = np.zeros(rows, dtype=np.int64) if classes is None else classes
    for group in np.unique(groups):
        yield np.flatnonzero(groups == group)


def holdout_mask(
    rows: int, seed: int, fraction: float, classes: NDArray[np.int64] | None = None
) -> NDArray[np.bool_]:
    """Choose the held-out rows.

    Args:
        rows: number of rows.
        seed: any whole number.
        fraction: share of the rows to hold out, 0 to 1.
        classes: class number per row; then this share of each class is held out, at least one row
            and never all of them. A class with a single row stays in training.

    Returns:
        True where a row is held out.
    """
    keys = row_keys(rows, seed)
    mask = np.zeros(rows, dtype=np.bool_)
    for members in _members(rows, classes):
        count = min(max(round(len(members) * fraction), 1), len(members) - 1)
        # Those with the smallest keys, of which no two are equal; their order does not matter.
        mask[members[np.argpartition(keys[members], count)[:count]]] = True
    return mask


#: The fold of rows that are never tested.
IN_NO_FOLD = -1


def folds(
    rows: int, seed: int, number: int, classes: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Return for every row the fold that tests it, 0 to ``number - 1``, classes spread evenly.

    Args:
        rows: number of rows.
        seed: any whole number.
        number: of folds, at least 2.
        classes: class number per row; a class with fewer rows than folds is learnt from in all
            folds and tested in none (:data:`IN_NO_FOLD`).
    """
    keys = row_keys(rows, seed)
    fold = np.full(rows, IN_NO_FOLD, dtype=np.int64)
    start = 0  # where the last class ended, so that fold sizes differ by one row at most
    for members in _members(rows, classes):
        if classes is not None and len(members) < number:
            continue
        order = members[np.argsort(keys[members], kind="stable")]
        fold[order] = (start + np.arange(len(members))) % number
        start += len(members)
    return fold

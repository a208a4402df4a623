"""Centres and scales numbers in float64, so that they survive float32, in which XGBoost computes.

float32 has 24 bits: at 1.7e9 (Unix seconds) its neighbours are 128 apart, at 1.7e12 131,072. A
column whose values differ by less is constant to XGBoost, and it does not say so.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: So many values of a column show what float32 makes of it.
SAMPLE = 10_000
#: A column is fine where at least this share of its different values stays different.
FINE = 0.99
#: The largest value that XGBoost takes; what is beyond is missing to it.
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Scaling:
    """``(value - offset) / scale``, as the model sees a value.

    Attributes:
        offset: what becomes 0. Of a column of whole numbers it is one too, and is subtracted
            before they become floating point, which keeps them only up to 2 ** 53.
        scale: of a feature a power of two, so that it rounds nothing.
    """

    offset: float = 0.0
    scale: float = 1.0

    def apply(self, values: Floats) -> Floats:
        """Return the model's numbers for ``values``; the same array where nothing changes."""
        if self.offset:
            values = values - self.offset
        return values if self.scale == 1.0 else values / self.scale

    def undo(self, numbers: Floats) -> Floats:
        """Return the values that the model's ``numbers`` stand for."""
        return numbers if self == AS_IT_IS else numbers * self.scale + self.offset

    def as_json(self) -> dict[str, float]:
        """Return the fields as they are stored."""
        return {"offset": self.offset, "scale": self.scale}

    @classmethod
    def from_json(cls, stored: dict[str, Any] | None) -> "Scaling":
        """Read what was stored; models of earlier releases have none, and change nothing."""
        return cls() if stored is None else cls(stored["offset"], stored["scale"])


#: What leaves every number as it is.
AS_IT_IS = Scaling()


def of_target(values: Floats) -> Scaling:
    """Return what gives the targets of a regression the mean 0 and the standard deviation 1.

    A squared error is a square: unscaled, those of 1e-30 vanish in float32 and those of 1e30 are
    infinite. Scaling changes no tree, as long as ``reg_alpha`` is scaled too.
    """
    mean = float(values.mean())
    residual = values - mean
    widest = float(np.abs(residual).max())
    if widest == 0.0:  # every row to learn from has the same target
        return Scaling(mean, 1.0)
    deviation = widest * float(np.sqrt(np.mean((residual / widest) ** 2)))  # no square vanishes
    return Scaling(mean, deviation)


def of_feature(values: Floats) -> tuple[Scaling, float]:
    """Return how a column is centred and scaled, and the share of different values that it keeps.

    A column that float32 keeps apart is left as it is: the trees are then the same, and the
    numbers in them are those of the table.

    Args:
        values: of the rows to learn from; NaN is missing.
    """
    sample = np.unique(values[:: max(1, len(values) // SAMPLE)])
    sample = sample[np.isfinite(sample)]
    if not len(sample):
        return AS_IT_IS, 1.0
    best, most = AS_IT_IS, _kept(AS_IT_IS, sample)
    # What lies around zero is best kept by floating point itself; else the middle is.
    for offset in (0.0, float(sample[len(sample) // 2])) if most < FINE else ():
        with np.errstate(over="ignore"):
            scaling = Scaling(offset, _power_of_two(sample - offset))
            kept = _kept(scaling, sample)
        if kept > most:
            best, most = scaling, kept
    return best, most


def _kept(scaling: Scaling, sample: Floats) -> float:
    """Return the share of different values that float32 keeps different."""
    numbers = scaling.apply(sample)
    usable = numbers[np.abs(numbers) < LARGEST].astype(np.float32)
    # XGBoost takes numbers below float32's normal ones for zero on some processors.
    usable[np.abs(usable) < np.finfo(np.float32).tiny] = 0.0
    return len(np.unique(usable)) / len(sample)


def _power_of_two(values: Floats) -> float:
    """Return the power of two next to the largest of ``values``."""
    largest = float(np.abs(values).max())
    return math.ldexp(1.0, math.frexp(largest)[1] - 1) if largest else 1.0

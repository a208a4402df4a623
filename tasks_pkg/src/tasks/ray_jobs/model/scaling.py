"""Centre and scale numbers in float64, so that they stay distinct in XGBoost's float32.

float32 has 24 bits: at 1.7e9 (Unix seconds) its neighbours are 128 apart, at 1.7e12 131,072. A
column whose values differ by less is constant to XGBoost, which gives no warning.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: The number of a column's values on which the effect of float32 is measured.
SAMPLE_VALUES = 10_000
#: A column needs no scaling if at least this share of its different values stays different.
FINE = 0.99
#: The largest value that XGBoost accepts; larger ones count as missing.
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Scaling:
    """``(value - offset) / scale``: from a column's value to the model's number.

    Attributes:
        offset: the value that becomes 0. For a column of whole numbers it is a whole number,
            subtracted before the conversion to floating point, which is exact only up to 2 ** 53.
        scale: for a feature a power of two, so that no value is rounded.
    """

    offset: float = 0.0
    scale: float = 1.0

    def apply(self, values: Floats) -> Floats:
        """Return the model's numbers for ``values``; the same array if nothing changes."""
        if self.offset:
            values = values - self.offset
        return values if self.scale == 1.0 else values / self.scale

    def undo(self, numbers: Floats) -> Floats:
        """Return the values for the model's ``numbers``."""
        return numbers if self == AS_IT_IS else numbers * self.scale + self.offset

    def as_json(self) -> dict[str, float]:
        """Return the fields in their stored form."""
        return {"offset": self.offset, "scale": self.scale}

    @classmethod
    def from_json(cls, stored: dict[str, Any] | None) -> "Scaling":
        """Read a stored scaling; models of earlier releases have none, so nothing is scaled."""
        return cls() if stored is None else cls(stored["offset"], stored["scale"])


#: The scaling that changes nothing.
AS_IT_IS = Scaling()


def of_target(values: Floats) -> Scaling:
    """Return the scaling that gives a regression's targets mean 0 and standard deviation 1.

    Squared errors are why: unscaled, those of targets near 1e-30 vanish in float32, and those near
    1e30 are infinite. Scaling changes no tree, as long as ``reg_alpha`` is scaled too.
    """
    mean = float(values.mean())
    residual = values - mean
    widest = float(np.abs(residual).max())
    if widest == 0.0:  # every row to learn from has the same target
        return Scaling(mean, 1.0)
    deviation = widest * float(np.sqrt(np.mean((residual / widest) ** 2)))  # no square vanishes
    return Scaling(mean, deviation)


def of_feature(values: Floats) -> tuple[Scaling, float]:
    """Return a column's scaling, and the share of its different values that it keeps.

    A column whose values stay different in float32 is not scaled: the trees are then the same, and
    the numbers in them are those of the table.

    Args:
        values: the values of the training rows; NaN is missing.
    """
    sample = np.unique(values[:: max(1, len(values) // SAMPLE_VALUES)])
    sample = sample[np.isfinite(sample)]
    if not len(sample):
        return AS_IT_IS, 1.0
    best, most = AS_IT_IS, _kept(AS_IT_IS, sample)
    # Values around zero are represented best unshifted; otherwise the middle becomes zero.
    for offset in (0.0, float(sample[len(sample) // 2])) if most < FINE else ():
        with np.errstate(over="ignore"):
            scaling = Scaling(offset, _power_of_two(sample - offset))
            kept = _kept(scaling, sample)
        if kept > most:
            best, most = scaling, kept
    return best, most


def _kept(scaling: Scaling, sample: Floats) -> float:
    """Return the share of different values that stay different in float32."""
    numbers = scaling.apply(sample)
    usable = numbers[np.abs(numbers) < LARGEST].astype(np.float32)
    # On some processors XGBoost treats float32's subnormal numbers as zero.
    usable[np.abs(usable) < np.finfo(np.float32).tiny] = 0.0
    return len(np.unique(usable)) / len(sample)


def _power_of_two(values: Floats) -> float:
    """Return the power of two nearest to the largest of ``values``."""
    largest = float(np.abs(values).max())
    return math.ldexp(1.0, math.frexp(largest)[1] - 1) if largest else 1.0

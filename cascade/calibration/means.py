"""Testing a mean of values that have a largest one: p-value and upper bound, in the values' own unit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cascade.calibration.bounds import p_value_of_mean

__all__ = ["Mean"]

HALVINGS = 40


@dataclass(frozen=True, eq=False)
class Mean:
    """Values from 0 to `most`, in an order that does not depend on them.

    Attributes:
        values: shape `(n,)`.
        most: that a value can be; fixed before these were seen.
        level: of the test.
    """

    values: npt.NDArray[np.float64]
    most: float
    level: float

    @property
    def mean(self) -> float:
        """Of the values."""
        return float(self.values.mean())

    def p_value(self, bound: float) -> float:
        """Of "the mean is at least `bound`"; 0 where no value reaches so far."""
        if bound >= self.most:
            return 0.0
        return p_value_of_mean(self.values / self.most, bound / self.most, level=self.level)

    def upper(self) -> float:
        """The least bound that passes at the level, by bisection: p-values fall as the bound rises."""
        low, high = 0.0, self.most
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if self.p_value(middle) <= self.level else (middle, high)
        return high

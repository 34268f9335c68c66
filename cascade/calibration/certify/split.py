"""Which examples choose a path, and which test it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cascade.calibration.certify.bounds import examples_needed
from cascade.calibration.certify.claims import Claim, Unit
from cascade.core.rows import IntArray
from cascade.exceptions import DataError

CHOOSERS = 10  # examples that choose, at least, where the test needs nearly all
SHARES = {Unit.TEXT: (20, 0.2, 5000), Unit.SENTENCE: (10, 0.3, 500)}
"""By what is counted: distinct examples at least, as fewer say nothing; the share that chooses, and its most."""


@dataclass(frozen=True, eq=False)
class Split:
    """Both shares, numbers of examples, shape `(choosing,)` and `(testing,)`. Make it with `Split.of`.

    `chosen`: share that chooses, as far as `most` allows: so many at most, as more would change a path hardly.
    """

    choosers: IntArray
    testers: IntArray
    chosen: float
    most: int

    @classmethod
    def of(cls, total: int, claim: Claim, *, seed: int) -> Split:
        """Draw both shares of so many examples by a seed: a fifth of the texts chooses, three tenths of the sentences.

        Where examples are few, more of them test, if so many are needed to show the claim without a single event. Too
        few (`SHARES`) are a `DataError`.
        """
        least, chosen, most = SHARES[claim.unit]
        needed = examples_needed(claim.ask.bound, confidence=1 - claim.level)
        if total < least:
            raise DataError(
                f"there must be at least {least} distinct examples, got {total}; a bound of {claim.ask.bound:g} at "
                f"{100 * claim.confidence:.4g} % takes {needed:,} for the test alone"
            )
        count = min(max(round(chosen * total), 1), most, total - 1)
        if total - count < needed <= total - CHOOSERS:
            count = total - needed
        order = np.random.default_rng(seed).permutation(total).astype(np.int64)
        return cls(order[:count], order[count:], chosen, most)

    def in_all(self, testers: float) -> int:
        """Examples of both shares, if so many have to test."""
        return math.ceil(testers) + min(self.most, math.ceil(testers * self.chosen / (1 - self.chosen) - 1e-9))

"""Which answers a monitor samples."""

from __future__ import annotations

from typing import Final

import numpy as np

from cascade.core.checks import check_share, check_whole
from cascade.exceptions import OptionError

REMEDY: Final = "0.01 compares every hundredth answer"


class Sampler:
    """Draws which answers are sampled: one random number for each, whatever it says and however answers come."""

    def __init__(self, *, share: float, seed: int) -> None:
        """Begin to draw. An impossible share or seed is an `OptionError`."""
        self.share = check_share("share", share, REMEDY)
        if not self.share:
            raise OptionError(f"share must be above 0, got {share!r}; {REMEDY}")
        self._random = np.random.default_rng(check_whole("seed", seed, "0 is usual", least=0))

    def draw(self, count: int) -> list[int]:
        """Which of the next `count` answers are sampled, from 0."""
        sampled: list[int] = np.flatnonzero(self._random.random(count) < self.share).tolist()
        return sampled

"""Which answers a monitor samples."""

from __future__ import annotations

from typing import Final

import numpy as np

from cascade.core.checks import check_share, check_whole
from cascade.core.rows import Doubles
from cascade.exceptions import OptionError

REMEDY: Final = "0.01 compares every hundredth answer"
BLOCK: Final = 4096  # random numbers drawn at once; one by one they would cost as much as an answer of tier 1


class Sampler:
    """Draws which answers are sampled: one random number for each, whatever it says and however answers come."""

    def __init__(self, *, share: float, seed: int) -> None:
        """Begin to draw. An impossible share or seed is an `OptionError`."""
        self.share = check_share("share", share, REMEDY)
        if not self.share:
            raise OptionError(f"share must be above 0, got {share!r}; {REMEDY}")
        self._random = np.random.default_rng(check_whole("seed", seed, "0 is usual", least=0))
        self._block: Doubles = np.zeros(0)
        self._used = 0

    def draw(self, count: int) -> list[int]:
        """Which of the next `count` answers are sampled, from 0."""
        self._reserve(count)
        numbers = self._block[self._used : self._used + count]
        self._used += count
        sampled: list[int] = np.flatnonzero(numbers < self.share).tolist()
        return sampled

    def draw_one(self) -> bool:
        """Whether the next answer is sampled; as `draw`, for streams."""
        self._reserve(1)
        self._used += 1
        return self._block.item(self._used - 1) < self.share

    def _reserve(self, count: int) -> None:
        """Have `count` random numbers ready."""
        left = len(self._block) - self._used
        if left < count:
            self._block = np.concatenate((self._block[self._used :], self._random.random(max(BLOCK, count - left))))
            self._used = 0

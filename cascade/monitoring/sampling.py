"""Which answers a monitor samples, and what of them is compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from cascade.core.checks import check_share, check_whole
from cascade.core.results import Label, Prediction, TagPrediction
from cascade.core.rows import Doubles, IntArray
from cascade.exceptions import OptionError

REMEDY: Final = "0.01 compares every hundredth answer"

BLOCK: Final = 4096  # random numbers drawn at once; one by one they would cost as much as an answer of tier 1


@dataclass(frozen=True)
class ShadowSample:
    """A sampled answer that waits for tier 2.

    `number`: of the text or sentence, from 1; `given`: what was answered; `word`: which is compared; `None`: all.
    """

    number: int
    given: Any
    answer: Prediction | TagPrediction
    word: int | None

    def differs(self, again: Prediction | TagPrediction) -> bool:
        """Whether another answer is not the same."""
        return self._compared(self.answer) != self._compared(again)

    def _compared(self, answer: Prediction | TagPrediction) -> Label | list[str]:
        if isinstance(answer, Prediction):
            return answer.label
        return answer.tags if self.word is None else answer.tags[self.word]


class Sampler:
    """Draws which answers are sampled: one random number for each, whatever it says and however answers come.

    `by_word`: one word is compared, and sentences are drawn by their numbers of words, so that all words have the same
    chance, the `share`. A sentence is drawn once at most: words of one longer than `1 / share` have less.
    """

    def __init__(self, *, share: float, by_word: bool, seed: int) -> None:
        """Begin to draw. An impossible share or seed is an `OptionError`."""
        self.share = check_share("share", share, REMEDY)
        if not self.share:
            raise OptionError(f"share must be above 0, got {share!r}; {REMEDY}")
        self.by_word = by_word
        self._random = np.random.default_rng(check_whole("seed", seed, "0 is usual", least=0))
        self._block: Doubles = np.zeros(0)
        self._used = 0

    def draw(self, words: IntArray) -> Iterator[tuple[int, int | None]]:
        """The next answers that are sampled: row, and which of its words is compared (`None`: the whole).

        `words`: of each answer; only their number counts if not `by_word`. Shape `(answers,)`.
        """
        self._reserve(len(words))
        numbers = self._block[self._used : self._used + len(words)]
        self._used += len(words)
        if not self.by_word:
            for row in np.flatnonzero(numbers < self.share).tolist():
                yield row, None
            return
        chances = np.minimum(self.share * words, 1)
        rows = np.flatnonzero(numbers < chances)
        # The number of a sentence that was drawn is uniform below its chance, so it picks the word as well.
        places = (numbers[rows] / chances[rows] * words[rows]).astype(np.int64)
        yield from zip(rows.tolist(), places.tolist(), strict=True)

    def draw_one(self, words: int) -> tuple[bool, int | None]:
        """Whether the next answer is sampled, and which of its `words` is compared; as `draw`, for streams."""
        self._reserve(1)
        number = self._block.item(self._used)
        self._used += 1
        chance = min(self.share * words, 1) if self.by_word else self.share
        if number >= chance:
            return False, None
        return True, int(number / chance * words) if self.by_word else None

    def _reserve(self, count: int) -> None:
        """Have `count` random numbers ready."""
        left = len(self._block) - self._used
        if left < count:
            self._block = np.concatenate((self._block[self._used :], self._random.random(max(BLOCK, count - left))))
            self._used = 0

"""Which answers a monitor samples, what is compared, and what is counted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any

import numpy as np

from cascade.core.checks import check_whole
from cascade.core.results import Label, Prediction, TagPrediction
from cascade.core.rows import BoolArray, IntArray
from cascade.exceptions import OptionError
from cascade.monitoring.sequential import Watch, check_inside, rate_bounds

__all__ = ["MonitorReport", "Sampler", "Shadow", "Tally"]


@dataclass(frozen=True, kw_only=True)
class MonitorReport:
    """What a monitor knows.

    Attributes:
        seen: texts or sentences answered in all.
        shadowed: of them, those sampled and compared since the setting last changed; of a tagger whose certificate is
            about words, words.
        disagreements: of these, those whose answer differs from that of tier 2 at full depth.
        rerun: of these, those that tier 2 had to answer once more.
        lower, upper: an interval for the rate of disagreement among all answers, valid at all times at once.
        bound: above which rate the alarm is raised; `None`: there is no alarm.
        alarm_at: the text or sentence, numbered from 1, with which it was shown that the rate is above the bound;
            `None`: it is not shown.
        alarm_after: how many were shadowed by then.
        raised: how often `safer` has changed the setting.
    """

    seen: int
    shadowed: int
    disagreements: int
    rerun: int
    lower: float
    upper: float
    bound: float | None
    alarm_at: int | None
    alarm_after: int | None
    raised: int


@dataclass(frozen=True)
class Shadow:
    """A sampled answer that waits for tier 2.

    Attributes:
        number: of the text or sentence, from 1.
        given: what was answered.
        answer: the answer.
        word: which word is compared; `None`: all of them, or the text.
    """

    number: int
    given: Any
    answer: Prediction | TagPrediction
    word: int | None

    def differs(self, again: Prediction | TagPrediction) -> bool:
        """Whether another answer is not the same."""
        return self._said(self.answer) != self._said(again)

    def _said(self, answer: Prediction | TagPrediction) -> Label | list[str]:
        if isinstance(answer, Prediction):
            return answer.label
        return answer.tags if self.word is None else answer.tags[self.word]


class Sampler:
    """Draws which answers are shadowed: one random number for each, whatever it says.

    Attributes:
        share: of the answers, or of their words.
        by_word: one word is compared, and sentences are drawn by their numbers of words, so that all words have the
            same chance. A sentence is drawn once at most: the words of one that is longer than `1 / share` have less.
    """

    def __init__(self, *, share: float, by_word: bool, seed: int) -> None:
        """Begin to draw.

        Raises:
            OptionError: a share of nothing or of more than all, or a seed that is no whole number.
        """
        self.share = _checked_share(share)
        self.by_word = by_word
        self._random = np.random.default_rng(check_whole("seed", seed, "0 is usual", least=0))

    def draw(self, words: IntArray) -> Iterator[tuple[int, int | None]]:
        """The next answers that are shadowed.

        Args:
            words: of each answer; only their number counts if not `by_word`. Shape `(answers,)`.

        Yields:
            The row of an answer, and which of its words is compared (`None`: the whole).
        """
        drawn = self._random.random(len(words))
        if not self.by_word:
            for row in np.flatnonzero(drawn < self.share).tolist():
                yield row, None
            return
        chances = np.minimum(self.share * words, 1)
        rows = np.flatnonzero(drawn < chances)
        # The number of a sentence that was drawn is uniform below its chance, so it picks the word as well.
        places = (drawn[rows] / chances[rows] * words[rows]).astype(np.int64)
        yield from zip(rows.tolist(), places.tolist(), strict=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class Tally:
    """What was counted of one setting. A value: `after` gives the next. Make one with `Tally.of`.

    Attributes:
        confidence: of the interval.
        watch: raises the alarm; `None` without a bound.
        shadowed, disagreements, rerun, alarm_at: as in `MonitorReport`.
    """

    confidence: float
    watch: Watch | None
    shadowed: int = field(default=0)
    disagreements: int = field(default=0)
    rerun: int = field(default=0)
    alarm_at: int | None = field(default=None)

    @classmethod
    def of(cls, bound: float | None, confidence: float) -> Tally:
        """Nothing yet.

        Raises:
            OptionError: an impossible value.
        """
        check_inside("confidence", confidence, "0.95 is usual")
        return cls(confidence=confidence, watch=None if bound is None else Watch(bound=bound, confidence=confidence))

    def after(self, differ: BoolArray, numbers: IntArray, *, rerun: int) -> Tally:
        """The tally after these comparisons, in the order of the answers.

        Args:
            differ: whether the answers differ. Shape `(n,)`.
            numbers: of the texts or sentences. Shape `(n,)`.
            rerun: how many of them tier 2 had to answer again.
        """
        watch, alarm_at = self.watch, self.alarm_at
        if watch is not None and watch.alarm_at is None:
            watch = watch.after(differ)
            if watch.alarm_at is not None:
                alarm_at = int(numbers[watch.alarm_at - self.shadowed - 1])
        return replace(
            self,
            watch=watch,
            shadowed=self.shadowed + len(differ),
            disagreements=self.disagreements + int(differ.sum()),
            rerun=self.rerun + rerun,
            alarm_at=alarm_at,
        )

    def report(self, *, seen: int, raised: int) -> MonitorReport:
        """The tally with its interval. `seen`, `raised`: as in `MonitorReport`."""
        lower, upper = rate_bounds(self.disagreements, self.shadowed, confidence=self.confidence)
        return MonitorReport(
            seen=seen,
            shadowed=self.shadowed,
            disagreements=self.disagreements,
            rerun=self.rerun,
            lower=float(lower),
            upper=float(upper),
            bound=None if self.watch is None else self.watch.bound,
            alarm_at=self.alarm_at,
            alarm_after=None if self.watch is None else self.watch.alarm_at,
            raised=raised,
        )


def _checked_share(share: object) -> float:
    if isinstance(share, bool) or not isinstance(share, Real) or not 0 < float(share) <= 1:
        raise OptionError(f"share must be above 0 and at most 1, was: {share!r}; 0.01 shadows every hundredth answer")
    return float(share)

"""What a monitor has counted of one setting, what is known from it, and which answers are sampled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from cascade.core.checks import check_inside, check_share, check_whole
from cascade.core.rows import BoolArray, Doubles, IntArray
from cascade.exceptions import OptionError
from cascade.monitoring.sequential import EDetector, rate_bounds
from cascade.monitoring.shift import ShiftDetector


@dataclass(frozen=True, kw_only=True, eq=False)
class MonitorState:
    """What a monitor knows. A value: `after` gives the next.

    Attributes:
        confidence: of the interval, in (0, 1).
        detector: raises the alarm; `None`: there is no bound to watch.
        seen: texts or sentences answered in all.
        shadowed: of them, those sampled and compared since the setting last changed.
        disagreements: of these, those whose answer differs from that of tier 2 at full depth.
        alarm_at: the text or sentence, numbered from 1, with which it was shown that the rate of disagreement is above
            the bound; `None`: it is not shown.
        raised: how often `safer` has changed the setting.
        shift: raises the other alarm; `None`: the bundle has no profile of its texts.
        shifted_at: the text or sentence, numbered from 1, with which it was shown that texts are of another kind than
            those of the calibration; `None`: it is not shown.
    """

    confidence: float = 0.95
    detector: EDetector | None = None
    seen: int = 0
    shadowed: int = 0
    disagreements: int = 0
    alarm_at: int | None = None
    raised: int = 0
    shift: ShiftDetector | None = None
    shifted_at: int | None = None

    def __post_init__(self) -> None:
        check_inside("confidence", self.confidence, "0.95 is usual")

    @property
    def bound(self) -> float | None:
        """The rate above which the alarm is raised."""
        return None if self.detector is None else self.detector.bound

    @property
    def interval(self) -> tuple[float, float]:
        """Limits of the rate of disagreement among all answers, valid at all times at once."""
        lower, upper = rate_bounds(self.disagreements, self.shadowed, confidence=self.confidence)
        return float(lower), float(upper)

    def looked_at(self, values: Mapping[str, Doubles], numbers: IntArray) -> MonitorState:
        """The state after some texts; `values`: see `ShiftDetector.after`; `numbers`: of the texts, shape `(n,)`."""
        if self.shift is None:
            return self
        shift = self.shift.after(values)
        at = None if shift.alarm_at is None else int(numbers[shift.alarm_at - self.shift.process.outcomes - 1])
        return replace(self, shift=shift, shifted_at=at)

    def after(self, differ: BoolArray, numbers: IntArray) -> MonitorState:
        """The state after comparisons: `differ` says which answers differ, `numbers` of which texts; shapes `(n,)`."""
        detector, alarm_at = self.detector, self.alarm_at
        if detector is not None and detector.alarm_at is None:
            detector = detector.after(differ)
            if detector.alarm_at is not None:
                alarm_at = int(numbers[detector.alarm_at - self.shadowed - 1])
        return replace(
            self,
            detector=detector,
            shadowed=self.shadowed + len(differ),
            disagreements=self.disagreements + int(differ.sum()),
            alarm_at=alarm_at,
        )


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

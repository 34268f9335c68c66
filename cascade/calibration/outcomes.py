"""What comes of a calibration, as values: something certified, or a refusal."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cascade.calibration.claims import Claim
from cascade.calibration.paths import Step
from cascade.calibration.replay import Setting
from cascade.calibration.temperature import Temperatures
from cascade.core.rows import IntArray

__all__ = ["Certified", "Figures", "Outcome", "Refused", "Tested"]


@dataclass(frozen=True)
class Tested:
    """A setting that was tested, by itself.

    Attributes:
        step: of the path.
        events: documents that count against it; of `MeanCost` those that cost more than the bound.
        rate: of the events; of `MeanCost` the mean in seconds.
        examples: documents.
        p_value: of "the bound does not hold".
        upper: one-sided bound of `rate`, at the claim's confidence.
    """

    step: Step
    events: int
    rate: float
    examples: int
    p_value: float
    upper: float


@dataclass(frozen=True)
class Figures:
    """What a setting does on the testing share.

    Attributes:
        examples: documents, or a tagger's sentences or words, of this share.
        accuracy, full_accuracy: of the setting, of tier 2 at full depth; `None` without labels, as the next three.
        drop: the second less the first.
        harms: wrong where full depth is right.
        gains: right where full depth is wrong.
        disagreements: answers that differ from full depth's.
        deferred: share of the rows.
        mean_exit: layer, of the deferred rows; 0 where there are none.
        seconds, full_seconds: a document costs on average, predicted from costs per token; of taggers measured.
        disagreement_upper: one-sided bound of the share of disagreements; `None` where that of their count serves.
    """

    examples: int
    accuracy: float | None
    full_accuracy: float | None
    drop: float | None
    harms: int | None
    gains: int | None
    disagreements: int
    deferred: float
    mean_exit: float
    seconds: float
    full_seconds: float
    disagreement_upper: float | None = None

    @property
    def speed_up(self) -> float:
        """Over tier 2 at full depth."""
        return self.full_seconds / self.seconds if self.seconds else math.inf


@dataclass(frozen=True, eq=False, kw_only=True)
class Outcome:
    """What both outcomes say.

    Attributes:
        claim: what was asked.
        method: how it was tested, in words.
        steps: the path.
        tested: of its first steps; all but perhaps the last passed.
        chosen_on, tested_on: numbers of the documents of either share.
        temperatures: of all settings of the path.
        seed: of the shares.
        warnings: what makes the guarantee doubtful, each a sentence.
    """

    claim: Claim
    method: str
    steps: tuple[Step, ...]
    tested: tuple[Tested, ...]
    chosen_on: IntArray
    tested_on: IntArray
    temperatures: Temperatures
    seed: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class Certified(Outcome):
    """Something was certified.

    Attributes:
        number: of the step that is taken.
        figures: of it.
    """

    number: int
    figures: Figures

    @property
    def step(self) -> Step:
        """The step that is taken."""
        return self.steps[self.number]

    @property
    def setting(self) -> Setting:
        """Its policies."""
        return self.step.setting

    @property
    def taken(self) -> Tested:
        """Its test."""
        return self.tested[self.number]


@dataclass(frozen=True, eq=False, kw_only=True)
class Refused(Outcome):
    """Nothing was certified.

    Attributes:
        why: a sentence without a full stop.
        examples_needed: in all, the choosing share too, as far as these can tell; `None` where no number would do.
    """

    why: str
    examples_needed: int | None

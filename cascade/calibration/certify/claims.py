"""What can be asked of a calibration: a bound on the accuracy lost, or on disagreement with the last tier.

A claim is about texts (or sentences) like those it was tested on. Its confidence is that of the procedure: of many
calibrations at 0.95, at most one in twenty certifies a bound that does not hold.

    MaxDrop(0.01)       accuracy at most a point below tier 2's at full depth: harm is tested, which bounds the drop
    Agreement(0.01)     the answer differs from tier 2's at full depth in at most one of a hundred; needs no labels
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from typing import Any, ClassVar, TypeAlias

from cascade.core.checks import check_inside, check_whole

FULL = "tier 2 at full depth"  # of two tiers, see `Claim.of_tiers`
ORIGINAL = "the original model"
FIRST = 0.8  # of the error, that the first question about some examples gets where questions are counted


class Unit(Enum):
    """What is counted: texts, or the sentences of a tagger."""

    TEXT = "text"
    SENTENCE = "sentence"


@dataclass(frozen=True)
class _Bound:
    """What both ways of asking share: a bound of a rate, in (0, 1); with `per_class` for each label separately."""

    bound: float = 0.01
    per_class: bool = field(default=False, kw_only=True)
    needs_labels: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "bound", check_inside("the bound", self.bound, "0.01 is one of a hundred"))

    def to_json(self) -> dict[str, Any]:
        """A plain dict: the name under `ask`, and the fields."""
        return {"ask": type(self).__name__, **asdict(self)}

    def _separately(self) -> str:
        return ", for every label separately" if self.per_class else ""


@dataclass(frozen=True)
class MaxDrop(_Bound):
    """Accuracy may be at most so much below that of tier 2 at full depth, 0.01 being a point.

    Tested is harm: the cascade answers wrongly where full depth is right. drop = P(harm) - P(gain) <= P(harm).
    """

    needs_labels: ClassVar[bool] = True

    def describe(self, unit: Unit = Unit.TEXT, than: str = FULL) -> str:
        """The claim in words. `than`: what is compared with."""
        what = "accuracy" if unit is Unit.TEXT else f"accuracy of {unit.value}s"
        points = f"{_percent(self.bound)} {'point' if self.bound <= 0.01 else 'points'}"
        return f"{what} is at most {points} below that of {than}{self._separately()}"


@dataclass(frozen=True)
class Agreement(_Bound):
    """The answer may differ from that of tier 2 at full depth in at most this share; bounds the drop too."""

    def describe(self, unit: Unit = Unit.TEXT, than: str = FULL) -> str:
        """The claim in words. `than`: what is compared with."""
        share = f"at most {_percent(self.bound)} % of {unit.value}s"
        return f"the answer differs from that of {than} for {share}{self._separately()}"


RiskTarget: TypeAlias = "MaxDrop | Agreement"
"""What may be asked."""


@dataclass(frozen=True)
class Claim:
    """What is to be certified, how surely (`confidence` in (0, 1)), what is counted, and what it is compared with.

    That is tier 2 at full depth, or the `ORIGINAL` model, of which examples then hold the answers (`Sample.reference`).
    `question`: how many have been asked about these examples by now, this one included, where somebody counts them
    (`ledger`); None: this is the only one.
    """

    ask: RiskTarget = field(default_factory=MaxDrop)
    confidence: float = field(default=0.95, kw_only=True)
    unit: Unit = field(default=Unit.TEXT, kw_only=True)
    than: str = field(default=FULL, kw_only=True)
    question: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "confidence", check_inside("the confidence", self.confidence, "0.95 is usual"))
        if self.question is not None:
            check_whole("question", self.question, "the first is 1")

    @property
    def level(self) -> float:
        """How often a bound that does not hold may be certified: 1 - confidence, or a counted question's part of it.

        The first has 4/5. What is left falls with the square of the number, so that all parts, however many, add up to
        1 - confidence (alpha spending; the sum of 1 / k^2 is pi^2 / 6).
        """
        error = 1 - self.confidence
        if self.question is None:
            return error
        rest = (1 - FIRST) * 6 / (math.pi * max(self.question - 1, 1)) ** 2
        return error * (FIRST if self.question == 1 else rest)

    @property
    def later(self) -> Claim:
        """The same, asked once more."""
        return self if self.question is None else replace(self, question=self.question + 1)

    @property
    def counted(self) -> str:
        """What the events of the test are, in words."""
        if isinstance(self.ask, Agreement):
            return f"disagreement with {self.than.removesuffix(' at full depth')}"
        return "harm"

    def of_tiers(self, count: int) -> Claim:
        """The same about a bundle of so many tiers, of which the last one is compared with."""
        return self if self.than == ORIGINAL else replace(self, than=f"tier {count} at full depth")

    def describe(self) -> str:
        """The claim in one sentence, without a full stop."""
        return f"{self.ask.describe(self.unit, self.than)}, with a confidence of {_percent(self.confidence)} %"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**self.ask.to_json(), "confidence": self.confidence, "unit": self.unit.value}


def _percent(share: float) -> str:
    return f"{share * 100:.4g}"

"""What can be asked of a calibration: a bound on the accuracy lost, on disagreement, on deferral, or on the mean cost.

A claim is about texts (or sentences, or words) like those it was tested on; its confidence is that of the procedure:
of many calibrations at 0.95, at most one in twenty certifies a bound that does not hold.

    MaxDrop(0.01)       accuracy at most a point below tier 2's at full depth: harm is tested, which bounds the drop
    Agreement(0.01)     the answer differs from tier 2's at full depth in at most one of a hundred; needs no labels
    MaxDeferred(0.2)    at most a fifth of the texts is deferred, with the least harm for that
    MeanCost(0.005)     a text costs at most 5 ms on average, with the least harm for that
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from enum import Enum
from numbers import Real
from typing import Any, ClassVar, TypeAlias

from cascade.exceptions import OptionError

__all__ = ["Agreement", "Ask", "Claim", "MaxDeferred", "MaxDrop", "MeanCost", "Unit"]

FULL = "tier 2 at full depth"


class Unit(Enum):
    """What is counted: texts, of a tagger whole sentences or single words."""

    TEXT = "text"
    SENTENCE = "sentence"
    WORD = "word"


class _Asked:
    """What the four ways of asking have in common."""

    needs_labels: ClassVar[bool] = False

    def to_json(self) -> dict[str, Any]:
        """A plain dict: the name under `ask`, and the fields."""
        return {"ask": type(self).__name__, **asdict(self)}  # type: ignore[call-overload]  # each of them is a dataclass


@dataclass(frozen=True)
class MaxDrop(_Asked):
    """Accuracy may be at most so much below that of tier 2 at full depth.

    Tested is harm: the cascade answers wrongly where full depth is right. drop = P(harm) - P(gain) <= P(harm).

    Attributes:
        bound: in (0, 1), 0.01 being a point.
        two_sided: test instead that right and wrong differ at all (harm or gain), which bounds the change of accuracy
            in either direction.
        per_class: the bound must hold among the texts of each label by itself.
    """

    bound: float = 0.01
    two_sided: bool = field(default=False, kw_only=True)
    per_class: bool = field(default=False, kw_only=True)
    needs_labels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "bound", _inside("the drop", self.bound, "0.01 is one point"))

    def describe(self, unit: Unit = Unit.TEXT) -> str:
        """The claim in words."""
        who = f"of {unit.value}s" if unit is not Unit.TEXT else ""
        what = f"accuracy{' ' + who if who else ''}"
        apart = "differs by at most" if self.two_sided else "is at most"
        beside = f"from that of {FULL}" if self.two_sided else f"below that of {FULL}"
        points = f"{_percent(self.bound)} {'point' if self.bound <= 0.01 else 'points'}"
        return f"{what} {apart} {points} {beside}{_classes(self.per_class)}"


@dataclass(frozen=True)
class Agreement(_Asked):
    """The answer may differ from that of tier 2 at full depth in at most this share; bounds the drop too.

    Attributes:
        bound: in (0, 1).
        per_class: the bound must hold among the texts of each answer of full depth by itself.
    """

    bound: float = 0.01
    per_class: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bound", _inside("the disagreement", self.bound, "0.01 is one of a hundred"))

    def describe(self, unit: Unit = Unit.TEXT) -> str:
        """The claim in words."""
        share = f"at most {_percent(self.bound)} % of {unit.value}s"
        return f"the answer differs from that of {FULL} for {share}{_classes(self.per_class)}"


@dataclass(frozen=True)
class MaxDeferred(_Asked):
    """At most this share may be deferred to tier 2. Attributes: share: in (0, 1)."""

    share: float = 0.2

    def __post_init__(self) -> None:
        object.__setattr__(self, "share", _inside("the share to defer", self.share, "0.2 is a fifth"))

    @property
    def bound(self) -> float:
        """The share."""
        return self.share

    def describe(self, unit: Unit = Unit.TEXT) -> str:
        """The claim in words."""
        of = "words" if unit is not Unit.TEXT else "texts"
        return f"at most {_percent(self.share)} % of {of} are deferred to tier 2"


@dataclass(frozen=True)
class MeanCost(_Asked):
    """A text may cost at most so many seconds on average. Attributes: seconds: above 0."""

    seconds: float = 0.005

    def __post_init__(self) -> None:
        value: object = self.seconds
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < math.inf:
            raise OptionError(f"the mean cost must be above 0 seconds and finite, was: {value!r}; 0.005 is 5 ms")
        object.__setattr__(self, "seconds", float(value))

    @property
    def bound(self) -> float:
        """The seconds."""
        return self.seconds

    def describe(self, unit: Unit = Unit.TEXT) -> str:
        """The claim in words."""
        of = "sentence" if unit is not Unit.TEXT else "text"
        return f"a {of} costs at most {self.seconds * 1000:.4g} ms on average, by the costs measured on this machine"


Ask: TypeAlias = "MaxDrop | Agreement | MaxDeferred | MeanCost"
"""What may be asked."""


@dataclass(frozen=True)
class Claim:
    """What is to be certified, and how surely.

    Attributes:
        ask: what.
        confidence: in (0, 1).
        unit: what is counted.
    """

    ask: Ask = field(default_factory=MaxDrop)
    confidence: float = field(default=0.95, kw_only=True)
    unit: Unit = field(default=Unit.TEXT, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "confidence", _inside("the confidence", self.confidence, "0.95 is usual"))

    @property
    def level(self) -> float:
        """How often a bound that does not hold may be certified: 1 - confidence."""
        return 1 - self.confidence

    def describe(self) -> str:
        """The claim in one sentence, without a full stop."""
        return f"{self.ask.describe(self.unit)}, with a confidence of {_percent(self.confidence)} %"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**self.ask.to_json(), "confidence": self.confidence, "unit": self.unit.value}


def _inside(name: str, value: object, remedy: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < 1:
        raise OptionError(f"{name} must be above 0 and below 1, was: {value!r}; {remedy}")
    return float(value)


def _percent(share: float) -> str:
    return f"{share * 100:.4g}"


def _classes(per_class: bool) -> str:
    return ", for every label by itself" if per_class else ""

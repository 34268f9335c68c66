"""Routers: which units a tier hands to the next one.

A router is called with a `RoutingState` and returns a mask, True = defer. A unit whose confidence is NaN counts as the
least sure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar, TypeAlias

import numpy as np

from cascade.core.checks import check_mask, check_share
from cascade.core.confidence import MEASURES, max_probability
from cascade.core.rows import BoolArray, FloatArray, IntArray
from cascade.exceptions import OptionError
from cascade.policies.registry import ModelInfo, Registry, Same, needs_labels, optional


@dataclass(frozen=True, eq=False)
class RoutingState:
    """What a router may look at. Its arrays must not be written to.

    Attributes:
        probabilities: of the tier, after its temperature. Shape `(units, labels)`.
        confidence: the largest probability of each unit (`confidence.max_probability`). Shape `(units,)`.
        lengths: tokens of each unit: what deferring it costs. Shape `(units,)`.
        multi_label: the labels are independent yes/no decisions.
    """

    probabilities: FloatArray
    confidence: FloatArray
    lengths: IntArray
    multi_label: bool = False


Router: TypeAlias = Callable[[RoutingState], BoolArray]
"""A mask of shape `(units,)`, True = defer."""

Score: TypeAlias = Callable[..., FloatArray]
"""A confidence measure: `(probabilities, *, multi_label) -> confidence of shape (units,)`."""

_REGISTRY: Registry[Router] = Registry("router", "with_router")
register, to_json, from_json, check = _REGISTRY.register, _REGISTRY.to_json, _REGISTRY.from_json, _REGISTRY.check

_REMEDY = "give a number such as 0.2"
REGRESSION = "use defer_all or defer_none"


def decide(router: Router, state: RoutingState) -> BoolArray:
    """Ask a router; anything but a mask of one bool per unit is an `OptionError`."""
    return check_mask(router(state), len(state.probabilities), "router", router, "to defer")


class _Measured:
    """What routers that look at a measure of confidence share."""

    measure: Score

    def __post_init__(self) -> None:
        given: object = self.measure
        found = MEASURES.get(given) if isinstance(given, str) else given
        if not callable(found):
            raise OptionError(
                f"measure must be a measure of confidence, got {given!r}; use one of cascade.core.confidence, "
                f"{', '.join(MEASURES)}, or a function of (probabilities, *, multi_label)"
            )
        object.__setattr__(self, "measure", found)

    def score(self, state: RoutingState) -> FloatArray:
        """The measure, in [0, 1]. Shape `(units,)`."""
        if self.measure is max_probability:
            return state.confidence
        return self.measure(state.probabilities, multi_label=state.multi_label)

    def check(self, model: ModelInfo) -> None:
        """Whether there are labels."""
        needs_labels(self, model, REGRESSION)

    def _shown(self) -> str:
        return "" if self.measure == max_probability else f", measure={self.measure!r}"


@register
@dataclass(frozen=True, repr=False)
class Threshold(_Measured):
    """Defer the units whose confidence is below a threshold. It is `Tunable`.

    Attributes:
        threshold: in [0, 1]. 0 defers no unit.
        measure: of confidence: one of `cascade.core.confidence`, its name, or a function of your own.
    """

    threshold: float
    measure: Score = field(default=max_probability, metadata=optional(key="score"))

    def __post_init__(self) -> None:
        object.__setattr__(self, "threshold", check_share("threshold", self.threshold, _REMEDY))
        super().__post_init__()

    def __call__(self, state: RoutingState) -> BoolArray:
        sure: BoolArray = self.score(state) >= self.threshold
        return ~sure

    def at(self, threshold: float) -> Threshold:
        """The same measure with this threshold."""
        return replace(self, threshold=threshold)

    def __repr__(self) -> str:
        return f"Threshold(threshold={self.threshold}{self._shown()})"


@register
@dataclass(frozen=True, repr=False)
class Budget(_Measured):
    """Defer the least sure share of the units that are routed together.

    Of n units exactly floor(`max_deferred` * n) are deferred; of equally sure units the earlier ones. Units are routed
    together in a `predict`, and in a buffer of a `stream`. Fewer than `FEW` units say little about what is unsure for
    this model, and of a single one the floor is 0. So with a `reference` the units of a small call are compared with
    the reference instead: deferred are those that are less sure than `max_deferred` of it, each by itself. Without one
    the floor holds for any number; a pipeline warns where that means that nothing can be deferred.

    Attributes:
        max_deferred: the share, in [0, 1].
        measure: of confidence: one of `cascade.core.confidence`, its name, or a function of your own.
        reference: confidences by the same measure of units like those to come, such as
            `clf.with_router(defer_none).predict(texts).routes.confidence`. Kept sorted; of more than 256 numbers
            quantiles are kept.

    Example:
        Budget(0.5, reference=confidences) defers about two of four texts that come one at a time.
    """

    FEW: ClassVar[int] = 64
    KEPT: ClassVar[int] = 256

    max_deferred: float
    measure: Score = field(default=max_probability, metadata=optional(key="score"))
    reference: tuple[float, ...] = field(default=(), metadata=optional())

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_deferred", check_share("max_deferred", self.max_deferred, _REMEDY))
        super().__post_init__()
        known = sorted(check_share("reference", one, "give confidences") for one in self.reference)
        places = (np.arange(self.KEPT) + 0.5) * len(known) / self.KEPT
        kept = known if len(known) <= self.KEPT else [known[int(place)] for place in places]
        object.__setattr__(self, "reference", tuple(kept))

    def __call__(self, state: RoutingState) -> BoolArray:
        sure = self.score(state)
        sure = np.where(np.isnan(sure), -np.inf, sure)
        if self.reference and len(sure) < self.FEW:
            count = self._floor(len(self.reference))
            below: BoolArray = sure < (self.reference[count] if count < len(self.reference) else np.inf)
            return below & (self.max_deferred > 0)
        mask = np.zeros(len(sure), dtype=np.bool_)
        mask[np.argsort(sure, kind="stable")[: self._floor(len(sure))]] = True
        return mask

    def too_few(self, units: int) -> bool:
        """Whether so many units, routed together, can only be kept although a share was to be deferred."""
        return bool(units and self.max_deferred and not self.reference and not self._floor(units))

    def _floor(self, units: int) -> int:
        # 0.29 * 100 is a hair below 29 in floating point; 28 is not meant.
        return math.floor(self.max_deferred * units + 1e-9)

    def __repr__(self) -> str:
        known = f", reference={len(self.reference)} confidences" if self.reference else ""
        return f"Budget(max_deferred={self.max_deferred}{self._shown()}{known})"


@register
class DeferNone(Same):
    """The first tier alone; use the ready-made value `defer_none`."""

    name = "defer_none"
    answer = False


@register
class DeferAll(Same):
    """The next tier alone, the first is not run; use the ready-made value `defer_all`."""

    name = "defer_all"
    answer = True


defer_none = DeferNone()
"""The first tier answers everything; the next one is not run."""

defer_all = DeferAll()
"""The next tier answers everything; the first one is not run."""

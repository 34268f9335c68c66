"""Routers: which units a tier hands to the next one.

A router is called with a `RoutingState` and returns a mask, True = defer. A unit whose confidence is NaN counts as the
least sure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeAlias

import numpy as np

from cascade.core.checks import check_mask, check_share
from cascade.core.confidence import Measure, max_probability
from cascade.core.rows import BoolArray, FloatArray, IntArray
from cascade.policies.registry import Registry, Same


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

_REGISTRY: Registry[Router] = Registry("router", "with_router", "use defer_all or defer_none")
register, to_json, from_json, check = _REGISTRY.register, _REGISTRY.to_json, _REGISTRY.from_json, _REGISTRY.check

_REMEDY = "give a number such as 0.2"


def decide(router: Router, state: RoutingState) -> BoolArray:
    """Ask a router; anything but a mask of one bool per unit is an `OptionError`."""
    return check_mask(router(state), len(state.probabilities), "router", router, "to defer")


@register
@dataclass(frozen=True)
class Threshold:
    """Defer the units whose confidence is below a threshold, in [0, 1]; 0 defers no unit. It is `Tunable`."""

    measure: ClassVar[Measure] = staticmethod(max_probability)
    for_labels: ClassVar[bool] = True
    retired: ClassVar[Mapping[str, Any]] = {"score": "max_probability"}

    threshold: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "threshold", check_share("threshold", self.threshold, _REMEDY))

    def score(self, state: RoutingState) -> FloatArray:
        """The confidence, in [0, 1]. Shape `(units,)`."""
        return state.confidence

    def __call__(self, state: RoutingState) -> BoolArray:
        sure: BoolArray = state.confidence >= self.threshold
        return ~sure

    def at(self, threshold: float) -> Threshold:
        """The router with this threshold."""
        return replace(self, threshold=threshold)


@register
@dataclass(frozen=True)
class Budget:
    """Defer the least sure share of the units that are routed together.

    Of n units exactly floor(`max_deferred` * n) are deferred; of equally sure units the earlier ones. Units are routed
    together in a `predict`, and in a buffer of a `stream`. Of a single one the floor is 0: a pipeline warns where
    nothing can be deferred. `Threshold` decides each unit by itself. `max_deferred`: the share, in [0, 1].
    """

    for_labels: ClassVar[bool] = True
    retired: ClassVar[Mapping[str, Any]] = {"score": "max_probability"}

    max_deferred: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_deferred", check_share("max_deferred", self.max_deferred, _REMEDY))

    def __call__(self, state: RoutingState) -> BoolArray:
        sure = np.where(np.isnan(state.confidence), -np.inf, state.confidence)
        mask = np.zeros(len(sure), dtype=np.bool_)
        mask[np.argsort(sure, kind="stable")[: self._floor(len(sure))]] = True
        return mask

    def too_few(self, units: int) -> bool:
        """Whether so many units, routed together, can only be kept although a share was to be deferred."""
        return bool(units and self.max_deferred and not self._floor(units))

    def _floor(self, units: int) -> int:
        # 0.29 * 100 is a hair below 29 in floating point; 28 is not meant.
        return math.floor(self.max_deferred * units + 1e-9)


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

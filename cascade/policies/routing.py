"""Routers: which units a tier hands to the next one.

A router is called with a `RoutingState` and returns a mask, True = defer. A unit whose confidence is NaN counts as the
least sure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from cascade.core.checks import check_mask, check_share, is_number
from cascade.core.confidence import Measure, max_probability
from cascade.core.rows import BoolArray, Doubles, FloatArray, IntArray
from cascade.exceptions import OptionError
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

Points = tuple[tuple[float, float], ...]
_REMEDY = "give a number such as 0.2"


def decide(router: Router, state: RoutingState) -> BoolArray:
    """Ask a router; anything but a mask of one bool per unit is an `OptionError`."""
    return check_mask(router(state), len(state.probabilities), "router", router, "to defer")


@register
@dataclass(frozen=True)
class Threshold:
    """Defer the units whose confidence is below a threshold. It is `Tunable`.

    Attributes:
        threshold: in [0, 1]. 0 defers no unit.
    """

    measure: ClassVar[Measure] = max_probability
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
    nothing can be deferred. `Threshold` decides each unit by itself.

    Attributes:
        max_deferred: the share, in [0, 1].
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
@dataclass(frozen=True)
class CostAware:
    """Defer units while their expected gain exceeds what the next tier's time for them is worth.

    Units are taken in the order of their expected gain. The shortest prefix is deferred of which the sum of gains minus
    `price` times the cost of all its tokens is largest; none where no such sum is above 0. That is the rule "gain above
    cost" of post-hoc deferral (Jitkrittum et al., NeurIPS 2023) with the cost of a batch in the place of a constant.

    So the decisions depend on the batch, the units of a `predict` or of a buffer of a `stream`: a unit that is kept in
    a call of its own can be deferred in a larger one, where it shares the fixed part of the cost. A certificate of
    this router holds for batches of the sizes that it was made with. The order of units changes nothing, but of units
    of equal gain the earlier ones are deferred first. Of a tagger only the tokens of deferred words count, not those of
    windows.

    Attributes:
        price: expected gain, in answers, that one millisecond must bring, at least 0. 0 defers every unit with a gain.
        costs: points (tokens, milliseconds) of the next tier (docs/performance.md measures them): at least two,
            tokens rising, milliseconds never falling. Straight lines between them; below the first point its
            milliseconds, the fixed part; beyond the last one the last line goes on.
        gains: points (confidence, expected gain in answers), confidences rising in [0, 1]. Straight lines between them,
            level beyond. 1 - confidence by default, as if the next tier were always right.

    A value that breaks these rules is an `OptionError`.
    """

    for_labels: ClassVar[bool] = True

    price: float
    costs: Points
    gains: Points = ((0.0, 1.0), (1.0, 0.0))

    def __post_init__(self) -> None:
        if not is_number(self.price) or not 0 <= self.price < math.inf:
            raise OptionError(
                f"price must be finite and at least 0, got {self.price!r}; such as 0.01 answers per millisecond"
            )
        costs, gains = _points(self.costs), _points(self.gains)
        milliseconds = [cost for _, cost in costs]
        if len(costs) < 2 or costs[0][0] < 0 or milliseconds[0] < 0 or milliseconds != sorted(milliseconds):
            raise OptionError(
                "costs must be at least two points (tokens, milliseconds), at least 0, tokens rising, milliseconds "
                f"never falling, got {self.costs!r}; measure them with predict(...).stats of calls of several sizes"
            )
        if not gains or gains[0][0] < 0 or gains[-1][0] > 1:
            raise OptionError(
                "gains must be points (confidence, gain), confidences rising in [0, 1], "
                f"got {self.gains!r}; such as ((0.5, 0.4), (1, 0))"
            )
        for name, value in (("price", float(self.price)), ("costs", costs), ("gains", gains)):
            object.__setattr__(self, name, value)

    def __call__(self, state: RoutingState) -> BoolArray:
        gains = self.gain(state)
        if not self.price:  # exactly, however small a gain is beside the sum of the others
            return gains > 0
        order = np.argsort(-gains, kind="stable")
        net = np.cumsum(gains[order]) - self.price * self.cost(np.cumsum(state.lengths[order]))
        mask = np.zeros(len(gains), dtype=np.bool_)
        if len(net) and net.max() > 0:
            mask[order[: int(net.argmax()) + 1]] = True
        return mask

    def gain(self, state: RoutingState) -> Doubles:
        """Expected gain of deferring each unit, in answers; a confidence of NaN counts as 0. Shape `(units,)`."""
        return _interpolated(self.gains, np.where(np.isnan(state.confidence), 0, state.confidence))

    def cost(self, tokens: npt.ArrayLike) -> Doubles:
        """Milliseconds of the next tier for so many tokens in one call. Shape of `tokens`."""
        given = np.asarray(tokens, dtype=np.float64)
        (before, low), (last, high) = self.costs[-2:]
        return _interpolated(self.costs, given) + np.maximum(given - last, 0) * (high - low) / (last - before)


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


def _interpolated(points: Points, values: npt.NDArray[np.floating]) -> Doubles:
    known, wanted = np.asarray(points).T
    found: Doubles = np.interp(values, known, wanted)
    return found


def _points(given: object) -> Points:
    """Pairs of finite numbers, the first ones rising; none where they are something else."""
    pairs = [tuple(pair) if isinstance(pair, Sequence) else () for pair in given] if isinstance(given, Sequence) else []
    if all(len(pair) == 2 and all(is_number(one) and math.isfinite(one) for one in pair) for pair in pairs):
        made = tuple((float(first), float(second)) for first, second in pairs)
        return made if all(left < right for (left, _), (right, _) in pairwise(made)) else ()
    return ()

"""A router that knows what the next tier costs at the size of this very batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from cascade.core.checks import is_number
from cascade.core.rows import BoolArray
from cascade.exceptions import OptionError
from cascade.policies.routing import RoutingState, shipped

__all__ = ["CostAware"]

Points = tuple[tuple[float, float], ...]


@shipped
@dataclass(frozen=True)
class CostAware:
    """Defer units while their expected gain exceeds what the next tier's time for them is worth.

    Units are taken in the order of their expected gain. Those of the prefix are deferred for which the sum of gains
    minus `price` times the cost of the sum of tokens is largest: of the shortest such prefix, and of none where no sum
    is above 0, because then the next tier does not run at all. That is the rule "gain above cost" of post-hoc deferral
    (Jitkrittum et al., NeurIPS 2023) with the measured cost of a batch in the place of a constant.

    So the decisions depend on the batch. A unit that is kept in a call of its own can be deferred in a larger one,
    where it shares the fixed part of the cost; routed together are the units of a `predict` or of a buffer of a
    `stream`. What is certified or measured of this router holds for batches of the sizes that it was found with. The
    order of the units changes nothing, but of units of equal gain the earlier ones are deferred first.

    Of a tagger only the tokens of the deferred words count, not those of the windows around them.

    Attributes:
        price: expected gain, in answers, that one millisecond must bring, at least 0. 0 defers every unit with a gain.
        costs: points (tokens, milliseconds) of the next tier, as `cascade.pipelines.tuning` measures them: at least
            two, tokens rising, milliseconds never falling. Straight lines between them; below the first point its
            milliseconds, the fixed part; above the last point the last line goes on.
        gains: points (confidence, expected gain in answers), confidence in [0, 1] and rising. Straight lines between
            them, level beyond. 1 - confidence by default: the next tier answers rightly whatever this one does not.

    Raises:
        OptionError: a value breaks these rules.
    """

    price: float
    costs: Points
    gains: Points = ((0.0, 1.0), (1.0, 0.0))

    def __post_init__(self) -> None:
        if not is_number(self.price) or not 0 <= self.price < math.inf:
            raise OptionError(
                f"price must be a finite number of at least 0, got {self.price!r}; it is the gain, in answers, that "
                "one millisecond must bring, such as 0.01"
            )
        object.__setattr__(self, "price", float(self.price))
        object.__setattr__(self, "costs", _points("costs", "(tokens, milliseconds)", self.costs, least=2))
        object.__setattr__(self, "gains", _points("gains", "(confidence, gain)", self.gains, least=1))
        milliseconds = [cost for _, cost in self.costs]
        if self.costs[0][0] < 0 or milliseconds[0] < 0 or milliseconds != sorted(milliseconds):
            raise OptionError(
                f"costs must have tokens of at least 0 and milliseconds of at least 0 that never fall, got "
                f"{self.costs}; measure them with cascade tune --router"
            )
        if self.gains[0][0] < 0 or self.gains[-1][0] > 1:
            raise OptionError(f"gains must have confidences in [0, 1], got {self.gains}; such as (0.5, 0.3)")

    def __call__(self, state: RoutingState) -> BoolArray:
        """Mask of shape `(units,)`, True = defer."""
        gains = self.gain(state)
        if not self.price:  # exactly, however small a gain is beside the sum of the others
            return gains > 0
        order = np.argsort(-gains, kind="stable")
        net = np.cumsum(gains[order]) - self.price * self.cost(np.cumsum(state.lengths[order]))
        mask = np.zeros(len(gains), dtype=np.bool_)
        if len(net) and net.max() > 0:
            mask[order[: int(net.argmax()) + 1]] = True
        return mask

    def gain(self, state: RoutingState) -> npt.NDArray[np.float64]:
        """Expected gain of deferring each unit, in answers; a confidence of NaN counts as 0. Shape `(units,)`."""
        confidence = np.where(np.isnan(state.confidence), 0, state.confidence)
        return _interpolated(self.gains, confidence)

    def cost(self, tokens: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Milliseconds of the next tier for so many tokens in one call. Shape of `tokens`."""
        given = np.asarray(tokens, dtype=np.float64)
        (before, low), (last, high) = self.costs[-2:]
        beyond = np.maximum(given - last, 0) * (high - low) / (last - before)
        return _interpolated(self.costs, given) + beyond


def _interpolated(points: Points, values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    known, wanted = np.asarray(points).T
    found: npt.NDArray[np.float64] = np.interp(values, known, wanted)
    return found


def _points(name: str, what: str, given: object, *, least: int) -> Points:
    """Pairs of finite numbers, the first of each rising."""
    pairs = given if isinstance(given, Sequence) and not isinstance(given, str) else ()
    fit = all(isinstance(pair, Sequence) and len(pair) == 2 and all(map(_finite, pair)) for pair in pairs)
    if not fit or len(pairs) < least or any(left[0] >= right[0] for left, right in pairwise(pairs)):
        raise OptionError(
            f"{name} must be at least {least} pairs {what} of finite numbers, the first ones rising, got {given!r}; "
            "measure them, or write two points for a straight line"
        )
    return tuple((float(first), float(second)) for first, second in pairs)


def _finite(value: object) -> bool:
    return is_number(value) and math.isfinite(value)

"""A router that knows what the next tier costs at the size of this very batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from cascade.core.checks import is_number
from cascade.core.rows import BoolArray, Doubles
from cascade.exceptions import OptionError
from cascade.policies.routing import RoutingState, register

Points = tuple[tuple[float, float], ...]


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
        costs: points (tokens, milliseconds) of the next tier (`cascade tune --router` measures them): at least two,
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
                f"never falling, got {self.costs!r}; measure them with cascade tune --router"
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

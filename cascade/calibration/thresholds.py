"""The cheapest thresholds that lose no more accuracy than was allowed, found by replaying them on labelled examples.

One threshold defers from tier 1 to tier 2 (`routing.Threshold`), one leaves tier 2 (`exits.MaxProbability`), perhaps
with a cap on depth (`any_of(MaxProbability(t), AtExit(layer))`). Exits are replayed from the probabilities at all of
them, so no model runs here. Tier 1's rows are sorted by confidence: whom a threshold defers is then a prefix, and sums
over prefixes give all deferral thresholds of an exit policy at once, in O(n).

The choice is empirical: it meets the bound on these examples, of which full-depth accuracy is itself a noisy estimate
(standard error about 1 point at 900 examples and 90 %), and picking the best of many points flatters the winner a
little. `drop_error` says how far the drop may be off; measure the chosen point on other examples before you publish it.
A bound that holds for unseen texts with a stated confidence needs a certificate, which this is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cascade.calibration.examples import Costs, Examples
from cascade.calibration.points import OperatingPoint, Points
from cascade.core.checks import check_share, check_whole
from cascade.core.rows import FloatArray, IntArray
from cascade.exceptions import OptionError
from cascade.policies.exits import AtExit, ExitPolicy, MaxProbability, any_of, never
from cascade.policies.routing import Router, Threshold, defer_all, defer_none

__all__ = ["Grid", "between", "choose", "cuts", "replay"]

Table = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """Which points are replayed. Thresholds lie at quantiles of the confidences, in gaps between them.

    Attributes:
        deferral: deferral thresholds at most; `defer_none` and `defer_all` come on top.
        exits: exit thresholds at most; `never` comes on top.
        caps: also with a cap after every exit.
    """

    deferral: int = 256
    exits: int = 64
    caps: bool = True

    def __post_init__(self) -> None:
        for name, value in (("deferral", self.deferral), ("exits", self.exits)):
            check_whole(name, value, "give a number of thresholds such as 64")


def replay(examples: Examples, costs: Costs, *, grid: Grid | None = None) -> Points:
    """Every point of a grid.

    Args:
        examples: what the tiers answer.
        costs: one for each exit.
        grid: `Grid()` if left out.
    """
    grid = grid or Grid()
    policies: list[ExitPolicy] = []
    left: list[IntArray] = []
    last = len(examples.layers) - 1
    thresholds = cuts(examples.sure_both[:, :-1].ravel(), grid.exits) if last else []
    for cap in range(last + 1) if grid.caps else [last]:
        cut = AtExit(examples.layers[cap])
        policies.append(never if cap == last else cut)
        left.append(np.full(len(examples), cap))
        for threshold in thresholds if cap else []:
            sure = MaxProbability(threshold)
            policies.append(sure if cap == last else any_of(sure, cut))
            left.append(np.minimum(_leave(examples, [threshold] * last), cap))
    return _Replay(examples, costs, grid).points(policies, left)


def choose(
    examples: Examples,
    costs: Costs,
    *,
    max_drop: float = 0.005,
    grid: Grid | None = None,
    per_exit: bool = False,
    blends: Sequence[float] = (0.0,),
) -> OperatingPoint:
    """The cheapest point whose accuracy on the examples is at least full-depth tier 2's less `max_drop`.

    There always is one: tier 2 at full depth. Where no cascade pays, `router` is `defer_all`.

    Args:
        examples: what the tiers answer.
        costs: one for each exit.
        max_drop: in accuracy, 0.005 being half a point.
        grid: `Grid()` if left out.
        per_exit: go on from there with a threshold per exit, one exit after the other (coordinate descent). More to
            choose means more that fits these examples only.
        blends: how much tier 1's answer may count beside tier 2's; the cheapest of them is taken.

    Raises:
        OptionError: a bound outside [0, 1], or costs for another number of exits.
    """
    max_drop = check_share("max_drop", max_drop, "0.005 is half a point")
    grid = grid or Grid()
    found = []
    for blend in {0.0, *blends}:
        points = replay(examples.with_blend(blend), costs, grid=grid)
        number = points.cheapest(max_drop)
        if number is not None:
            found.append(points[number])
    # There is one: without a blend the grid holds tier 2 at full depth, which drops nothing.
    best = min(found, key=lambda point: (point.cost, -point.accuracy, point.blend))
    if not per_exit or len(examples.layers) == 1:
        return best
    return _refined(examples.with_blend(best.blend), costs, best, max_drop, grid)


class _Replay:
    """All deferral thresholds at once, for any exit policy given as the exit at which each example leaves."""

    def __init__(self, examples: Examples, costs: Costs, grid: Grid) -> None:
        if len(costs.stages) != len(examples.layers):
            raise OptionError(
                f"there must be a cost for each of the {len(examples.layers)} exits, were: {len(costs.stages)}; "
                "give one per stage"
            )
        self.examples = examples
        self.order = np.argsort(examples.sure1, kind="stable")
        sure = examples.sure1[self.order]
        thresholds = cuts(sure, grid.deferral)
        # Tier 1 is not run where everything is deferred, and then has no answer that could count.
        whole_too = not examples.blend
        self.routers: tuple[Router, ...] = (defer_none, *map(Threshold, thresholds), *([defer_all] * whole_too))
        inner = np.searchsorted(sure, np.asarray(thresholds, dtype=np.float32))
        self.deferred = np.array([0, *inner.tolist(), *([len(examples)] * whole_too)])
        self.lengths = examples.lengths[self.order].astype(np.float64)
        self.upto = np.cumsum(costs.stages)
        whole = self.lengths.sum()
        self.base = np.full(len(self.routers), (costs.always + costs.tier1) * whole)
        if whole_too:
            self.base[-1] = costs.always * whole
        self.whole = costs.full * whole
        self.layers = np.asarray(examples.layers, dtype=np.float64)
        self.right1, full = examples.right1[self.order], examples.right2[self.order, -1]
        self.differ1 = self.right1 != full
        self.full = full

    def points(self, policies: Sequence[ExitPolicy], left: Sequence[IntArray]) -> Points:
        """Tables for these policies. `left`: per policy the number of the exit that each example takes, from 0."""
        shape = (len(policies), len(self.routers))
        right, differ, layers, cost = (np.empty(shape) for _ in range(4))
        for row, exits in enumerate(left):
            taken = exits[self.order]
            right2 = self.examples.right_both[self.order, taken]
            right[row] = self._prefix(right2) + self._suffix(self.right1)
            differ[row] = self._prefix(right2 != self.full) + self._suffix(self.differ1)
            layers[row] = self._prefix(self.layers[taken]) / np.maximum(self.deferred, 1)
            cost[row] = (self.base + self._prefix(self.lengths * self.upto[taken])) / self.whole
        share = np.broadcast_to(self.deferred / len(self.order), shape)
        return Points(
            self.routers,
            tuple(policies),
            len(self.order),
            int(self.full.sum()),
            right,
            differ,
            share,
            layers,
            cost,
            self.examples.blend,
        )

    def _prefix(self, values: npt.NDArray[np.generic]) -> Table:
        sums: Table = np.concatenate(([0.0], np.cumsum(values, dtype=np.float64)))
        at: Table = sums[self.deferred]
        return at

    def _suffix(self, values: npt.NDArray[np.generic]) -> Table:
        return float(np.sum(values, dtype=np.float64)) - self._prefix(values)


def _refined(examples: Examples, costs: Costs, best: OperatingPoint, max_drop: float, grid: Grid) -> OperatingPoint:
    """Coordinate descent over one threshold per exit, the deferral threshold being chosen anew at each step."""
    replayed = _Replay(examples, costs, grid)
    inner = len(examples.layers) - 1
    # A cap is a threshold of 0 at its exit, never is as near as a threshold comes to it.
    current = [_threshold_at(best.exit_policy, layer) for layer in examples.layers[:-1]]
    candidates = [[0.0, *cuts(examples.sure_both[:, exit_], grid.exits), 1.0] for exit_ in range(inner)]
    improved = True
    while improved:
        improved = False
        for exit_ in range(inner):
            trials = [[*current[:exit_], value, *current[exit_ + 1 :]] for value in candidates[exit_]]
            policies = [MaxProbability(tuple(trial)) for trial in trials]
            points = replayed.points(policies, [_leave(examples, trial) for trial in trials])
            number = points.cheapest(max_drop)
            if number is not None and points[number].cost < best.cost - 1e-12:
                best, current, improved = points[number], trials[number // len(points.routers)], True
    return best


def _threshold_at(policy: ExitPolicy, layer: int) -> float:
    """The threshold that one of the policies of a grid amounts to after this layer."""
    parts = getattr(policy, "policies", (policy,))
    if any(isinstance(part, AtExit) and layer >= part.layer for part in parts):
        return 0.0
    return next((part.threshold for part in parts if isinstance(part, MaxProbability)), 1.0)  # type: ignore[return-value]  # the grid's are single numbers


def _leave(examples: Examples, thresholds: Sequence[float]) -> IntArray:
    """Number of the exit at which each example leaves; one threshold for each exit but the last."""
    sure: npt.NDArray[np.bool_] = examples.sure_both[:, :-1] >= np.asarray(thresholds, dtype=np.float32)
    left: IntArray = np.where(sure.any(axis=1), sure.argmax(axis=1), len(examples.layers) - 1)
    return left


def cuts(values: FloatArray, count: int) -> list[float]:
    """At most `count` thresholds between distinct values, at quantiles, rising."""
    distinct, counts = np.unique(values, return_counts=True)
    below = np.cumsum(counts)[:-1]
    gaps = np.arange(len(below))
    if len(gaps) > count:
        wanted = np.linspace(0, len(values), count + 2)[1:-1]
        gaps = np.unique(np.minimum(np.searchsorted(below, wanted), len(below) - 1))
    return [between(float(distinct[gap]), float(distinct[gap + 1])) for gap in gaps]


def between(low: float, high: float) -> float:
    """The number with fewest digits in the middle half between two confidences; `high` where they are too near.

    Not on a confidence, because that may differ by float rounding when the model runs again.
    """
    edge = (high - low) / 4
    for digits in range(1, 10):
        rounded = round((low + high) / 2, digits)
        if low + edge <= np.float32(rounded) <= high - edge and rounded >= 0:
            return rounded
    return high

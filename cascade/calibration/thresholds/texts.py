"""The cheapest thresholds of a classifier that lose no more accuracy than was allowed, replayed on labelled examples.

The choice is empirical: the best of many points is a little flattered, and full-depth accuracy itself noisy (standard
error about 1 point at 900 examples and 90 %). Measure the chosen point on other examples before you publish it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cascade.calibration.ranked import Ranked, Tuned, cuts
from cascade.calibration.texts import TextAnswers
from cascade.calibration.thresholds.points import Point
from cascade.core.checks import check_share, check_whole
from cascade.core.confidence import answers as answers_of
from cascade.core.rows import BoolArray, Doubles, FloatArray, IntArray
from cascade.exceptions import OptionError
from cascade.policies.exits import ExitPolicy
from cascade.policies.routing import Router, defer_all, defer_none


@dataclass(frozen=True)
class Grid:
    """How many thresholds are replayed at most, at quantiles of the scores, in gaps between them.

    `defer_none`, `defer_all` and `never` come on top; `caps`: also with a cap after every exit.
    """

    deferral: int = 256
    exits: int = 64
    caps: bool = True

    def __post_init__(self) -> None:
        for name, value in (("deferral", self.deferral), ("exits", self.exits)):
            check_whole(name, value, "give a number of thresholds such as 64")


def choose(
    answers: TextAnswers,
    *,
    max_drop: float = 0.005,
    grid: Grid | None = None,
    per_exit: bool = False,
    blends: Sequence[float] = (0.0,),
    tuned: Tuned | None = None,
) -> Point:
    """The cheapest point whose accuracy on the examples is at least full-depth tier 2's less `max_drop`.

    There always is one: tier 2 at full depth. Where no cascade pays, `router` is `defer_all`. Windows of a long text
    count as one example each. Texts without labels are an `OptionError`.

    `per_exit`: go on from there with a threshold per exit, one exit after the other (coordinate descent). More to
    choose means more that fits these examples only. `blends`: how much tier 1's answer may count beside tier 2's; the
    cheapest of them is taken. `tuned`: whose thresholds are chosen.
    """
    max_drop = check_share("max_drop", max_drop, "0.005 is half a point")
    found = []
    for blend in dict.fromkeys((0.0, *blends)):
        ranked = Ranked.of(answers, tuned or Tuned(), blend=blend)
        made = _Replay(answers, ranked, grid or Grid())
        tables = made.of_grid()
        number = made.cheapest(tables, max_drop)
        if number is not None:
            found.append((made.point(tables, number), made, number // len(made.routers)))
    # There is one: without a blend the grid holds tier 2 at full depth, which drops nothing.
    best, made, row = min(found, key=lambda one: (one[0].cost, -one[0].accuracy, one[0].blend))
    return made.refined(best, row, max_drop) if per_exit and made.ranked.last else best


@dataclass(frozen=True, eq=False)
class _Tables:
    """Points of all routers with some exit policies: right answers, mean layer, cost. Shape `(policies, routers)`."""

    policies: Sequence[ExitPolicy]
    right: Doubles
    layers: Doubles
    cost: Doubles


class _Replay:
    """All deferral thresholds at once, for any exit policy given as the exit at which each row leaves."""

    def __init__(self, answers: TextAnswers, ranked: Ranked, grid: Grid) -> None:
        if answers.truth is None:
            raise OptionError("thresholds within a bound on accuracy need labels, got texts without; label them")
        self.answers, self.ranked, self.grid, self.rows = answers, ranked, grid, len(ranked.order)
        thresholds = cuts(ranked.sure1, grid.deferral)
        # Tier 1 is not run where everything is deferred, and then has no answer that could count.
        whole = [defer_all] * (not ranked.blend)
        self.routers: tuple[Router, ...] = (defer_none, *map(ranked.tuned.router.at, thresholds), *whole)
        self.deferred = np.array([0, *ranked.below(thresholds), *[self.rows] * len(whole)], dtype=np.int64)
        both = answers.blended(ranked.blend)[ranked.order]
        self.right1 = self._right(answers.tier1[answers.items[ranked.order]])
        self.right2 = np.stack([self._right(both[:, exit_]) for exit_ in range(both.shape[1])], axis=1)
        self.full = int(self._right(answers.tier2[ranked.order, -1]).sum())
        # Threshold and cap of each policy of the grid.
        self.kinds: list[tuple[float | None, int]] = []
        sure = cuts(ranked.sure[:, :-1].ravel(), grid.exits) if ranked.last else []
        for cap in range(ranked.last + 1) if grid.caps else [ranked.last]:
            self.kinds += [(None, cap), *((threshold, cap) for threshold in sure if cap)]

    def _right(self, heads: FloatArray) -> BoolArray:
        goal = self.answers.goal[self.answers.items][self.ranked.order]
        right: BoolArray = (answers_of(heads, multi_label=self.answers.multi_label) == goal).all(axis=1)
        return right

    def of_grid(self) -> _Tables:
        ranked = self.ranked
        left = [np.full(self.rows, cap) if sure is None else ranked.left(sure, cap) for sure, cap in self.kinds]
        return self.tables([ranked.policy(*kind) for kind in self.kinds], left)

    def tables(self, policies: Sequence[ExitPolicy], left: Sequence[IntArray]) -> _Tables:
        """`left`: per policy the number of the exit that each row takes, from 0."""
        ranked, deferred = self.ranked, self.deferred
        right, layers, cost = (np.empty((len(policies), len(self.routers))) for _ in range(3))
        kept = float(self.right1.sum()) - ranked.prefix(self.right1, deferred)
        depths = np.asarray(self.answers.layers, dtype=np.float64)
        for row, taken in enumerate(left):
            right[row] = ranked.prefix(self.right2[np.arange(self.rows), taken], deferred) + kept
            layers[row] = ranked.prefix(depths[taken], deferred) / np.maximum(deferred, 1)
            cost[row] = ranked.cost(taken, deferred)
        if not ranked.blend:  # the last router is `defer_all`
            cost[:, -1] -= self.answers.costs.tier1 / self.answers.costs.full
        return _Tables(policies, right, layers, cost)

    def cheapest(self, tables: _Tables, max_drop: float) -> int | None:
        """Number of the cheapest point within the bound, or `None`; of equally cheap ones the most accurate."""
        # Counted in examples: half a point of 872 is 4 of them, whatever floating point makes of it.
        right, allowed = tables.right.ravel(), self.full - math.floor(max_drop * self.rows + 1e-9)
        within = np.flatnonzero(right >= allowed)
        return int(within[np.lexsort((-right[within], tables.cost.ravel()[within]))[0]]) if len(within) else None

    def point(self, tables: _Tables, number: int) -> Point:
        """The point of this number, counted row by row."""
        row, column = divmod(number, len(self.routers))
        return Point(
            router=self.routers[column],
            exit_policy=tables.policies[row],
            blend=self.ranked.blend,
            accuracy=float(tables.right[row, column] / self.rows),
            drop=float((self.full - tables.right[row, column]) / self.rows),
            deferred=float(self.deferred[column] / self.rows),
            mean_layer=float(tables.layers[row, column]),
            cost=float(tables.cost[row, column]),
        )

    def refined(self, best: Point, row: int, max_drop: float) -> Point:
        """Coordinate descent over one threshold per exit, the deferral threshold being chosen again at each step."""
        ranked, inner = self.ranked, self.ranked.last
        threshold, cap = self.kinds[row]
        # A cap is a threshold of 0 at its exit, `never` is as near as a threshold of 1 comes to it.
        current = [0.0 if exit_ >= cap else 1.0 if threshold is None else threshold for exit_ in range(inner)]
        candidates = [[0.0, *cuts(ranked.sure[:, exit_], self.grid.exits), 1.0] for exit_ in range(inner)]
        improved = True
        while improved:
            improved = False
            for exit_ in range(inner):
                trials = [[*current[:exit_], value, *current[exit_ + 1 :]] for value in candidates[exit_]]
                policies = [ranked.policy(tuple(trial)) for trial in trials]
                tables = self.tables(policies, [ranked.left(trial) for trial in trials])
                number = self.cheapest(tables, max_drop)
                if number is not None and tables.cost.ravel()[number] < best.cost - 1e-12:
                    best, improved = self.point(tables, number), True
                    current = trials[number // len(self.routers)]
        return best

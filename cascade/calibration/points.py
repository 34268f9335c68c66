"""Operating points: a router and an exit policy each, and what they did on examples."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np
import numpy.typing as npt

from cascade.policies.exits import ExitPolicy
from cascade.policies.routing import Router

__all__ = ["OperatingPoint", "Points", "front"]

Table = npt.NDArray[np.float64]


@dataclass(frozen=True)
class OperatingPoint:
    """A router and an exit policy, and what they did on the examples.

    Attributes:
        router, exit_policy: as `Classifier.with_router` and `with_exit_policy` take them.
        accuracy: in [0, 1].
        drop: full-depth tier 2's accuracy on the same examples less this one; below 0 where it is better.
        drop_error: standard error of `drop`, the answers being paired.
        deferred: share of the examples that tier 2 answers.
        mean_layer: of the deferred; 0 where there are none.
        cost: relative to tier 2 at full depth without tier 1.
        blend: as `with_blend` takes it.
    """

    router: Router
    exit_policy: ExitPolicy
    accuracy: float
    drop: float
    drop_error: float
    deferred: float
    mean_layer: float
    cost: float
    blend: float = 0.0

    @property
    def predicted_speed_up(self) -> float:
        """Over tier 2 at full depth; infinite where nothing is paid."""
        return 1 / self.cost if self.cost else math.inf


@dataclass(frozen=True, eq=False)
class Points(Sequence[OperatingPoint]):
    """Replayed points as tables of shape `(exit policies, routers)`; indexing and iterating give `OperatingPoint`.

    Attributes:
        routers, exit_policies: the axes.
        examples: how many there were.
        full: how many of them tier 2 at full depth answers rightly.
        right: right answers.
        differ: examples on which exactly one of this point and full depth is right.
        deferred: share.
        mean_layer: of the deferred.
        cost: relative.
        blend: of all of them.
    """

    routers: tuple[Router, ...]
    exit_policies: tuple[ExitPolicy, ...]
    examples: int
    full: int
    right: Table = field(repr=False)
    differ: Table = field(repr=False)
    deferred: Table = field(repr=False)
    mean_layer: Table = field(repr=False)
    cost: Table = field(repr=False)
    blend: float = 0.0

    def __len__(self) -> int:
        return self.cost.size

    @overload
    def __getitem__(self, index: int) -> OperatingPoint: ...
    @overload
    def __getitem__(self, index: slice) -> list[OperatingPoint]: ...
    def __getitem__(self, index: int | slice) -> OperatingPoint | list[OperatingPoint]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        row, column = divmod(range(len(self))[index], len(self.routers))
        drop = (self.full - self.right[row, column]) / self.examples
        variance = max(self.differ[row, column] / self.examples - drop**2, 0.0)
        return OperatingPoint(
            router=self.routers[column],
            exit_policy=self.exit_policies[row],
            accuracy=float(self.right[row, column] / self.examples),
            drop=float(drop),
            drop_error=math.sqrt(variance / self.examples),
            deferred=float(self.deferred[row, column]),
            mean_layer=float(self.mean_layer[row, column]),
            cost=float(self.cost[row, column]),
            blend=self.blend,
        )

    def cheapest(self, max_drop: float) -> int | None:
        """Number of the cheapest point within the bound, or `None`; of equally cheap ones the most accurate."""
        # Counted in examples: half a point of 872 is 4 of them, whatever floating point makes of it.
        allowed = self.full - math.floor(max_drop * self.examples + 1e-9)
        within = np.flatnonzero(self.right.ravel() >= allowed)
        if not len(within):
            return None
        order = np.lexsort((-self.right.ravel()[within], self.cost.ravel()[within]))
        return int(within[order[0]])


def front(points: Points | Iterable[OperatingPoint]) -> list[OperatingPoint]:
    """The points that no other beats in both accuracy and cost, cheapest first (the Pareto front)."""
    if not isinstance(points, Points):
        found: list[OperatingPoint] = []
        for point in sorted(points, key=lambda point: (point.cost, -point.accuracy)):
            if not found or point.accuracy > found[-1].accuracy:
                found.append(point)
        return found
    right, cost = points.right.ravel(), points.cost.ravel()
    order = np.lexsort((-right, cost))
    best_before = np.concatenate(([-1], np.maximum.accumulate(right[order])[:-1]))
    return [points[int(number)] for number in order[right[order] > best_before]]

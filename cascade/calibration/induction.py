"""Thresholds of all decision points at once, by backward induction: one price of cost gives all of them.

Optimal stopping: V(last) = loss, V(m) = min(loss at m, price * cost of the next point + E[V(m + 1)]), where the
expectation is what items with such a score then really pay (Longstaff and Schwartz 2001). "When does confidence-based
cascade deferral suffice?" (NeurIPS 2023) is the case of two points; Dekoninck et al. (ICML 2025) prove the form with a
budget. With a rising price thresholds fall, so that prices are a path along which every item stops earlier and earlier.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cascade.calibration.chain import Chain
from cascade.core.rows import Doubles, FloatArray, IntArray
from cascade.policies.settings import Policies

LEAST, MOST = 1e-4, 3.0  # of the price: loss that may be suffered to spare the cost of full depth
PRICES = 160


@dataclass(frozen=True, eq=False)
class Priced:
    """Settings of a chain for rising prices, safest first, each cheaper than the one before it.

    `thresholds`: of each point but the last, shape `(settings, points - 1)`; `left`: the point at which each item
    stops, shape `(settings, items)`; `cost`: relative to full depth, shape `(settings,)`.
    """

    chain: Chain
    thresholds: Doubles
    left: IntArray
    cost: Doubles

    @classmethod
    def of(cls, chain: Chain, loss: Doubles, *, prices: int = PRICES, least: float = LEAST) -> Priced:
        """For what is lost where an item stops at a point, shape `(items, points)`, and so many prices."""
        # What a point costs on average: of single texts it would be noise to which thresholds have no answer.
        steps = np.diff(chain.paid.mean(axis=0), prepend=0.0)
        found = induced(chain.sure, loss, steps, np.geomspace(least, MOST, prices))
        found = chain.possible(np.minimum.accumulate(found, axis=0))
        found = np.unique(found, axis=0)[::-1] if found.size else found[:1]
        left = np.stack([chain.left(thresholds) for thresholds in found])
        cost = chain.paid[np.arange(len(loss)), left].mean(axis=1)
        cheaper = cost < np.append(np.inf, np.minimum.accumulate(cost)[:-1])
        return cls(chain, found[cheaper], left[cheaper], cost[cheaper])

    def rates(self, values: Doubles) -> Doubles:
        """Means over the items of what is known of each point. Shape `(items, points)` to `(settings,)`."""
        return np.asarray(values[np.arange(len(values)), self.left].mean(axis=1), dtype=np.float64)

    @property
    def deferred(self) -> Doubles:
        """Share of the items that another tier than the first answers. Shape `(settings,)`."""
        if self.chain.asked[0]:
            return np.ones(len(self.cost))
        return np.asarray((self.left >= len(self.chain.answers.tiers[0].layers or (1,))).mean(axis=1))

    def policies(self, number: int) -> Policies:
        """Of a setting."""
        return self.chain.policies(self.thresholds[number])


def induced(sure: FloatArray, loss: Doubles, steps: Doubles, prices: Doubles) -> Doubles:
    """Thresholds of each point but the last that minimise loss + price * cost, from the last but one to the first.

    `sure`: scores, `loss`: where an item stops, both of shape `(items, points)`; `steps`: cost of coming to each point
    from the one before it, shape `(points,)`; `prices`: of a unit of cost, shape `(prices,)`. Returned: shape `(prices,
    points - 1)`; 0 lets all items stop, 1 none that is not quite sure.
    """
    found = np.ones((len(prices), len(steps) - 1))
    paid = np.broadcast_to(loss[:, -1], (len(prices), len(loss)))
    for point in reversed(range(len(steps) - 1)):
        going = prices[:, None] * steps[point + 1] + paid
        order = np.argsort(-sure[:, point], kind="stable")
        ranked = sure[order, point]
        # The surest stop, however many; equal ones together.
        sums = np.cumsum(np.pad((loss[:, point] - going)[:, order], ((0, 0), (1, 0))), axis=1)
        edges = np.flatnonzero(np.concatenate([ranked[:1] < 1, ranked[1:] < ranked[:-1], [True]]))
        count = edges[sums[:, edges].argmin(axis=1)]
        cuts = {0: 1.0, len(loss): 0.0}
        cuts |= {one: between(ranked[one], ranked[one - 1]) for one in np.unique(count).tolist() if one not in cuts}
        found[:, point] = [cuts[one] for one in count.tolist()]
        stop = sure[:, point] >= found[:, point, None].astype(np.float32)
        paid = np.where(stop, loss[:, point], going)
    return found


def between(low: float, high: float) -> float:
    """The number with fewest digits in the middle half between two confidences; `high` where they are too near.

    Not on a confidence, because that may differ by float rounding when the model runs again.
    """
    low, high = float(low), float(high)
    edge = (high - low) / 4
    for digits in range(1, 10):
        rounded = round((low + high) / 2, digits)
        if low + edge <= float(np.float32(rounded)) <= high - edge and rounded >= 0:
            return rounded
    return high

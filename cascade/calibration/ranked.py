"""Rows by how sure tier 1 is: a threshold defers a prefix, so sums over prefixes give all thresholds at once, in O(n).

A router and an exit policy come in as `Tunable` policies: their score says how sure they are, `at` makes the policy
with a threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cascade.calibration.leaving import state_at
from cascade.calibration.texts import TextAnswers
from cascade.core.rows import BoolArray, Doubles, FloatArray, IntArray
from cascade.policies.exits import AtExit, ExitPolicy, MaxProbability, any_of, never
from cascade.policies.registry import Tunable
from cascade.policies.routing import Router, Threshold


@dataclass(frozen=True)
class Tuned:
    """The policies whose thresholds are chosen; the largest probability unless others are given."""

    router: Tunable = field(default_factory=lambda: Threshold(0.5))
    exit_policy: Tunable = field(default_factory=lambda: MaxProbability(0.5))

    @classmethod
    def of(cls, router: Router, exit_policy: ExitPolicy) -> Tuned:
        """What can be tuned of these, the exit policy or a part of an `any_of`; the default in place of others."""
        own: object = router
        found = own if isinstance(own, Tunable) else cls().router
        parts = (exit_policy, *getattr(exit_policy, "policies", ()))
        return cls(found, next((part for part in parts if isinstance(part, Tunable)), cls().exit_policy))


@dataclass(frozen=True, eq=False)
class Ranked:
    """Rows in the order of tier 1's score, least sure first. Make it with `Ranked.of`.

    `order`: numbers of the rows; `sure1`: score of tier 1; `lengths`: tokens, shape `(rows,)` each; `sure`: score of
    each exit, shape `(rows, exits)`; `blend`: how much tier 1's answer counts beside that of each exit.
    """

    answers: TextAnswers
    tuned: Tuned
    blend: float
    order: IntArray
    sure1: FloatArray
    sure: FloatArray
    lengths: Doubles

    @classmethod
    def of(cls, answers: TextAnswers, tuned: Tuned, *, blend: float = 0.0) -> Ranked:
        """Ask both policies for their scores."""
        several, both = answers.multi_label, answers.blended(blend)
        states = [state_at(both, answers.layers, index, multi_label=several) for index in range(both.shape[1])]
        sure1 = _number(tuned.router.score(answers.routing_state))[answers.items]
        sure = np.stack([_number(tuned.exit_policy.score(state)) for state in states], axis=1)
        order = np.argsort(sure1, kind="stable")
        lengths = answers.lengths[order].astype(np.float64)
        return cls(answers, tuned, blend, order, sure1[order], sure[order], lengths)

    @property
    def last(self) -> int:
        """Number of the last exit."""
        return len(self.answers.layers) - 1

    def below(self, thresholds: Sequence[float]) -> IntArray:
        """How many rows each of these thresholds defers. Shape `(k,)`."""
        return np.searchsorted(self.sure1, np.asarray(thresholds, dtype=np.float32)).astype(np.int64)

    def left(self, thresholds: Sequence[float] | float, cap: int | None = None) -> IntArray:
        """The exit at which each row leaves, from 0: the first whose score reaches its threshold, `cap` at the latest.

        `thresholds`: one for each exit but the last, or one for all. Shape `(rows,)`.
        """
        cap = self.last if cap is None else cap
        if not self.last:
            return np.zeros(len(self.order), dtype=np.int64)
        leave: BoolArray = self.sure[:, :-1] >= np.asarray(thresholds, dtype=np.float32)
        return np.minimum(np.where(leave.any(axis=1), leave.argmax(axis=1), self.last), cap)

    def policy(self, thresholds: tuple[float, ...] | float | None, cap: int | None = None) -> ExitPolicy:
        """The exit policy with these thresholds (`None`: no exit by score) and a cap after an exit."""
        cap = self.last if cap is None else cap
        cut = AtExit(self.answers.layers[cap])
        if thresholds is None or not cap:
            return never if cap == self.last else cut
        policy: ExitPolicy = self.tuned.exit_policy.at(thresholds)
        return policy if cap == self.last else any_of(policy, cut)

    def cost(self, left: IntArray, deferred: IntArray) -> Doubles:
        """Relative to tier 2 at full depth, where so many of the least sure rows are deferred. Shape `(k,)`."""
        costs, whole = self.answers.costs, self.lengths.sum()
        upto = costs.embed + np.cumsum(costs.stages)
        paid = (costs.tier1 + costs.always) * whole + self.prefix(self.lengths * upto[left], deferred)
        return np.asarray(paid / (costs.full * whole))

    @staticmethod
    def prefix(values: npt.NDArray[np.generic], upto: IntArray) -> Doubles:
        """Sums over the first so many. Shapes `(rows,)` and `(k,)` to `(k,)`."""
        sums: Doubles = np.append(0.0, np.cumsum(values, dtype=np.float64))[upto]
        return sums


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


def _number(sure: FloatArray) -> FloatArray:
    # NaN compares as unsure in every policy; so does -1 here, and it can be sorted.
    return np.where(np.isnan(sure), np.float32(-1), sure)

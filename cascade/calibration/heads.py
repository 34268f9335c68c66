"""Tier 1 and every exit side by side, reduced to what a path of thresholds needs to know of the choosing share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cascade.calibration.answers import Answers
from cascade.calibration.claims import Ask
from cascade.calibration.curves import Curve, Risk
from cascade.calibration.examples import Costs
from cascade.calibration.losses import differ, lost
from cascade.core.confidence import answers as answers_of
from cascade.core.confidence import max_probability
from cascade.core.rows import FloatArray, IntArray
from cascade.policies.exits import AtExit, ExitPolicy, MaxProbability, any_of, never
from cascade.policies.routing import Router, Threshold

__all__ = ["Heads", "Sure"]

LEAST = 1e-5  # a risk below which nothing is tried


@dataclass(frozen=True, eq=False)
class Sure:
    """What tier 1's threshold is compared with, and the router that does so; see `helping.Choice`.

    Attributes:
        values: higher is surer. Shape `(rows,)`.
        at: the router with a threshold.
    """

    values: FloatArray
    at: Callable[[float], Router] = Threshold


@dataclass(frozen=True, eq=False)
class Heads:
    """Tier 1 and every exit: how sure, and what each row loses where it is answered there, half counted, half guessed.

    Rows are in the order of tier 1's confidence, least sure first.

    Attributes:
        sure1: what tier 1's threshold is compared with. Shape `(rows,)`.
        sure: confidence at each exit. Shape `(rows, exits)`.
        risk: that the answer there is another than at full depth. Same shape.
        loss: of tier 1 and each exit. Shape `(rows, 1 + exits)`.
        floors: events where everyone leaves at an exit. Shape `(exits,)`.
        curves: from confidence to risk, of tier 1 and each exit.
    """

    layers: tuple[int, ...]
    lengths: Risk
    costs: Costs
    at: Callable[[float], Router]
    blend: float
    sure1: FloatArray
    sure: FloatArray
    risk: Risk
    loss: Risk
    floors: IntArray
    curves: list[Curve]

    @classmethod
    def of(cls, answers: Answers, costs: Costs, ask: Ask, sure: Sure, blend: float) -> Heads:
        several, both = answers.multi_label, answers.blended(blend)
        probabilities = [answers.tier1, *np.moveaxis(both, 1, 0)]
        given = [answers_of(head, multi_label=several) for head in probabilities]
        full = answers_of(answers.tier2[:, -1], multi_label=several)
        goal = answers.goal()[answers.documents]
        changed = np.stack([differ(answer, full) for answer in given], axis=1)
        counted = np.stack([lost(ask, answer, full, goal) for answer in given], axis=1)
        confidence = [sure.values, *(max_probability(head, multi_label=several) for head in probabilities[1:])]
        curves = [Curve.fit(values, changed[:, head]) for head, values in enumerate(confidence)]
        risk = np.stack([curve.risk(values) for curve, values in zip(curves, confidence, strict=True)], axis=1)
        if not blend:
            risk[:, -1] = 0.0  # full depth does not differ from itself
        # How many of the answers that differ count is told better by all heads together than by each.
        share = min((counted.sum() + 0.5) / (changed.sum() + 0.5), 1.0)
        order = np.argsort(sure.values, kind="stable")
        return cls(
            layers=answers.layers,
            lengths=answers.lengths[order].astype(np.float64),
            costs=costs,
            at=sure.at,
            blend=blend,
            sure1=sure.values[order],
            sure=np.stack(confidence[1:], axis=1)[order],
            risk=risk[order, 1:],
            loss=((counted + share * risk) / 2)[order],
            floors=counted[:, 1:].sum(axis=0),
            curves=curves,
        )

    def spread(self, count: int) -> list[float]:
        """Thresholds of risk, rising, even in their logarithms."""
        inner = self.risk[:, :-1]
        highest = max(float(inner.max()) if inner.size else 0.0, 0.5)
        found: list[float] = np.geomspace(LEAST, highest, count).tolist()
        return found

    def least(self, risk: float) -> tuple[float, ...]:
        """Confidence from which exits but the last are left."""
        return tuple(curve.least_confidence(risk) for curve in self.curves[1:-1])

    def policy(self, risk: float, cap: int) -> ExitPolicy:
        """Who leaves: those whose risk is so small, and everyone at the cap."""
        last = len(self.layers) - 1
        cut = AtExit(self.layers[cap])
        if not cap:
            return cut if last else never
        least = self.least(risk)
        if min(least) >= 1:  # of a head that is too sure of itself a threshold of 1 would let some go
            return never if cap == last else cut
        return MaxProbability(least) if cap == last else any_of(MaxProbability(least), cut)

    def left(self, risk: float, cap: int) -> IntArray:
        """Number of the exit, from 0, at which `policy` lets every row leave. Shape `(rows,)`."""
        least = self.least(risk)
        if not least or min(least) >= 1:
            return np.full(len(self.sure), cap)
        leave = self.sure[:, :-1] >= np.asarray(least, dtype=np.float32)
        return np.minimum(np.where(leave.any(axis=1), leave.argmax(axis=1), cap), cap)

    def sums(self, left: IntArray, deferred: IntArray) -> tuple[Risk, Risk]:
        """What is lost and what it costs, where so many of the least sure rows are deferred.

        Args:
            left: the exit of every row.
            deferred: shape `(k,)`.

        Returns:
            Lost, as a share of the rows, and cost relative to full depth. Both of shape `(k,)`.
        """
        upto, whole = np.cumsum(self.costs.stages), self.lengths.sum()
        second = _prefix(self.loss[np.arange(len(left)), left + 1], deferred)
        first = self.loss[:, 0].sum() - _prefix(self.loss[:, 0], deferred)
        paid = (self.costs.tier1 + self.costs.always) * whole + _prefix(self.lengths * upto[left], deferred)
        return (first + second) / len(left), paid / (self.costs.full * whole)

    def below(self, thresholds: Sequence[float]) -> IntArray:
        """How many rows tier 1 is less sure of than each of these."""
        return np.searchsorted(self.sure1, np.asarray(thresholds, dtype=np.float32)).astype(np.int64)


def _prefix(values: Risk, upto: IntArray) -> Risk:
    """Sums over the first so many. Shape `(n,)` and `(k,)` to `(k,)`."""
    sums: Risk = np.append(0.0, np.cumsum(values))[upto]
    return sums

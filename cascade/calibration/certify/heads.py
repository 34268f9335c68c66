"""Tier 1 and every exit of a classifier, reduced to what a path of thresholds needs to know of the choosing share.

A logistic curve on the log-odds of the score (Platt 1999) gives all of them one unit, in which a threshold means the
same everywhere; its mean is a smoother guess of what is lost than a count. The test decides, guesses only order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cascade.calibration.certify.claims import RiskTarget
from cascade.calibration.certify.events import differ, lost
from cascade.calibration.logistic import fit_logistic
from cascade.calibration.ranked import Ranked
from cascade.core.confidence import answers as answers_of
from cascade.core.rows import BoolArray, Doubles, FloatArray, IntArray
from cascade.policies.exits import ExitPolicy

LEAST = 1e-5  # a risk below which nothing is tried
_NEAREST = 1e-7  # float32 has nothing nearer to 1
STRENGTH = 10.0  # of the data beside the penalty; at 1 SST-2's curves were too flat to order settings well


@dataclass(frozen=True)
class Curve:
    """Risk as a falling function of the score: 1 / (1 + exp(-(intercept - slope * log-odds))), the slope at least 0."""

    intercept: float
    slope: float

    @classmethod
    def fit(cls, score: FloatArray, event: BoolArray) -> Curve:
        """By penalised maximum likelihood. Both of shape `(examples,)`."""
        seen = int(event.sum())
        if 0 < seen < len(event):
            weights, intercept = fit_logistic(_log_odds(score)[:, None], event, strength=STRENGTH)
            if weights[0] <= 0:
                return cls(intercept, -float(weights[0]))
            # A higher score is not riskier; where a sample says so it is chance.
            return cls(math.log(seen / (len(event) - seen)), 0.0)
        rate = (seen + 0.5) / (len(event) + 1)  # nothing to fit; what such a count says of the rate (Laplace)
        return cls(math.log(rate / (1 - rate)), 0.0)

    def risk(self, score: FloatArray) -> Doubles:
        """Of answers with these scores. Same shape."""
        return 1 / (1 + np.exp(self.slope * _log_odds(score) - self.intercept))

    def least_score(self, risk: float) -> float:
        """The score from which the risk is no larger than this (above 0), to three digits of what is missing to 1.

        Towards 1 where hardly any answer is so safe (a score that float32 rounds to 1 still reaches it), 0 where all
        are.
        """
        if risk >= 1:
            return 0.0
        missing = self.intercept - math.log(risk / (1 - risk))
        if not self.slope:
            return 0.0 if missing <= 0 else 1.0
        doubt = 1 / (1 + math.exp(min(max(missing / self.slope, -700.0), 700.0)))
        # Three digits are short in a manifest.
        return round(1 - float(f"{doubt:.3g}"), 9) if doubt > _NEAREST else 1.0


def _log_odds(score: FloatArray) -> Doubles:
    sure = np.clip(score.astype(np.float64), _NEAREST, 1 - _NEAREST)
    return np.log(sure) - np.log1p(-sure)


@dataclass(frozen=True, eq=False)
class Heads:
    """What each row loses where it is answered by tier 1 or an exit, half counted, half guessed. See `Heads.of`.

    Attributes:
        ranked: the rows, least sure first, as in the other arrays.
        risk: that the answer at an exit is another than the one that it is compared with. Shape `(rows, exits)`.
        loss: of tier 1 and each exit. Shape `(rows, 1 + exits)`.
        floors: events where every row exits at the same exit. Shape `(exits,)`.
        curves: from score to risk, of tier 1 and each exit.
    """

    ranked: Ranked
    risk: Doubles
    loss: Doubles
    floors: IntArray
    curves: tuple[Curve, ...]

    @classmethod
    def of(cls, ranked: Ranked, ask: RiskTarget) -> Heads:
        """Fit a curve for each head."""
        answers, order = ranked.answers, ranked.order
        several, both = answers.multi_label, answers.blended(ranked.blend)[order]
        given = [
            answers_of(head, multi_label=several)
            for head in (answers.tier1[answers.items[order]], *np.moveaxis(both, 1, 0))
        ]
        full = answers_of(answers.tier2[order, -1], multi_label=several)
        full = full if answers.original is None else answers.original[answers.items][order]
        goal = full if answers.truth is None else answers.goal[answers.items][order]
        changed = np.stack([differ(answer, full) for answer in given], axis=1)
        counted = np.stack([lost(ask, answer, full, goal) for answer in given], axis=1)
        scores = [ranked.sure1, *ranked.sure.T]
        curves = tuple(Curve.fit(score, changed[:, head]) for head, score in enumerate(scores))
        risk = np.stack([curve.risk(score) for curve, score in zip(curves, scores, strict=True)], axis=1)
        if not ranked.blend and answers.original is None:
            risk[:, -1] = 0.0  # full depth does not differ from itself
        # Which share of the answers that differ is counted is told better by all heads together than by each.
        share = min((counted.sum() + 0.5) / (changed.sum() + 0.5), 1.0)
        return cls(ranked, risk[:, 1:], (counted + share * risk) / 2, counted[:, 1:].sum(axis=0), curves)

    def spread(self, count: int) -> list[float]:
        """Thresholds of risk, rising, even in their logarithms."""
        inner = self.risk[:, :-1]
        found: list[float] = np.geomspace(LEAST, max(float(inner.max()) if inner.size else 0.0, 0.5), count).tolist()
        return found

    def threshold(self, risk: float) -> float:
        """Of the router: the score from which tier 1's answer is as safe as this."""
        return self.curves[0].least_score(risk)

    def policy(self, risk: float, cap: int) -> ExitPolicy:
        """Rows exit whose risk is so small, and all at the cap."""
        return self.ranked.policy(self._least(risk), cap)

    def left(self, risk: float, cap: int) -> IntArray:
        """Number of the exit, from 0, at which `policy` lets every row exit. Shape `(rows,)`."""
        least = self._least(risk)
        if least is None:
            return np.full(len(self.risk), cap)
        return self.ranked.left(least, cap)

    def sums(self, left: IntArray, deferred: IntArray) -> tuple[Doubles, Doubles]:
        """What is lost, as a share of the rows, and relative cost, where so many of the least sure rows are deferred.

        `left`: the exit of every row. Shape `(k,)` of `deferred` to two of the same.
        """
        prefix, rows = self.ranked.prefix, len(left)
        second = prefix(self.loss[np.arange(rows), left + 1], deferred)
        first = self.loss[:, 0].sum() - prefix(self.loss[:, 0], deferred)
        return (first + second) / rows, self.ranked.cost(left, deferred)

    def _least(self, risk: float) -> tuple[float, ...] | None:
        """Scores from which a row exits; `None` where no row shall."""
        least = tuple(curve.least_score(risk) for curve in self.curves[1:-1])
        # A head that is too sure of itself would let some rows exit at a threshold of 1.
        return least if least and min(least) < 1 else None

"""What is lost where an item is answered at a decision point: what a path needs to know of the choosing share.

A logistic curve on the log-odds of the score (Platt 1999) tells how likely another answer is; its mean is a smoother
guess of what is lost than a count. The test decides, guesses only order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from cascade.calibration.certify.claims import RiskTarget
from cascade.calibration.certify.events import differ, lost
from cascade.calibration.chain import Chain
from cascade.core.rows import BoolArray, Doubles, FloatArray

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
            weight, intercept = _fitted(_log_odds(score), event)
            if weight <= 0:
                return cls(intercept, -weight)
            # A higher score is not riskier; where a sample says so it is chance.
            return cls(math.log(seen / (len(event) - seen)), 0.0)
        rate = (seen + 0.5) / (len(event) + 1)  # nothing to fit; what such a count says of the rate (Laplace)
        return cls(math.log(rate / (1 - rate)), 0.0)

    def risk(self, score: FloatArray) -> Doubles:
        """Of answers with these scores. Same shape."""
        return 1 / (1 + np.exp(self.slope * _log_odds(score) - self.intercept))


def _fitted(inputs: Doubles, event: BoolArray) -> tuple[float, float]:
    """Weight and intercept of the logistic regression with a ridge penalty on the weight: weight^2 / (2 * STRENGTH)."""
    design, penalty = np.column_stack([inputs, np.ones(len(inputs))]), np.array([1 / STRENGTH, 0.0])

    def loss(found: Doubles) -> tuple[float, Doubles]:
        odds = design @ found
        value = np.logaddexp(0, odds).sum() - event @ odds + penalty @ found**2 / 2
        slope = design.T @ (expit(odds) - event) + penalty * found
        return float(value) / len(event), slope / len(event)

    weight, intercept = minimize(loss, np.zeros(2), jac=True, method="BFGS", options={"gtol": 1e-7}).x.tolist()
    return weight, intercept


def _log_odds(score: FloatArray) -> Doubles:
    sure = np.clip(score.astype(np.float64), _NEAREST, 1 - _NEAREST)
    return np.log(sure) - np.log1p(-sure)


@dataclass(frozen=True, eq=False)
class Losses:
    """Of each item at each point of a chain: what is `counted`, and what is `likely`. Shape `(items, points)` both.

    Thresholds are chosen by what is likely: of the counts among a few hundred items they would learn the luck.
    """

    counted: BoolArray
    likely: Doubles

    @classmethod
    def of(cls, chain: Chain, ask: RiskTarget) -> Losses:
        """Fit a curve for each point."""
        answers = chain.answers
        full, points = answers.reference, range(chain.points)
        changed = np.stack([differ(chain.given[:, point], full) for point in points], axis=1)
        counted = np.stack([lost(ask, chain.given[:, point], full, answers.goal) for point in points], axis=1)
        risk = np.stack([Curve.fit(own, seen).risk(own) for own, seen in zip(chain.sure.T, changed.T, strict=True)])
        if answers.original is None and not chain.blend:
            risk[-1] = 0.0  # full depth does not differ from itself
        # Which share of the answers that differ is counted is told better by all points together than by each.
        share = min((counted.sum() + 0.5) / (changed.sum() + 0.5), 1.0)
        return cls(counted, share * risk.T)

    @property
    def guessed(self) -> Doubles:
        """Half counted, half likely. Shape `(items, points)`."""
        return (self.counted + self.likely) / 2

"""The settings of a classifier that are tested, in the order of the test, found on examples that take no part in it.

One price moves along a path (`induction`). So every item exits at the same place or earlier at each step, what is lost
grows step by step, and a test that goes on until it fails goes far. Of the paths of all choices of tiers and blends the
cheapest is taken; a tier that does not pay is not asked. What is lost at a point is half counted, half guessed from a
logistic curve on the log-odds of the score (Platt 1999), smoother than counts. The test decides, guesses only order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from cascade.calibration.certify.bounds import upper_limit
from cascade.calibration.certify.claims import RiskTarget
from cascade.calibration.certify.events import differ, lost
from cascade.calibration.certify.outcomes import Step
from cascade.calibration.chain import Chain, chains
from cascade.calibration.induction import LEAST, PRICES, Priced
from cascade.calibration.texts import TextAnswers
from cascade.core.rows import BoolArray, Doubles, FloatArray
from cascade.policies.settings import Policies

SPENT = 0.6  # of the bound, where paths are compared: about what a test of some thousand examples allows
REACH = 3.0  # how far a path goes, as a multiple of the bound: the guess may be too high
FLOOR = 0.5  # of the bound, that a blend may lose wherever no exit is taken


@dataclass(frozen=True)
class PathGrid:
    """Which paths are tried: for how many `prices`, with which `blends`, and how many `steps` they have at most.

    `blends`: how much the answer of a tier counts beside those of the next one; `least`: the lowest price.
    """

    prices: int = PRICES
    least: float = LEAST
    steps: int = 120
    blends: tuple[float, ...] = (0.0, 0.3, 0.6)


def text_path(
    answers: TextAnswers,
    ask: RiskTarget,
    *,
    like: Policies | Sequence[Policies] | None = None,
    grid: PathGrid | None = None,
) -> tuple[Step, ...]:
    """Settings in the order in which they are to be tested, safest first: rising in risk, falling in cost.

    `answers` are of the choosing share; `like`: policies whose kinds of router and exit policy get thresholds. The path
    may be empty: where nothing that was tried is cheaper than the last tier at full depth.
    """
    grid = grid or PathGrid()
    best: tuple[float, Priced, Doubles] | None = None
    for chain in chains(answers, blends=grid.blends, like=like):
        losses = Losses.of(chain, ask)
        # Without a blend a path begins where nothing is lost. With one it does not, and if that is more than it seemed
        # here, or all of it in one class that counts separately, nothing at all is certified.
        most = -1.0 if ask.per_class else FLOOR * ask.bound
        if chain.blend and upper_limit(int(losses.counted[:, -1].sum()), len(answers), confidence=0.9) > most:
            continue
        priced = Priced.of(chain, losses.likely, prices=grid.prices, least=grid.least)
        risk = priced.rates((losses.counted + losses.likely) / 2)
        score = _score(priced.cost, risk, ask)
        if best is None or score < best[0]:
            best = score, priced, risk
    if best is None or not math.isfinite(best[0]):
        return ()
    return _steps(best[1], best[2], ask, grid)


def _score(cost: Doubles, risk: Doubles, ask: RiskTarget) -> float:
    """Cost where the bound is nearly used up; the lower the better."""
    within = np.flatnonzero((risk <= ask.bound * SPENT) & (cost < 1))
    if len(within):
        return float(cost[within].min())
    # None keeps so far away from the bound: then the one that does best.
    usable = np.flatnonzero(cost < 1)
    return 1 + float(risk[usable].min()) if len(usable) else math.inf


def _steps(priced: Priced, risk: Doubles, ask: RiskTarget, grid: PathGrid) -> tuple[Step, ...]:
    cost, deferred = priced.cost, priced.deferred
    kept = np.flatnonzero(cost < 1)
    # Risk may fall for a while where tiers are asked together; what is far beyond the bound is not wanted.
    kept = kept[np.maximum.accumulate(risk[kept]) <= ask.bound * REACH] if len(kept) else kept
    if len(kept) > grid.steps:  # even in cost, so that none saves much more than the one before it
        wanted = np.linspace(cost[kept[0]], cost[kept[-1]], grid.steps)
        kept = kept[np.unique(np.minimum(np.searchsorted(-cost[kept], -wanted), len(kept) - 1))]
    return tuple(
        Step(priced.policies(number), float(risk[number]), float(cost[number]), float(deferred[number]))
        for number in kept.tolist()
    )


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
        full, points = answers.reference, range(chain.sure.shape[1])
        changed = np.stack([differ(chain.given[:, point], full) for point in points], axis=1)
        counted = np.stack([lost(ask, chain.given[:, point], full, answers.goal) for point in points], axis=1)
        risk = np.stack([Curve.fit(own, seen).risk(own) for own, seen in zip(chain.sure.T, changed.T, strict=True)])
        if answers.original is None and not chain.blend:
            risk[-1] = 0.0  # full depth does not differ from itself
        # Which share of the answers that differ is counted is told better by all points together than by each.
        share = min((counted.sum() + 0.5) / (changed.sum() + 0.5), 1.0)
        return cls(counted, share * risk.T)

"""The settings of a classifier that are tested, in the order of the test, found on examples that take no part in it.

One price moves along a path (`induction`). So every item exits at the same place or earlier at each step, what is lost
grows step by step, and a test that goes on until it fails goes far. Of the paths of all choices of tiers and blends the
cheapest is taken; a tier that does not pay is not asked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cascade.calibration.certify.bounds import upper_limit
from cascade.calibration.certify.claims import RiskTarget
from cascade.calibration.certify.losses import Losses
from cascade.calibration.certify.outcomes import Step
from cascade.calibration.chain import chains
from cascade.calibration.induction import PRICES, Priced
from cascade.calibration.texts import TextAnswers
from cascade.core.rows import Doubles
from cascade.policies.settings import Policies

SPENT = 0.6  # of the bound, where paths are compared: about what a test of some thousand examples allows
REACH = 3.0  # how far a path goes, as a multiple of the bound: the guess may be too high
FLOOR = 0.5  # of the bound, that a blend may lose wherever no exit is taken


@dataclass(frozen=True)
class PathGrid:
    """Which paths are tried: for how many `prices`, with which `blends`, and how many `steps` they have at most.

    `blends`: how much the answer of a tier counts beside those of the next one.
    """

    prices: int = PRICES
    steps: int = 120
    blends: tuple[float, ...] = (0.0, 0.3, 0.6)


def text_path(
    answers: TextAnswers, ask: RiskTarget, *, like: Policies | None = None, grid: PathGrid | None = None
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
        priced = Priced.of(chain, losses.likely, prices=grid.prices)
        risk = priced.rates(losses.guessed)
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

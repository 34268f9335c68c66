"""The settings of a classifier that are tested, in the order of the test, found on examples that take no part in it.

One number moves along a path: the risk up to which an exit's answer is taken, that of tier 1 being a fixed multiple. So
every row exits at the same place or earlier at each step, what is lost grows step by step, and a test that goes on
until it fails goes far. (On SST-2 the front of all pairs of thresholds reached less: one bad step ends the test.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cascade.calibration.certify.bounds import upper_limit
from cascade.calibration.certify.claims import RiskTarget
from cascade.calibration.certify.heads import Heads
from cascade.calibration.certify.outcomes import Step
from cascade.calibration.ranked import Ranked, Tuned
from cascade.calibration.runs import two_tiers
from cascade.calibration.texts import TextAnswers
from cascade.core.rows import Doubles
from cascade.policies.routing import defer_all

SPENT = 0.6  # of the bound, where paths are compared: about what a test of some thousand examples allows
REACH = 3.0  # how far a path goes, as a multiple of the bound: the guess may be too high
FLOOR = 0.5  # of the bound, that a cap or a blend may lose wherever tier 1 and exits are left alone


@dataclass(frozen=True)
class PathGrid:
    """Which paths are tried: by how many `risks` they are compared, and how many `steps` they have at most.

    `ratios`: of the risk in tier 1 to that at exits, 0 where tier 1 shall not be asked at all; `blends`: how much tier
    1's answer may count beside tier 2's.
    """

    risks: int = 48
    steps: int = 120
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0)
    blends: tuple[float, ...] = (0.0, 0.3, 0.6)


def text_path(
    answers: TextAnswers, ask: RiskTarget, *, tuned: Tuned | None = None, grid: PathGrid | None = None
) -> tuple[Step, ...]:
    """Settings in the order in which they are to be tested, safest first: rising in risk, falling in cost.

    `answers` are of the choosing share; windows of a long text count as one example each. The path may be empty: where
    nothing that was tried is cheaper than tier 2 at full depth.
    """
    grid = grid or PathGrid()
    best: tuple[float, _Line] | None = None
    for blend in dict.fromkeys((0.0, *grid.blends)):
        heads = Heads.of(Ranked.of(answers, tuned or Tuned(), blend=blend), ask)
        for line in _lines(heads, grid, ask):
            score = line.score(ask)
            if best is None or score < best[0]:
                best = score, line
    if best is None or not math.isfinite(best[0]):
        return ()
    return best[1].steps(ask, grid)


@dataclass(frozen=True, eq=False)
class _Line:
    """A path, from the least risk up: loss and cost (`Heads.sums`) and the share deferred for each risk at exits.

    In tier 1 the risk is `ratio` times that, 0 without tier 1; after the exit of number `cap` no row goes on.
    """

    heads: Heads
    ratio: float
    cap: int
    risks: Sequence[float]
    loss: Doubles
    cost: Doubles
    deferred: Doubles

    @classmethod
    def of(cls, heads: Heads, ratio: float, cap: int, risks: Sequence[float]) -> _Line:
        deferred, spared = np.full(len(risks), len(heads.risk)), 0.0
        if ratio:
            deferred = heads.ranked.below([heads.threshold(ratio * risk) for risk in risks])
        else:
            spared = heads.ranked.answers.costs.tier1 / heads.ranked.answers.costs.full
        pairs = [heads.sums(heads.left(risk, cap), deferred[number : number + 1]) for number, risk in enumerate(risks)]
        loss, cost = (np.concatenate(column) for column in zip(*pairs, strict=True))
        return cls(heads, ratio, cap, risks, loss, cost - spared, deferred / len(heads.risk))

    def score(self, ask: RiskTarget) -> float:
        """Cost where the bound is nearly used up; the lower the better."""
        within = np.flatnonzero((self.loss <= ask.bound * SPENT) & (self.cost < 1))
        if len(within):
            return float(self.cost[within].min())
        # None keeps so far away from the bound: then the one that does best.
        usable = np.flatnonzero(self.cost < 1)
        return 1 + float(self.loss[usable].min()) if len(usable) else math.inf

    def steps(self, ask: RiskTarget, grid: PathGrid) -> tuple[Step, ...]:
        """Of the same path, closer together, those that differ."""
        fine = _Line.of(self.heads, self.ratio, self.cap, self.heads.spread(8 * grid.steps))
        usable = np.flatnonzero(fine.cost < 1)
        _, first = np.unique(np.stack([fine.cost[usable], fine.deferred[usable]]), axis=1, return_index=True)
        kept = usable[np.sort(first)]
        # Risk may fall for a while where both tiers are asked together; what is far beyond the bound is not wanted.
        kept = kept[np.maximum.accumulate(fine.loss[kept]) <= ask.bound * REACH] if len(kept) else kept
        if len(kept) > grid.steps:  # even in cost, so that none saves much more than the one before it
            wanted = np.linspace(fine.cost[kept[0]], fine.cost[kept[-1]], grid.steps)
            kept = kept[np.unique(np.minimum(np.searchsorted(-fine.cost[kept], -wanted), len(kept) - 1))]
        return tuple(fine._step(int(number)) for number in kept)

    def _step(self, number: int) -> Step:
        heads, taken = self.heads, self.risks[number]
        policies = two_tiers(
            heads.ranked.tuned.router.at(heads.threshold(self.ratio * taken)) if self.ratio else defer_all,
            heads.policy(taken, self.cap),
            blend=heads.ranked.blend,
            temperatures=heads.ranked.answers.temperatures,
        )
        return Step(policies, float(self.loss[number]), float(self.cost[number]), float(self.deferred[number]))


def _lines(heads: Heads, grid: PathGrid, ask: RiskTarget) -> list[_Line]:
    """A path for each ratio, and for each cap that is known to be safe enough."""
    risks, last = heads.spread(grid.risks), heads.ranked.last
    # Without cap and blend the path begins where nothing is lost. With them it does not, and if that is more than
    # it seemed here, or all of it in one class that counts separately, nothing at all is certified.
    most = -1.0 if ask.per_class else FLOOR * ask.bound
    uppers = upper_limit(heads.floors, len(heads.risk), confidence=0.9)
    caps = [cap for cap in range(last + 1) if uppers[cap] <= most or (cap == last and not heads.ranked.blend)]
    ratios = [ratio for ratio in grid.ratios if ratio or not heads.ranked.blend]
    return [_Line.of(heads, ratio, cap, risks) for ratio in ratios for cap in caps]

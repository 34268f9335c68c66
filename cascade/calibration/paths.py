"""Which settings are tested, and in which order: found on examples that take no part in the test.

One number moves along a path: the risk (`curves`) up to which an exit's answer is taken. With it moves the risk up to
which tier 1's is, a fixed multiple, as leaving there saves more. So every text leaves at the same place or earlier at
each step, what is lost grows step by step, and a test that goes on until it fails goes far. (On SST-2 the front of all
pairs of thresholds reached less: neighbours on it are too different, and one bad step ends the test.)

Which multiple, cap on depth and blend a path has is chosen: the one that is expected to be cheapest where it has used
up most of the bound. What settings lose is a guess for that, half of it counted and half smoothed by the curves. Rows
are sorted by tier 1's confidence, so sums over prefixes give all its thresholds at once (as in
`calibration.thresholds`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cascade.calibration.answers import Answers
from cascade.calibration.bounds import upper_bounds
from cascade.calibration.claims import Ask, MaxDeferred, MeanCost
from cascade.calibration.curves import Risk
from cascade.calibration.examples import Costs
from cascade.calibration.heads import Heads, Sure
from cascade.calibration.replay import Setting
from cascade.calibration.thresholds import cuts
from cascade.core.confidence import max_probability
from cascade.policies.exits import ExitPolicy, never
from cascade.policies.routing import Router, defer_all, defer_none

__all__ = ["Grid", "Step", "Sure", "path"]

SPENT = 0.6  # of the bound, where paths are compared: about what a test of some thousand examples allows
REACH = 3.0  # how far a path goes, as a multiple of the bound: the guess may be too high
SLACK = 0.05  # what exits may add to the harm of tier 1 where deferral is what is bounded, as a share of it
FLOOR = 0.5  # of the bound, that a cap or a blend may lose wherever tier 1 and exits are left alone


@dataclass(frozen=True)
class Grid:
    """Which settings are tried.

    Attributes:
        risks: thresholds of risk, while paths are compared.
        steps: settings on the path, at most.
        ratios: of the risk that is taken in tier 1 to that at exits.
        blends: how much tier 1's answer may count beside tier 2's.
    """

    risks: int = 48
    steps: int = 120
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0)
    blends: tuple[float, ...] = (0.0, 0.3, 0.6)


@dataclass(frozen=True)
class Step:
    """A setting of the path, and what it seemed to do on the choosing share.

    Attributes:
        setting: the policies.
        risk: of what is bounded: a rate, or seconds.
        cost: relative to tier 2 at full depth without tier 1.
        deferred: share of the rows.
    """

    setting: Setting
    risk: float
    cost: float
    deferred: float


def path(
    answers: Answers, costs: Costs, ask: Ask, *, sure: Sure | None = None, grid: Grid | None = None
) -> tuple[Step, ...]:
    """Settings in the order in which they are to be tested: the safest first.

    Args:
        answers: of the choosing share. Windows of a long document count as one example each.
        costs: seconds per token, one for each exit.
        ask: what is bounded.
        sure: in place of tier 1's largest probability.
        grid: `Grid()` if left out.

    Returns:
        Rising in the risk of what is bounded, falling in cost; where cost or deferral is what is bounded, falling in
        harm. May be empty: where nothing that was tried is cheaper than tier 2 at full depth.
    """
    grid = grid or Grid()
    sure = sure or Sure(max_probability(answers.tier1, multi_label=answers.multi_label))
    if isinstance(ask, MaxDeferred):
        return _deferring(Heads.of(answers, costs, ask, sure, 0.0), ask, grid)
    scale = 1.0
    if isinstance(ask, MeanCost):
        scale = costs.full * float(answers.lengths.sum()) / len(answers)
    best: tuple[float, _Line] | None = None
    for blend in dict.fromkeys((0.0, *grid.blends)):
        heads = Heads.of(answers, costs, ask, sure, blend)
        for line in _lines(heads, grid, ask):
            score = line.score(ask, scale)
            if best is None or score < best[0]:
                best = score, line
    if best is None or not math.isfinite(best[0]):
        return ()
    return best[1].steps(ask, scale, grid)


@dataclass(frozen=True, eq=False)
class _Line:
    """A path, from the least risk up.

    Attributes:
        ratio: of the risk taken in tier 1 to that at exits.
        cap: number of the exit after which nobody goes on, from 0.
        risks: taken at exits. Of the next three of the same length.
        loss, cost: see `Heads.sums`.
        deferred: share of the rows.
    """

    heads: Heads
    ratio: float
    cap: int
    risks: Sequence[float]
    loss: Risk
    cost: Risk
    deferred: Risk

    @classmethod
    def of(cls, heads: Heads, ratio: float, cap: int, risks: Sequence[float]) -> _Line:
        deferred = heads.below([heads.curves[0].least_confidence(ratio * risk) for risk in risks])
        pairs = [heads.sums(heads.left(risk, cap), deferred[number : number + 1]) for number, risk in enumerate(risks)]
        loss, cost = (np.concatenate(column) for column in zip(*pairs, strict=True))
        return cls(heads, ratio, cap, risks, loss, cost, deferred / len(heads.sure))

    def score(self, ask: Ask, scale: float) -> float:
        """The lower the better: cost where the bound is nearly used up, or harm where the cost is."""
        if isinstance(ask, MeanCost):
            within = np.flatnonzero((self.cost * scale <= ask.seconds) & (self.cost < 1))
            return float(self.loss[within].min()) if len(within) else math.inf
        within = np.flatnonzero((self.loss <= ask.bound * SPENT) & (self.cost < 1))
        if len(within):
            return float(self.cost[within].min())
        # None keeps so far away from the bound: then the one that does best.
        usable = np.flatnonzero(self.cost < 1)
        return 1 + float(self.loss[usable].min()) if len(usable) else math.inf

    def steps(self, ask: Ask, scale: float, grid: Grid) -> tuple[Step, ...]:
        """Of the same path, closer together, those that differ."""
        fine = _Line.of(self.heads, self.ratio, self.cap, self.heads.spread(8 * grid.steps))
        usable = np.flatnonzero(fine.cost < 1)
        _, first = np.unique(np.stack([fine.cost[usable], fine.deferred[usable]]), axis=1, return_index=True)
        kept = usable[np.sort(first)]
        if isinstance(ask, MeanCost):
            risk = fine.cost * scale
            kept = kept[::-1]
        else:
            risk = fine.loss
        # Risk may fall for a while where both tiers are asked together; what is far beyond the bound is not wanted.
        kept = kept[np.maximum.accumulate(risk[kept]) <= ask.bound * REACH] if len(kept) else kept
        if len(kept) > grid.steps:  # even in cost, so that none saves much more than the one before it
            wanted = np.linspace(fine.cost[kept[0]], fine.cost[kept[-1]], grid.steps)
            falling = fine.cost[kept[0]] > fine.cost[kept[-1]]
            costs, sought = (-fine.cost[kept], -wanted) if falling else (fine.cost[kept], wanted)
            kept = kept[np.unique(np.minimum(np.searchsorted(costs, sought), len(kept) - 1))]
        steps = [fine._step(int(number), float(risk[number])) for number in kept]
        if isinstance(ask, MeanCost):
            steps.append(Step(Setting(defer_all, never), scale, 1.0, 1.0))
        return tuple(steps)

    def _step(self, number: int, risk: float) -> Step:
        heads, taken = self.heads, self.risks[number]
        threshold = heads.curves[0].least_confidence(self.ratio * taken)
        setting = Setting(heads.at(threshold), heads.policy(taken, self.cap), blend=heads.blend)
        return Step(setting, risk, float(self.cost[number]), float(self.deferred[number]))


def _deferring(heads: Heads, ask: MaxDeferred, grid: Grid) -> tuple[Step, ...]:
    """More and more of the least sure rows deferred, with exits that add hardly any harm to tier 1's."""
    thresholds = cuts(heads.sure1, 8 * grid.steps)
    deferred = np.append(0, heads.below(thresholds))
    most = int(np.count_nonzero(deferred <= ask.share * len(heads.sure)))
    last = len(heads.layers) - 1
    plain, _ = heads.sums(np.full(len(heads.sure), last), deferred[most - 1 : most])
    policy: ExitPolicy = never
    left = np.full(len(heads.sure), last)
    for risk in heads.spread(grid.risks) if last else []:
        tried = heads.left(risk, last)
        if heads.sums(tried, deferred[most - 1 : most])[0] > plain * (1 + SLACK):
            break
        policy, left = heads.policy(risk, last), tried
    _, cost = heads.sums(left, deferred)
    routers: list[Router] = [defer_none, *map(heads.at, thresholds)]
    # The test fails a little beyond the share at the latest.
    kept = np.flatnonzero(deferred <= (ask.share + 0.05) * len(heads.sure))
    if len(kept) > grid.steps:
        kept = kept[np.unique(np.linspace(0, len(kept) - 1, grid.steps).round().astype(np.int64))]
    shares = deferred / len(heads.sure)
    return tuple(
        Step(Setting(routers[number], policy), float(shares[number]), float(cost[number]), float(shares[number]))
        for number in kept
    )


def _lines(heads: Heads, grid: Grid, ask: Ask) -> list[_Line]:
    """A path for each ratio, and for each cap that is known to be safe enough."""
    risks, last = heads.spread(grid.risks), len(heads.layers) - 1
    # Without cap and blend the path begins where nothing is lost. With them it does not, and if that is more than
    # it seemed here, or all of it in one class that counts by itself, nothing at all is certified.
    most = math.inf if isinstance(ask, MeanCost) else FLOOR * ask.bound
    if getattr(ask, "per_class", False):
        most = -1.0
    uppers = upper_bounds(heads.floors, np.full(last + 1, len(heads.sure)), confidence=0.9)
    caps = [cap for cap in range(last + 1) if uppers[cap] <= most or (cap == last and not heads.blend)]
    return [_Line.of(heads, ratio, cap, risks) for ratio in grid.ratios for cap in caps]

"""Which settings are tested, and in which order: found on examples that take no part in the test.

One number moves along a path: the risk (`curves`) up to which an exit's answer is taken. With it moves the risk up to
which tier 1's is, a fixed multiple, as leaving there saves more. So every text leaves at the same place or earlier at
each step, what is lost grows step by step, and a test that goes on until it fails goes far. (On SST-2 the front of all
pairs of thresholds reached less: neighbours on it are too different, and one bad step ends the test.)

Which multiple, cap on depth and blend a path has is chosen: the one that is expected to be cheapest where it has used
up most of the bound. What settings lose is a guess for that, half of it counted and half smoothed by the curves. Rows
are sorted by tier 1's confidence, so sums over prefixes give all its thresholds at once (as in
`calibration.thresholds`). It leaves to others: exact replays (`replay`), the test (`certify`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cascade.batch import FloatArray, IntArray
from cascade.calibration.examples import Costs
from cascade.calibration.thresholds import cuts
from cascade.certification.answers import Answers
from cascade.certification.claims import Ask, MaxDeferred, MeanCost
from cascade.certification.curves import Curve, Risk
from cascade.certification.losses import differ, lost
from cascade.certification.replay import Setting
from cascade.confidence import answers as answers_of
from cascade.confidence import max_probability
from cascade.exits import AtExit, ExitPolicy, MaxProbability, any_of, never
from cascade.routing import Router, Threshold, defer_all, defer_none

__all__ = ["Grid", "Step", "Sure", "path"]

SPENT = 0.6  # of the bound, where paths are compared: about what a test of some thousand examples allows
REACH = 3.0  # how far a path goes, as a multiple of the bound: the guess may be too high
SLACK = 0.05  # what exits may add to the harm of tier 1 where deferral is what is bounded, as a share of it
LEAST = 1e-5  # a risk below which nothing is tried


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


@dataclass(frozen=True, eq=False)
class Sure:
    """What tier 1's threshold is compared with, and the router that does so; see `helping.Choice`.

    Attributes:
        values: higher is surer. Shape `(rows,)`.
        at: the router with a threshold.
    """

    values: FloatArray
    at: Callable[[float], Router] = Threshold


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
        return _deferring(_Heads.of(answers, costs, ask, sure, 0.0), ask, grid)
    scale = 1.0
    if isinstance(ask, MeanCost):
        scale = costs.full * float(answers.lengths.sum()) / len(answers)
    best: tuple[float, _Line] | None = None
    for blend in dict.fromkeys((0.0, *grid.blends)):
        heads = _Heads.of(answers, costs, ask, sure, blend)
        for line in heads.lines(grid):
            score = line.score(ask, scale)
            if best is None or score < best[0]:
                best = score, line
    if best is None or not math.isfinite(best[0]):
        return ()
    return best[1].steps(ask, scale, grid)


@dataclass(frozen=True, eq=False)
class _Heads:
    """Tier 1 and every exit: how sure, and what each row loses where it is answered there, half counted, half guessed.

    Rows are in the order of tier 1's confidence, least sure first.

    Attributes:
        sure1: what tier 1's threshold is compared with. Shape `(rows,)`.
        sure: confidence at each exit. Shape `(rows, exits)`.
        risk: that the answer there is another than at full depth. Same shape.
        loss: of tier 1 and each exit. Shape `(rows, 1 + exits)`.
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
    curves: list[Curve]

    @classmethod
    def of(cls, answers: Answers, costs: Costs, ask: Ask, sure: Sure, blend: float) -> _Heads:
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
            curves=curves,
        )

    def lines(self, grid: Grid) -> list[_Line]:
        """A path for each ratio and cap."""
        risks = self.spread(grid.risks)
        return [_Line.of(self, ratio, cap, risks) for ratio in grid.ratios for cap in range(len(self.layers))]

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
        sure = MaxProbability(self.least(risk))
        return sure if cap == last else any_of(sure, cut)

    def left(self, risk: float, cap: int) -> IntArray:
        """Number of the exit, from 0, at which `policy` lets every row leave. Shape `(rows,)`."""
        leave = self.sure[:, :-1] >= np.asarray(self.least(risk), dtype=np.float32)
        left = np.where(leave.any(axis=1), leave.argmax(axis=1), cap) if leave.size else np.full(len(leave), cap)
        return np.minimum(left, cap)

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


@dataclass(frozen=True, eq=False)
class _Line:
    """A path, from the least risk up.

    Attributes:
        ratio: of the risk taken in tier 1 to that at exits.
        cap: number of the exit after which nobody goes on, from 0.
        risks: taken at exits. Of the next three of the same length.
        loss, cost: see `_Heads.sums`.
        deferred: share of the rows.
    """

    heads: _Heads
    ratio: float
    cap: int
    risks: Sequence[float]
    loss: Risk
    cost: Risk
    deferred: Risk

    @classmethod
    def of(cls, heads: _Heads, ratio: float, cap: int, risks: Sequence[float]) -> _Line:
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


def _deferring(heads: _Heads, ask: MaxDeferred, grid: Grid) -> tuple[Step, ...]:
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


def _prefix(values: Risk, upto: IntArray) -> Risk:
    """Sums over the first so many. Shape `(n,)` and `(k,)` to `(k,)`."""
    sums: Risk = np.append(0.0, np.cumsum(values))[upto]
    return sums

"""The settings of a tagger that are tested, in the order of the test, chosen on a share of the sentences alone.

A few dozen of the replay's best (`word_candidates`) are really run and counted as the claim counts; about ten of these
are the path: safest first, ever riskier and cheaper. Choosing may be as greedy as it likes: the sentences that test
the path have no part in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cascade.calibration import WordCosts, WordGrid, WordPoint
from cascade.calibration.claims import Agreement, Claim, MaxDrop
from cascade.calibration.paths import Step
from cascade.calibration.replay import Setting
from cascade.calibration.word_answers import WordAnswers
from cascade.calibration.word_candidates import (
    GRID,
    Stages,
    front,
    goal_of,
    quietly,
    really_run,
    replayed,
    setting_of,
    spread,
)
from cascade.calibration.word_costs import Spending, sentence_seconds
from cascade.calibration.word_events import by_word, rate
from cascade.core.rows import BoolArray, FloatArray
from cascade.policies.exits import never
from cascade.policies.routing import Threshold, defer_all, defer_none
from cascade.policies.unit_exits import TokenExit
from cascade.policies.windows import whole_sentences

__all__ = ["Reach", "deferring_path", "spending_path", "word_path"]

CAREFUL = 4  # thresholds
DEFERRED = (0.5, 0.7, 0.8, 0.86, 0.9, 0.94, 0.97, 1.0)  # shares of what may be deferred


@dataclass(frozen=True)
class Reach:
    """How far a path goes, and how many settings are really run for it.

    Attributes:
        run: settings of the replay that are really run, at most.
        steps: of the path, at most.
        safest: risk on the choosing share, as a share of the bound, where steps become dense; the safest setting of
            all goes before them, should the guess have been too low.
        riskiest: the same where the path ends.
    """

    run: int = 24
    steps: int = 12
    safest: float = 0.3
    riskiest: float = 1.2


def word_path(
    answers: WordAnswers,
    costs: WordCosts,
    claim: Claim,
    *,
    grid: WordGrid = GRID,
    reach: Reach | None = None,
    progress: Stages = quietly,
) -> tuple[Step, ...]:
    """Settings whose risk rises and whose cost falls, for a claim about harm or disagreement.

    Args:
        answers: the choosing share.
        costs: of tokens.
        claim: what will be tested.
        grid: what is replayed.
        reach: `Reach()` if left out.
        progress: of two stages.

    Returns:
        Their risk is a guess: half what the claim counts, half what the number of differing answers makes likely. May
        be empty: then nothing on the grid is cheaper than tier 2 at full depth.
    """
    reach = reach or Reach()
    sentences = answers.fitting()
    if not len(sentences):
        return ()
    goal = goal_of(claim, sentences)
    # How many units are harmed for a harmed word, nearly, is told by tier 1 alone.
    alone = sentences.really(setting_of(sentences, defer_none, never, whole_sentences))
    missed: BoolArray = (goal >= 0) & (alone.tags != goal)
    units = rate(claim, sentences, alone)
    most = reach.riskiest * claim.ask.bound * (float(missed.mean()) / units if units else 1.0)
    most = min(1.0, most if by_word(claim) else 2 * most)
    grid = _enough(grid, sentences.tier1.score(sentences.words).confidence, missed, most)
    points = [point for point in replayed(sentences, costs, goal, most, grid, progress) if point.cost < 1]
    best = [*spread(front(points), reach.run), *_careful(grid)]
    found, seen = [], np.zeros((len(best), 2))
    doubtful = replace(claim, ask=Agreement()) if isinstance(claim.ask, MaxDrop) else claim
    for number, (point, setting, run) in enumerate(really_run(sentences, best, progress)):
        seen[number] = rate(claim, sentences, run), rate(doubtful, sentences, run)
        cost = point.cost
        if math.isnan(cost):
            whole = costs.full(sentences.words)
            cost = float(sentence_seconds(sentences, setting, run, costs).sum()) / whole
        found.append(Step(setting, 0.0, cost, float(run.deferred.mean())))
    # A few hundred sentences show no harm of many settings, of which the cheapest would look as safe as any. Each
    # differing answer is as likely to be harm as another, nearly, so half of the guess is made of these.
    harms, differ = seen.T
    risks = (harms + differ * (harms.sum() / max(differ.sum(), 1e-12))) / 2
    steps = [replace(step, risk=float(risk)) for step, risk in zip(found, risks, strict=True) if step.cost < 1]
    return _reduced(steps, claim.ask.bound, reach)


def spending_path(
    answers: WordAnswers,
    spending: Spending,
    *,
    grid: WordGrid = GRID,
    reach: Reach | None = None,
    progress: Stages = quietly,
) -> tuple[Step, ...]:
    """Settings that cost ever more and harm ever less, for a claim about the mean cost.

    Args:
        answers: the choosing share.
        spending: costs of tokens, and the claim.
        grid: what is replayed.
        reach: `Reach()` if left out.
        progress: of two stages.

    Returns:
        Steps whose risk is the mean cost in seconds; the cheapest setting of all comes first. May be empty.
    """
    reach, sentences = reach or Reach(), answers.fitting()
    if not len(sentences):
        return ()
    # The least harm where there are labels, the least disagreement otherwise.
    harm = replace(spending.claim, ask=Agreement() if answers.truth is None else MaxDrop())
    points = front(replayed(sentences, spending.costs, goal_of(harm, sentences), 1.0, grid, progress))
    bound, whole = spending.claim.ask.bound, spending.costs.full(sentences.words) / len(sentences)
    near = [point for point in points if reach.safest * bound <= point.cost * whole <= reach.riskiest * bound]
    chosen = [*points[:1], *(point for point in spread(near, reach.run - 1) if point is not points[0])]
    found: list[tuple[float, Step]] = []
    for point, setting, run in really_run(sentences, chosen, progress):
        mean = float(spending.seconds(sentences, setting, run).mean())
        lost = rate(harm, sentences, run)
        found.append((lost, Step(setting, mean, point.cost, float(run.deferred.mean()))))
    kept: list[tuple[float, Step]] = []
    for lost, step in sorted(found, key=lambda one: (one[1].risk, one[0])):
        if not kept or lost < kept[-1][0]:
            kept.append((lost, step))
    return _evenly([step for _, step in kept], reach.steps)


def deferring_path(
    answers: WordAnswers, claim: Claim, *, current: Setting, progress: Stages = quietly
) -> tuple[Step, ...]:
    """Thresholds that defer ever more words, up to what may be deferred.

    The more is deferred, the less is harmed, so here the last that passes is the best one and not the cheapest.

    Args:
        answers: the choosing share.
        claim: about the share of deferred words.
        current: what every setting has beside its router.
        progress: of one stage.

    Returns:
        Steps whose risk is the share that they defer; their cost is measured.
    """
    sure = answers.tier1.score(answers.fitting().words).confidence.astype(np.float64)
    if not len(sure):
        return ()
    cuts = np.unique(np.quantile(sure, [share * claim.ask.bound for share in DEFERRED]).round(4))
    found = []
    with progress("running settings", len(cuts)) as ahead:
        for cut in cuts.tolist():
            setting = replace(current, router=Threshold(cut))
            run = answers.really(setting)
            cost = run.seconds / answers.full.seconds
            found.append(Step(setting, rate(claim, answers, run), cost, float(run.deferred.mean())))
            ahead(1)
    return tuple(found)


def _careful(grid: WordGrid) -> list[WordPoint]:
    """Tier 2 alone, left only by words that are very sure and whose neighbours are: where nothing else is safe enough.

    The replay drops them, as none of its sentences may be harmed by cheaper ones. What they cost is not known yet.
    """
    policies = [TokenExit(threshold, window=max(grid.spread)) for threshold in grid.thresholds[:CAREFUL]]
    return [WordPoint(defer_all, whole_sentences, leave, 0.0, 0.0, 1.0, 0.0, math.nan) for leave in policies]


def _enough(grid: WordGrid, sure: FloatArray, missed: BoolArray, most: float) -> WordGrid:
    """The grid without shares to defer that leave tier 1 more harm than may be, whatever tier 2 does.

    Args:
        grid: what is replayed.
        sure: confidence of tier 1. Shape `(words,)`.
        missed: where its answer would count as harm. Shape `(words,)`.
        most: share of the words.
    """
    harm = np.cumsum(missed[np.argsort(-sure, kind="stable")]) / len(missed)
    kept = [math.ceil((1 - share) * len(missed)) - 1 for share in grid.deferred]
    fine = [share for share, last in zip(grid.deferred, kept, strict=True) if last < 0 or harm[last] <= most]
    return replace(grid, deferred=tuple(fine))


def _reduced(steps: Sequence[Step], bound: float, reach: Reach) -> tuple[Step, ...]:
    """Safest first, ever riskier and cheaper, from about the safest to the riskiest that is of interest."""
    kept: list[Step] = []
    for step in sorted(steps, key=lambda step: (step.cost, step.risk)):
        if not kept or step.risk < kept[-1].risk:
            kept.append(step)
    kept.reverse()
    dense = max((number for number, step in enumerate(kept) if step.risk <= reach.safest * bound), default=0)
    end = sum(step.risk <= reach.riskiest * bound for step in kept)
    first = tuple(kept[: min(dense, 1)])
    return (*first, *_evenly(kept[dense : max(end, dense + 1)], reach.steps - len(first)))


def _evenly(steps: Sequence[Step], most: int) -> tuple[Step, ...]:
    """At most so many, evenly by their risk, both ends among them."""
    if len(steps) <= most:
        return tuple(steps)
    risks = np.array([step.risk for step in steps])
    wanted = np.linspace(risks[0], risks[-1], most)
    return tuple(steps[number] for number in np.unique(np.abs(risks[:, None] - wanted).argmin(axis=0)))

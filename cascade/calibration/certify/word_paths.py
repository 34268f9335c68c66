"""The settings of a tagger that are tested, in the order of the test, chosen on a share of the sentences alone.

A grid is replayed by the thousand, its goal -1 where full depth is wrong, so that the drop is the rate of harmed words.
A few dozen of the best are run and counted as the claim counts; about ten of these are the path.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from cascade.calibration.certify.claims import Agreement, MaxDrop, RiskTarget
from cascade.calibration.certify.events import lost
from cascade.calibration.certify.outcomes import Step
from cascade.calibration.runs import Run, Stages, no_progress
from cascade.calibration.sentences import WordAnswers
from cascade.calibration.thresholds.points import Point, front
from cascade.calibration.thresholds.words import WordGrid, replay_words
from cascade.core.rows import BoolArray, FloatArray, IntArray
from cascade.policies.exits import never
from cascade.policies.routing import defer_none
from cascade.policies.settings import Policies
from cascade.policies.windows import Windows, whole_sentences

CAREFUL = 4  # thresholds
T = TypeVar("T")

GRID = WordGrid(
    deferred=(0.03, 0.06, 0.1, 0.15, 0.21, 0.28, 0.37, 0.5), windows=(Windows(2), Windows(4), whole_sentences)
)
"""What is replayed: harm needs more deferral than a drop in accuracy, of which gains have been taken off."""


@dataclass(frozen=True)
class Reach:
    """How far a path goes, and how many settings are run for it (`run`) and on it (`steps`) at most.

    `safest`: risk on the choosing share, as a share of the bound, where steps become dense; the safest setting of all
    goes before them, should the guess have been too low; `riskiest`: the same where the path ends.
    """

    run: int = 24
    steps: int = 12
    safest: float = 0.3
    riskiest: float = 1.2


def word_path(
    answers: WordAnswers,
    ask: RiskTarget,
    *,
    grid: WordGrid = GRID,
    reach: Reach | None = None,
    progress: Stages = no_progress,
) -> tuple[Step, ...]:
    """Settings whose risk rises and whose cost falls, chosen on these sentences, which have costs.

    Their risk is a guess: half what the claim counts, half what the number of differing answers makes likely. The path
    may be empty: then nothing on the grid is cheaper than tier 2 at full depth.
    """
    reach = reach or Reach()
    points, _ = word_points(answers, ask, grid=grid, reach=reach, progress=progress)
    return run_points(answers, points, ask, grid=grid, reach=reach, progress=progress)


def word_points(
    answers: WordAnswers, ask: RiskTarget, *, grid: WordGrid, reach: Reach, progress: Stages = no_progress
) -> tuple[list[Point], float]:
    """The front of what is replayed, cheapest first, and the drop in words at which about `reach.riskiest` is lost."""
    sentences = answers.fitting()
    if not len(sentences):
        return [], 0.0
    goal = _goal(ask, sentences)
    # How many sentences are harmed for a harmed word, nearly, is told by tier 1 alone.
    alone = sentences.run(replace(sentences.at_full_depth, routers=(defer_none,)))
    missed: BoolArray = (goal >= 0) & (alone.answers[:, 0] != goal)
    rate = _rate(ask, sentences, alone)
    most = min(1.0, 2 * reach.riskiest * ask.bound * (float(missed.mean()) / rate if rate else 1.0))
    grid = _affordable(grid, sentences.tier1.score(sentences.words).confidence, missed, most)
    with progress("replaying settings", grid.reads(sentences)) as ahead:
        points = replay_words(sentences, goal, max_drop=most, grid=grid, progress=ahead)
    return front(point for point in points if point.cost < 1), most / 2


def run_points(
    answers: WordAnswers,
    points: Sequence[Point],
    ask: RiskTarget,
    *,
    grid: WordGrid,
    reach: Reach,
    progress: Stages = no_progress,
) -> tuple[Step, ...]:
    """The path of replayed points: some of them, and careful settings of tier 2 alone, run on the same sentences."""
    sentences = answers.fitting()
    if not len(sentences):
        return ()
    careful = _careful(grid, sentences.at_full_depth) if len(sentences.layers) > 1 else []
    best = [*_evenly(points, [math.log(point.cost) for point in points], reach.run), *careful]
    steps, seen = [], np.zeros((len(best), 2))
    with progress("running the best of them", len(best)) as ahead:
        for number, point in enumerate(best):
            run = sentences.run(point.policies)
            seen[number] = _rate(ask, sentences, run), _rate(Agreement(), sentences, run)
            cost = point.cost if math.isfinite(point.cost) else _cost_alone(sentences, run)
            steps.append(Step(point.policies, 0.0, cost, float(run.deferred.mean())))
            ahead(1)
    # A few hundred sentences show no harm of many settings, of which the cheapest would look as safe as any. Each
    # differing answer is as likely to be harm as another, nearly, so half of the guess is made of these.
    harms, differing = seen.T
    risks = (harms + differing * (harms.sum() / max(differing.sum(), 1e-12))) / 2
    guessed = [replace(step, risk=float(risk)) for step, risk in zip(steps, risks, strict=True) if step.cost < 1]
    return _reduced(guessed, ask.bound, reach)


def _goal(ask: RiskTarget, answers: WordAnswers) -> IntArray:
    """Labels by which the replay's drop in accuracy is what the claim counts. Shape `(words,)`."""
    full = answers.reference[:, 0]
    if isinstance(ask, MaxDrop):
        return np.where(full == answers.goal[:, 0], full, -1)
    return full


def _rate(ask: RiskTarget, answers: WordAnswers, run: Run) -> float:
    """Share of the sentences with an event."""
    return float(answers.events(lost(ask, run.answers, answers.reference, answers.goal)).mean())


def _careful(grid: WordGrid, full: Policies) -> list[Point]:
    """Tier 2 alone, exited only where it is very sure. The replay drops these; what they cost is not known yet."""
    strict = [grid.exits[-1].at(round(1 - doubt, 9)) for doubt in grid.doubts[:CAREFUL]] if grid.exits else []
    return [Point(policies=replace(full, exits=(never, policy))) for policy in strict]


def _cost_alone(answers: WordAnswers, run: Run) -> float:
    """Of tier 2 alone on whole sentences, relative to full depth."""
    assert answers.costs is not None  # noqa: S101  # the caller has looked
    taken = np.searchsorted(answers.layers, run.layers)
    both = np.stack([taken, np.full(len(taken), len(answers.layers) - 1)])
    own, full = answers.costs.tiers[-1].of(both, answers.words) + answers.costs.always * answers.words.rows.tokens
    return float(own / full)


def _affordable(grid: WordGrid, sure: FloatArray, missed: BoolArray, most: float) -> WordGrid:
    """The grid without shares to defer that leave tier 1 more harm (`missed`) than `most`, whatever tier 2 does."""
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
    first, rest = kept[: min(dense, 1)], kept[dense : max(end, dense + 1)]
    return (*first, *_evenly(rest, [step.risk for step in rest], reach.steps - len(first)))


def _evenly(things: Sequence[T], places: Sequence[float], most: int) -> list[T]:
    """At most so many, evenly by their places, both ends among them."""
    if len(things) <= most:
        return list(things)
    wanted = np.linspace(places[0], places[-1], most)
    return [things[number] for number in np.unique(np.abs(np.array(places)[:, None] - wanted).argmin(axis=0))]

"""The settings of a tagger that are tested, safest first: replayed, then really run, on the choosing share alone.

`calibration.replay_words` knows which of thousands of settings may be worth it, by word accuracy and nearly. Told that
only those words are right that full depth gets right, the drop that it reports *is* the rate of harmed words. A few
dozen of its best are then really run, with the decoder, and counted as the claim counts; about ten of these are the
path. Choosing may be as greedy as it likes: the sentences that test the path have no part in it.

It leaves to others: timing the tiers (`calibration.observe_costs`), testing (`word_calibrating`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from cascade.batch import BoolArray, FloatArray, IntArray
from cascade.calibration import WordCosts, WordGrid, WordPoint, replay_words
from cascade.certification.claims import Claim, MaxDrop
from cascade.certification.paths import Step
from cascade.certification.replay import Setting
from cascade.certification.word_answers import WordAnswers
from cascade.certification.word_events import by_word, rate
from cascade.exits import ExitPolicy, never
from cascade.routing import Router, Threshold, defer_none
from cascade.windows import WindowPolicy, Windows, whole_sentences

__all__ = ["GRID", "Reach", "Stages", "deferring_path", "quietly", "word_path"]

Stages: TypeAlias = Callable[[str, int], AbstractContextManager[Callable[[int], object]]]
"""Called with the name of a stage of the work and how much there is of it; gives what is told how much was done."""

GRID = WordGrid(
    deferred=(0.03, 0.06, 0.1, 0.15, 0.21, 0.28, 0.37, 0.5),
    windows=(Windows(2), Windows(4), whole_sentences),
)
"""What is replayed: harm needs more deferral than a drop in accuracy, of which gains have been taken off."""

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


@contextmanager
def quietly(_stage: str, _total: int) -> Iterator[Callable[[int], object]]:
    """Progress that nobody watches."""
    yield lambda _count: None


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
        May be empty: then nothing on the grid is cheaper than tier 2 at full depth.
    """
    reach = reach or Reach()
    sentences = answers.fitting()
    if not len(sentences):
        return ()
    goal = _goal(claim, sentences)
    # How many units are harmed for a harmed word, nearly, is told by tier 1 alone.
    alone = sentences.really(_setting(sentences, defer_none, never, whole_sentences))
    missed: BoolArray = (goal >= 0) & (alone.tags != goal)
    units = rate(claim, sentences, alone)
    most = reach.riskiest * claim.ask.bound * (float(missed.mean()) / units if units else 1.0)
    most = min(1.0, most if by_word(claim) else 2 * most)
    grid = _enough(grid, sentences.tier1.score(sentences.words).confidence, missed, most)
    reads = sentences.words.words * (1 + len(grid.windows) * len(grid.deferred))
    with progress("replaying settings", reads) as ahead:
        read: list[int] = []

        def note(count: int) -> None:
            read.append(count)
            ahead(count)

        points = replay_words(
            answers.tier1,
            answers.tier2,
            sentences.words,
            goal,
            costs,
            max_drop=most,
            grid=grid,
            progress=note,
        )
        ahead(max(0, reads - sum(read)))  # windows are shorter than their sentences
    best = _spread(_front([point for point in points if point.cost < 1]), reach.run)
    found = []
    with progress("running the best of them", len(best)) as ahead:
        for point in best:
            setting = _setting(sentences, point.router, point.exit_policy, point.windows, blend=point.blend)
            run = sentences.really(setting)
            found.append(Step(setting, rate(claim, sentences, run), point.cost, float(run.deferred.mean())))
            ahead(1)
    return _reduced(found, claim.ask.bound, reach)


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


def _goal(claim: Claim, answers: WordAnswers) -> IntArray:
    """Labels by which the replay's drop in accuracy is what the claim counts; -1 is never right. Shape `(words,)`."""
    ask = claim.ask
    if isinstance(ask, MaxDrop) and not ask.two_sided:
        return np.where(answers.right, answers.full.tags, -1)
    return answers.full.tags


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


def _setting(
    answers: WordAnswers, router: Router, exit_policy: ExitPolicy, windows: WindowPolicy, *, blend: float = 0.0
) -> Setting:
    return Setting(router, exit_policy, blend=blend, windows=windows, decoding=answers.decoding)


def _front(points: Sequence[WordPoint]) -> list[WordPoint]:
    """Points that no cheaper one beats, cheapest first."""
    found: list[WordPoint] = []
    for point in sorted(points, key=lambda point: (point.cost, point.drop)):
        if not found or point.drop < found[-1].drop:
            found.append(point)
    return found


def _spread(points: Sequence[WordPoint], most: int) -> list[WordPoint]:
    """At most so many, evenly by the logarithm of their cost, both ends among them."""
    if len(points) <= most:
        return list(points)
    costs = np.log([point.cost for point in points])
    wanted = np.linspace(costs[0], costs[-1], most)
    return [points[number] for number in np.unique(np.abs(costs[:, None] - wanted).argmin(axis=0))]


def _reduced(steps: Sequence[Step], bound: float, reach: Reach) -> tuple[Step, ...]:
    """Safest first, ever riskier and cheaper, from about the safest to the riskiest that is of interest."""
    front: list[Step] = []
    for step in sorted(steps, key=lambda step: (step.cost, step.risk)):
        if not front or step.risk < front[-1].risk:
            front.append(step)
    front.reverse()
    dense = max((number for number, step in enumerate(front) if step.risk <= reach.safest * bound), default=0)
    end = sum(step.risk <= reach.riskiest * bound for step in front)
    within = front[dense : max(end, dense + 1)]
    first = front[: min(dense, 1)]
    room = reach.steps - len(first)
    if len(within) > room:
        risks = np.array([step.risk for step in within])
        wanted = np.linspace(risks[0], risks[-1], room)
        within = [within[number] for number in np.unique(np.abs(risks[:, None] - wanted).argmin(axis=0))]
    return (*first, *within)

"""Candidates for the path of a tagger: replayed by the thousand, thinned, really run by the dozen.

`calibration.replay_words` compares settings by word accuracy, and nearly. Told that only those words are right that
full depth gets right, the drop that it reports *is* the rate of harmed words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TypeAlias

import numpy as np

from cascade.calibration import WordCosts, WordGrid, WordPoint, replay_words
from cascade.calibration.claims import Claim, MaxDrop
from cascade.calibration.replay import Setting
from cascade.calibration.word_answers import WordAnswers, WordRun
from cascade.core.rows import IntArray
from cascade.policies.exits import ExitPolicy
from cascade.policies.routing import Router
from cascade.policies.windows import WindowPolicy, Windows, whole_sentences

__all__ = ["GRID", "Stages", "front", "goal_of", "quietly", "really_run", "replayed", "setting_of", "spread"]

Stages: TypeAlias = Callable[[str, int], AbstractContextManager[Callable[[int], object]]]
"""Called with the name of a stage of the work and how much there is of it; gives what is told how much was done."""

GRID = WordGrid(
    deferred=(0.03, 0.06, 0.1, 0.15, 0.21, 0.28, 0.37, 0.5),
    windows=(Windows(2), Windows(4), whole_sentences),
)
"""What is replayed: harm needs more deferral than a drop in accuracy, of which gains have been taken off."""


@contextmanager
def quietly(_stage: str, _total: int) -> Iterator[Callable[[int], object]]:
    """Progress that nobody watches."""
    yield lambda _count: None


def replayed(
    answers: WordAnswers, costs: WordCosts, goal: IntArray, most: float, grid: WordGrid, progress: Stages
) -> list[WordPoint]:
    """Points of a grid by how much they lose against a goal; `most`: share of the words that a point may lose."""
    reads = len(answers.words) * (1 + len(grid.windows) * len(grid.deferred))
    with progress("replaying settings", reads) as ahead:
        read: list[int] = []

        def note(count: int) -> None:
            read.append(count)
            ahead(count)

        points = replay_words(
            answers.tier1, answers.tier2, answers.words, goal, costs, max_drop=most, grid=grid, progress=note
        )
        ahead(max(0, reads - sum(read)))  # windows are shorter than their sentences
    return points


def really_run(
    answers: WordAnswers, points: Sequence[WordPoint], progress: Stages
) -> Iterator[tuple[WordPoint, Setting, WordRun]]:
    """Run points with the tagger's decoder, one after the other."""
    with progress("running the best of them", len(points)) as ahead:
        for point in points:
            setting = setting_of(answers, point.router, point.exit_policy, point.windows, blend=point.blend)
            yield point, setting, answers.really(setting)
            ahead(1)


def goal_of(claim: Claim, answers: WordAnswers) -> IntArray:
    """Labels by which the replay's drop in accuracy is what the claim counts; -1 is never right. Shape `(words,)`."""
    ask = claim.ask
    if isinstance(ask, MaxDrop) and not ask.two_sided:
        return np.where(answers.right, answers.full.tags, -1)
    return answers.full.tags


def setting_of(
    answers: WordAnswers, router: Router, exit_policy: ExitPolicy, windows: WindowPolicy, *, blend: float = 0.0
) -> Setting:
    """A setting with the decoder of these answers."""
    return Setting(router, exit_policy, blend=blend, windows=windows, decoding=answers.decoding)


def front(points: Sequence[WordPoint]) -> list[WordPoint]:
    """Points that no cheaper one beats, cheapest first."""
    found: list[WordPoint] = []
    for point in sorted(points, key=lambda point: (point.cost, point.drop)):
        if not found or point.drop < found[-1].drop:
            found.append(point)
    return found


def spread(points: Sequence[WordPoint], most: int) -> list[WordPoint]:
    """At most so many, evenly by the logarithm of their cost, both ends among them."""
    if len(points) <= most:
        return list(points)
    costs = np.log([point.cost for point in points])
    wanted = np.linspace(costs[0], costs[-1], most)
    return [points[number] for number in np.unique(np.abs(costs[:, None] - wanted).argmin(axis=0))]

"""A tagger's operating point without a guarantee: replayed on labelled sentences, then run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cascade.calibration.examples import tag_numbers
from cascade.calibration.observing import observe_sentences
from cascade.calibration.runs import Run, Stages, no_progress
from cascade.calibration.thresholds.points import Point, Tried, choose_words
from cascade.calibration.thresholds.words import WordGrid, replay_words
from cascade.exceptions import DataError
from cascade.pipelines.tagger import Tagger
from cascade.text.entity_f1 import check_bio, entity_f1

RUNS = 2  # of each point; the faster one counts
WIDEST = 0.02  # points that lose more are of no interest


@dataclass(frozen=True)
class Operated:
    """What was found: the points that were tried, in order.

    `full`: word accuracy or entity F1 of tier 2 at full depth, in `full_seconds`; `best`: the fastest that kept the
    bound; tier 2 at full depth where none did.
    """

    full: float
    full_seconds: float
    tried: Sequence[Tried]
    best: Tried


def choose_tagger(
    tagger: Tagger,
    sentences: Sequence[Sequence[str]],
    tags: Sequence[Sequence[str]],
    *,
    max_drop: float,
    f1: bool = False,
    grid: WordGrid | None = None,
    progress: Stages = no_progress,
) -> Operated:
    """Choose a router, windows, an exit policy and a blend, which may lose `max_drop` against tier 2 at full depth.

    Sentences that are too long for a tier are left out of the replay, not of what is run; if none is left that is a
    `DataError`, as are tags that do not fit. The replay knows word accuracy only; with `f1` points are run on entity
    F1, and tags that are not BIO are an `OptionError`.
    """
    if f1:
        check_bio(tagger.labels)
    kept = [number for number, words in enumerate(sentences) if len(words)]
    given, right = [sentences[number] for number in kept], [tags[number] for number in kept]
    truth = tag_numbers(sentences, tags, tagger.labels)
    with progress("both tiers", 3 * len(truth)) as ahead:
        answers = observe_sentences(tagger, given, truth, progress=ahead)
    if answers.costs is None:
        raise DataError("there must be a sentence with words that fits both tiers, got none; give shorter sentences")

    def score(run: Run) -> float:
        if not f1:
            return float((run.answers == answers.goal).all(axis=1).mean())
        names = np.array(tagger.labels, dtype=object)[run.answers[:, 0]]
        return entity_f1(right, [part.tolist() for part in np.split(names, answers.words.offsets[1:-1])])

    def measured(point: Point) -> tuple[float, float]:
        runs = [answers.run(point.policies) for _ in range(RUNS)]
        ahead(1)
        return score(runs[0]), min(run.seconds for run in runs)

    some = answers.fitting()
    grid = grid or WordGrid()
    with progress("replaying settings", grid.reads(some)) as ahead:
        points = replay_words(some, some.goal[:, 0], max_drop=max(max_drop, WIDEST), grid=grid, progress=ahead)
    whole = Point(policies=answers.at_full_depth, deferred=1.0, cost=1.0)
    with progress("running the best of them", 16) as ahead:
        full, full_seconds = measured(whole)
        tried = choose_words(points, measured, full=full, max_drop=max_drop)
    best = Tried(replace(whole, accuracy=full, drop=0.0), full, full_seconds, True)
    best = min((best, *(one for one in tried if one.within)), key=lambda one: one.seconds)
    return Operated(full, full_seconds, tried, best)

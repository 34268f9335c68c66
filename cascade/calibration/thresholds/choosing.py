"""The cheapest setting that loses no more accuracy than was allowed, on labelled examples: a classifier's, a tagger's.

The choice is empirical: the best of many is a little flattered, and full-depth accuracy itself noisy (standard error
about 1 point at 900 examples and 90 %). Measure the chosen setting on other examples before you publish it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cascade.calibration.certify.claims import MaxDrop
from cascade.calibration.certify.events import differ
from cascade.calibration.certify.paths import Losses
from cascade.calibration.chain import chains
from cascade.calibration.examples import tag_numbers
from cascade.calibration.induction import PRICES, Priced
from cascade.calibration.observing import observe_sentences
from cascade.calibration.runs import Run, Stages, no_progress
from cascade.calibration.texts import TextAnswers
from cascade.calibration.thresholds.points import Point, Tried, choose_words
from cascade.calibration.thresholds.words import WordGrid, replay_words
from cascade.exceptions import DataError
from cascade.pipelines.tagger import Tagger
from cascade.policies.settings import Policies
from cascade.text.entity_f1 import check_bio, entity_f1

RUNS = 2  # of each point of a tagger; the faster one counts
WIDEST = 0.02  # a tagger's points that lose more are of no interest


def text_points(
    answers: TextAnswers, *, blends: Sequence[float] = (0.0,), like: Policies | None = None, prices: int = PRICES
) -> list[Point]:
    """Settings below the cost of full depth, cheapest first, of all paths that a certificate would be tested along.

    `blends`: how much the answer of a tier may count beside those of the next one; `like`: policies whose kinds of
    router and exit policy get thresholds; `prices`: how many settings are looked at for each choice of tiers and blend.
    Of a text of several rows the figures are nearly what a replay tells exactly.
    """
    full, found = float(differ(answers.full.answers, answers.goal).mean()), list[Point]()
    for chain in chains(answers, blends=blends, like=like):
        priced = Priced.of(chain, Losses.of(chain, MaxDrop()).likely, prices=prices)
        wrong = priced.rates((chain.given != answers.goal[:, None]).any(axis=2))
        for number, (cost, rate) in enumerate(zip(priced.cost.tolist(), wrong.tolist(), strict=True)):
            if cost < 1:
                policies = priced.policies(number)
                found.append(Point(policies=policies, accuracy=1 - rate, drop=rate - full, cost=cost))
    return sorted(found, key=lambda point: (point.cost, point.drop))


def choose_texts(
    answers: TextAnswers,
    *,
    max_drop: float = 0.005,
    blends: Sequence[float] = (0.0,),
    like: Policies | None = None,
    prices: int = PRICES,
) -> Point:
    """The cheapest setting (`text_points`) whose replayed accuracy is at least that of full depth less `max_drop`.

    There always is one: the last tier at full depth. Where no cascade pays, routers are `defer_all`.
    """
    # Counted in examples: half a point of 872 is 4 of them, whatever floating point makes of it.
    missed = int(differ(answers.full.answers, answers.goal).sum())
    allowed = math.floor(max_drop * len(answers) + 1e-9)
    points = text_points(answers, blends=blends, like=like, prices=prices)
    fitting = (point.policies for point in points if point.drop * len(answers) <= allowed + 1e-6)
    for one in (*fitting, answers.at_full_depth):
        run = answers.run(one)
        more = int(differ(run.answers, answers.goal).sum()) - missed
        cost = run.seconds / answers.full.seconds
        if more <= allowed and cost <= 1:
            break
    return Point(
        policies=one,
        accuracy=1 - (missed + more) / len(answers),
        drop=more / len(answers),
        deferred=float(run.deferred.mean()),
        mean_layer=run.mean_layer(len(answers.tiers)),
        cost=cost,
    )


def choose_tagger(
    tagger: Tagger,
    sentences: Sequence[Sequence[str]],
    tags: Sequence[Sequence[str]],
    *,
    max_drop: float,
    f1: bool = False,
    grid: WordGrid | None = None,
    progress: Stages = no_progress,
) -> Point:
    """The fastest of the settings that were run and lose at most `max_drop` against tier 2 at full depth.

    `accuracy` and `cost` of the point are of that run. Tier 2 at full depth is among them. Sentences that are too long
    for a tier are left out of the replay, not of what is run; if none is left that is a `DataError`, as are tags that
    do not fit. The replay knows word accuracy only; with `f1` points are run on entity F1, and tags that are not BIO
    are an `OptionError`.
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
    best = min(
        [Tried(whole, full, full_seconds, True), *(one for one in tried if one.within)], key=lambda one: one.seconds
    )
    return replace(best.point, accuracy=best.score, drop=full - best.score, cost=best.seconds / full_seconds)

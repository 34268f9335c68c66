"""The cheapest setting that loses no more than was allowed, on labelled examples, without a guarantee.

The choice is empirical: the best of many is a little flattered, and full-depth accuracy itself noisy (standard error
about 1 point at 900 examples and 90 %). Measure the chosen setting on other examples before you publish it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cascade.calibration.certify.claims import MaxDrop
from cascade.calibration.certify.events import differ
from cascade.calibration.certify.outcomes import Step
from cascade.calibration.certify.paths import Losses
from cascade.calibration.certify.word_paths import WordGrid, evenly, front, ran
from cascade.calibration.chain import chains
from cascade.calibration.examples import tag_numbers
from cascade.calibration.induction import PRICES, Priced
from cascade.calibration.observing import observe_sentences
from cascade.calibration.runs import Run, Stages, no_progress
from cascade.calibration.sentences import WordAnswers
from cascade.calibration.texts import TextAnswers
from cascade.exceptions import CascadeWarning, DataError
from cascade.pipelines.tagger import Tagger
from cascade.policies.settings import Policies
from cascade.text.entity_f1 import check_bio, entity_f1

WIDEST = 0.02  # words' thresholds that lose more than was allowed by this are not run


@dataclass(frozen=True)
class Point:
    """Policies, and what they did: `accuracy`, or another score, and the `drop` from that of the last tier.

    `deferred`: share that another tier than the first answers; `mean_layer`: of what the last one answers, 0 of none;
    `cost`: relative to the last tier at full depth, no other being run.
    """

    policies: Policies
    accuracy: float
    drop: float
    deferred: float
    mean_layer: float
    cost: float


def text_points(
    answers: TextAnswers,
    *,
    blends: Sequence[float] = (0.0,),
    like: Policies | Sequence[Policies] | None = None,
    prices: int = PRICES,
) -> list[Step]:
    """Settings below the cost of full depth, cheapest first, of all paths that a certificate would be tested along.

    Their risk is the accuracy that they lose. `blends`: how much the answer of a tier may count beside those of the
    next one; `like`: policies whose kinds of router and exit policy get thresholds; `prices`: how many settings are
    looked at for each choice of tiers and blend. Of a text of several rows the figures are nearly what a replay tells
    exactly.
    """
    full, found = float(differ(answers.full.answers, answers.goal).mean()), list[Step]()
    for chain in chains(answers, blends=blends, like=like):
        priced = Priced.of(chain, Losses.of(chain, MaxDrop()).likely, prices=prices)
        wrong = priced.rates((chain.given != answers.goal[:, None]).any(axis=2))
        figures = zip(priced.cost.tolist(), (wrong - full).tolist(), priced.deferred.tolist(), strict=True)
        for number, (cost, drop, deferred) in enumerate(figures):
            if cost < 1:
                found.append(Step(priced.policies(number), drop, cost, deferred))
    return sorted(found, key=lambda step: (step.cost, step.risk))


def word_points(
    sentences: WordAnswers,
    *,
    max_drop: float,
    like: Policies | None = None,
    grid: WordGrid | None = None,
    score: Callable[[Run], float] | None = None,
    progress: Stages = no_progress,
) -> list[Step]:
    """The same of a tagger, some of the best of which were run with windows; their risk is what they lost of `score`.

    `sentences`: read whole, all of which fit both tiers; `score`: of a run, the accuracy of words if left out;
    `max_drop`: words' thresholds that lose much more accuracy are not run.
    """
    grid, score = grid or WordGrid(), score or _accuracy(sentences)
    likes = grid.likes(sentences, like)
    points = text_points(sentences.as_items(), blends=grid.blends, like=likes, prices=grid.prices)
    best = front(point for point in points if point.risk <= max_drop + WIDEST)
    some = evenly(best, [point.risk for point in best], grid.run)
    full, made = score(sentences.full), ran(sentences, some, grid=grid, progress=progress)
    found = [replace(step, risk=full - score(run)) for step, run in made if step.cost < 1]
    return sorted(found, key=lambda step: (step.cost, step.risk))


def choose(
    sample: TextAnswers | WordAnswers,
    points: Sequence[Step],
    *,
    max_drop: float,
    score: Callable[[Run], float] | None = None,
) -> Point:
    """The cheapest of these settings whose score, when run, is at least that of full depth less `max_drop`.

    There always is one: the last tier at full depth. Where no cascade pays, routers are `defer_all`.
    """
    score = score or _accuracy(sample)
    full, allowed = score(sample.full), max_drop + 1e-9
    for policies in (*(point.policies for point in points if point.risk <= allowed), sample.at_full_depth):
        run = sample.run(policies)
        drop, cost = full - score(run), sample.cost(policies, run)
        if drop <= allowed and cost <= 1:
            break
    depth = run.mean_layer(len(policies.exits))
    return Point(policies, full - drop, drop, float(run.deferred.mean()), depth, cost)


def choose_texts(
    answers: TextAnswers,
    *,
    max_drop: float = 0.005,
    blends: Sequence[float] = (0.0,),
    like: Policies | None = None,
    prices: int = PRICES,
) -> Point:
    """The cheapest setting of a classifier (`text_points`) that loses at most so much accuracy."""
    return choose(answers, text_points(answers, blends=blends, like=like, prices=prices), max_drop=max_drop)


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
    """The cheapest of the settings that were run and lose at most `max_drop` against tier 2 at full depth.

    What is lost is accuracy of words, with `f1` entity F1; tags that are not BIO are an `OptionError` then. Sentences
    that are too long for a tier are left out with a warning; if none is left that is a `DataError`, as are tags that do
    not fit.
    """
    if f1:
        check_bio(tagger.labels)
    truth, given = tag_numbers(sentences, tags, tagger.labels), [words for words in sentences if len(words)]
    with progress("both tiers", 3 * len(truth)) as ahead:
        answers = observe_sentences(tagger, given, truth, progress=ahead)
    if answers.costs is None:
        raise DataError("there must be a sentence with words that fits both tiers, got none; give shorter sentences")
    some = answers.fitting().read_whole(progress)
    if cut := len(answers) - len(some):
        warnings.warn(f"{cut} sentences are longer than a tier reads at once: left out", CascadeWarning, stacklevel=2)

    def entities(run: Run) -> float:
        names = np.array(tagger.labels, dtype=object)
        right, found = (
            [part.tolist() for part in np.split(names[own[:, 0]], some.words.offsets[1:-1])]
            for own in (some.goal, run.answers)
        )
        return entity_f1(right, found)

    score = entities if f1 else None
    points = word_points(some, max_drop=max_drop, like=tagger.policies, grid=grid, score=score, progress=progress)
    return choose(some, points, max_drop=max_drop, score=score)


def _accuracy(sample: TextAnswers | WordAnswers) -> Callable[[Run], float]:
    return lambda run: 1 - float(differ(run.answers, sample.goal).mean())

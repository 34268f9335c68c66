"""The cheapest of all pairs of tiers on the choosing share, and its certificate on the certifying one."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from cascade.calibration.certify.claims import Claim
from cascade.calibration.certify.outcomes import Certified, Refused, Step
from cascade.calibration.certify.paths import PathGrid, text_path
from cascade.calibration.certify.procedure import Chosen, certify
from cascade.calibration.certify.split import Split
from cascade.calibration.certify.texts import confirmed
from cascade.calibration.certify.word_paths import Reach, word_path
from cascade.calibration.observing import observe_sentences, observe_texts
from cascade.calibration.runs import two_tiers
from cascade.calibration.sentences import WordAnswers
from cascade.calibration.texts import TextAnswers
from cascade.calibration.thresholds.words import WordGrid
from cascade.core.statistics import speed_up
from cascade.policies.exits import never
from cascade.policies.routing import defer_all
from cascade.policies.settings import Policies
from cascade.policies.windows import Windows, whole_sentences
from cascade.training.build.exporting import Answered
from cascade.training.build.measuring import in_turns
from cascade.training.build.numbers import NumberAnswers

WITH_EXITS = ("frozen", "tuned")  # second tiers
GRID = PathGrid(ratios=(0.0, 0.5, 1.0, 2.0, 4.0, 8.0))
WORDS = WordGrid(deferred=(0.06, 0.12, 0.21, 0.37), windows=(Windows(2), whole_sentences))
REACH = Reach(run=12, steps=8)
"""Fewer of a tagger's settings than `cascade calibrate` looks at: here they are run for every pair of tiers."""
TIMED = 3  # candidates that are timed beside full depth, the cheapest by prediction
PAYS = 1.1  # times as fast as full depth, or nothing pays


@dataclass(frozen=True, eq=False)
class Candidate:
    """A pair of tiers with the setting of its path that seems cheapest within the bound.

    `exits`, `first`: names of the bundles that the tiers are of; `cost`: predicted, in seconds per token.
    """

    exits: str
    first: str
    pipeline: Any
    step: Step
    cost: float

    def named(self, first: str | None) -> str:
        """Its tiers in words. `first`: the kind of its first tier, if it has one."""
        return f"{f'{self.exits} exits' if self.exits in WITH_EXITS else 'your model'}, {first or 'no'} first tier"


def candidates(
    pipelines: Mapping[str, Any], some: Answered, truth: Any, claim: Claim, *, seconds: float
) -> list[Candidate]:
    """Every second tier with every first tier, cheapest first, on items that choose; as many as the time allows.

    `truth`: as `Texts` has it.
    """
    seen = {name: observed(pipeline, some, truth) for name, pipeline in pipelines.items()}
    begin, found = time.monotonic(), list[Candidate]()
    for (exits, answers), (first, other) in itertools.product(seen.items(), repeat=2):
        if answers.costs is None or other.costs is None or (found and time.monotonic() - begin > seconds):
            continue
        if exits != first and (isinstance(answers, NumberAnswers) or len(answers.layers) == 1):
            continue  # there is no first tier, or the same second one everywhere
        costs = replace(answers.costs, tier1=other.costs.tier1)
        tier1: Any = other.tier1  # of the same kind: both are of one task
        both: Any = replace(answers, tier1=tier1, costs=costs)
        best = min(steps_of(both, claim), key=lambda step: step.cost, default=None)
        if best is not None:
            tiers = (*pipelines[first].tiers[:-1], pipelines[exits].tiers[-1])
            pipeline = replace(pipelines[exits], tiers=tiers).with_policies(best.policies)
            found.append(Candidate(exits, first, pipeline, best, best.cost * costs.full))
    return sorted(found, key=lambda candidate: candidate.cost)


def fastest(
    found: Sequence[Candidate], full: Any, items: Sequence[Any], *, kinds: Mapping[str, str | None], seconds: float
) -> tuple[Candidate | None, dict[str, float]]:
    """The one that really is, in turns with full depth, and what each took; None where full depth is as fast.

    `kinds`: of the bundles' first tiers.
    """
    few = list(found[:TIMED])
    ways: dict[str, Callable[[], object]] = {"full depth": partial(full.predict, items)}
    for number, one in enumerate(few):
        ways[f"{one.named(kinds[one.first])} ({number + 1})"] = partial(one.pipeline.predict, items)
    taken = in_turns(ways, seconds=seconds)
    medians = {name: float(np.median(own)) for name, own in taken.items()}
    names = list(ways)[1:]
    best = min(range(len(few)), key=lambda number: medians[names[number]], default=None)
    ratio = None if best is None else speed_up(taken["full depth"], taken[names[best]])
    if best is None or ratio is None or ratio.median < PAYS:
        return None, medians
    return few[best], medians


def certified(
    pipeline: Any, some: Answered, truth: Any, claim: Claim, split: Split, *, only_full: bool, seed: int
) -> Certified | Refused:
    """The cheapest setting of these tiers that keeps the bound, tested from full depth on; see `certify`.

    Args:
        pipeline: of two tiers, of a regression one.
        some: items that choose, with gaps, and items that certify.
        truth: of these, or None.
        claim: against the original model.
        split: which of them choose.
        only_full: test full depth alone.
        seed: of the outcome.
    """
    answers = observed(pipeline, some, truth)
    safest = Step(_full(answers), risk=0.0, cost=1.0, deferred=1.0)

    def choose(chooser: Any, tester: Any) -> Chosen[Any]:
        return Chosen((safest, *(() if only_full else steps_of(chooser, claim))), tester)

    outcome = certify(answers, claim, choose, split=split, seed=seed, labels=pipeline.labels)
    if isinstance(outcome, Certified) and isinstance(answers, TextAnswers):
        tested, tester = some.select(outcome.tested_on), answers.select(outcome.tested_on)
        real = pipeline.with_policies(outcome.policies).predict(tested.items)
        return confirmed(outcome, tester, tester.answered(real.probabilities))
    return outcome


def observed(pipeline: Any, some: Answered, truth: Any) -> TextAnswers | WordAnswers:
    """What all tiers say about items, with the original's answers to compare with."""
    if some.checkpoint.regression:
        return NumberAnswers.of(pipeline, some)
    if some.checkpoint.tags:
        tags = None if truth is None else np.concatenate(truth)
        return replace(observe_sentences(pipeline, some.items, tags), original=some.answers)
    return replace(observe_texts(pipeline, some.items, truth), original=some.answers)


def steps_of(answers: Any, claim: Claim) -> tuple[Step, ...]:
    """The path of settings, safest first, as far as they keep the bound on texts with gaps."""
    if isinstance(answers, NumberAnswers):
        return _within(answers.path(), claim)
    if isinstance(answers, WordAnswers):
        return _within(word_path(answers, claim.ask, grid=WORDS, reach=REACH), claim)
    return _within(text_path(answers, claim.ask, grid=GRID), claim)


def _within(steps: Sequence[Step], claim: Claim) -> tuple[Step, ...]:
    """Those up to the first that breaks the bound on the texts with gaps; the test on others goes no further."""
    return tuple(itertools.takewhile(lambda step: step.risk <= claim.ask.bound, steps))


def _full(answers: TextAnswers | WordAnswers) -> Policies:
    if isinstance(answers, NumberAnswers):
        return answers.policies(never)
    tags = isinstance(answers, WordAnswers)
    return two_tiers(
        defer_all,
        never,
        temperatures=answers.temperatures,
        windows=whole_sentences if tags else None,
        decoding=answers.decoding if isinstance(answers, WordAnswers) else None,
    )

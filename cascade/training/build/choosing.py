"""The cheapest of all pairs of tiers on the choosing share.

Of a regression exits alone are chosen, where numbers have settled (PABEE, section 3.2): nothing says how sure one is.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from cascade.calibration.certify.claims import FULL, Agreement, Claim, Unit
from cascade.calibration.certify.outcomes import Step
from cascade.calibration.certify.paths import text_path
from cascade.calibration.certify.word_paths import WordGrid, run_guesses, word_guesses
from cascade.calibration.costs import Costs, TierCosts
from cascade.calibration.observing import observe_sentences, observe_texts, rows_of
from cascade.calibration.sentences import WordAnswers, all_exits
from cascade.calibration.texts import TextAnswers
from cascade.core.rows import FloatArray, IntArray
from cascade.core.statistics import speed_up
from cascade.engine.inputs import Inputs
from cascade.policies.exits import ExitPolicy, Settled
from cascade.policies.settings import Policies
from cascade.policies.unit_exits import TokenExit
from cascade.training.build.report import timed
from cascade.training.build.shares import Answered

WITH_EXITS = ("frozen", "tuned")  # second tiers
WORDS = WordGrid(prices=60, steps=8, blends=(0.0, 0.4), run=12, exits=(TokenExit(0.5), TokenExit(0.5, window=3)))
"""Fewer of a tagger's settings than `cascade calibrate` looks at: here they are found for every pair of tiers."""
READS, FEW = 2, 150
"""How many readings of all sentences a pair takes as long as, about; so many are read even where time is short."""
TIMED = 3  # candidates that are timed beside full depth, the cheapest by prediction
PAYS = 1.1  # times as fast as full depth, or nothing pays
SETTLED = np.linspace(0.05, 0.95, 19)  # quantiles of the moves from exit to exit


@dataclass(frozen=True, kw_only=True)
class Within(Agreement):
    """The number may be further than `within` from that of the original model in at most this share."""

    within: float

    def describe(self, unit: Unit = Unit.TEXT, than: str = FULL) -> str:
        """The claim in words. `than`: what is compared with."""
        share = f"at most {self.bound * 100:.4g} % of {unit.value}s"
        return f"the number differs from that of {than} by more than {self.within:g} for {share}"


@dataclass(frozen=True, eq=False)
class NumberAnswers(TextAnswers):
    """Numbers at every exit of a single tier; an answer is 1 where its number is too far from the original's.

    `wanted`: numbers of the original, shape `(items,)`; `within`: how far is not too far.
    """

    wanted: FloatArray = field(default_factory=lambda: np.empty(0, dtype=np.float32))
    within: float = 0.0

    @classmethod
    def of(cls, pipeline: Any, some: Answered) -> NumberAnswers:
        """Run the only tier of a pipeline on items, no row exiting early. Costs are counted in layers."""
        (tier,), inputs = pipeline.tiers, Inputs.of(some.items, pipeline.tokenizer)
        said = rows_of(tier, inputs, all_exits(tier, inputs))
        layers = np.diff(said.layers or (1,), prepend=0)
        return cls(
            tiers=(said,),
            lengths=inputs.lengths,
            truth=None,
            temperatures=pipeline.policies.temperatures,
            costs=Costs((TierCosts(tuple(layers.tolist())),)),
            original=np.zeros((len(some.items), 1), dtype=np.int64),
            wanted=some.logits[:, 0],
            within=some.tolerance,
        )

    def answered(self, found: FloatArray) -> IntArray:
        """Whether each number is too far from the original's."""
        far: IntArray = (np.abs(found[:, 0] - self.wanted) > self.within).astype(np.int64)[:, None]
        return far

    def select(self, examples: IntArray) -> NumberAnswers:
        """These items, in this order."""
        some: Any = super().select(examples)  # of this class
        return replace(some, wanted=self.wanted[examples])  # type: ignore[no-any-return]

    def policies(self, exit_policy: ExitPolicy) -> Policies:
        """Of the only tier."""
        return Policies(routers=(), exits=(exit_policy,), temperatures=self.temperatures)

    def path(self) -> tuple[Step, ...]:
        """`Settled` with ever larger `tau`, safest first."""
        moves, found = np.abs(np.diff(self.tiers[0].probabilities[..., 0], axis=1)), []
        taus = {float(f"{own:.3g}") for own in np.quantile(moves, SETTLED)} if moves.size else set[float]()
        for tau in sorted(taus - {0.0}):
            run = self.run(policies := self.policies(Settled(tau)))
            if (cost := run.seconds / self.full.seconds) < 1:
                found.append(Step(policies, float(run.answers.mean()), cost, deferred=1.0))
        return tuple(found)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A pair of tiers with its path, as far as it seems within the bound; the last setting seems cheapest.

    `exits`, `first`: names of the bundles that the tiers are of; `pipeline`: with that setting; `cost`: predicted, in
    seconds per token.
    """

    exits: str
    first: str
    pipeline: Any
    steps: tuple[Step, ...]
    cost: float

    def named(self, first: str | None) -> str:
        """Its tiers in words. `first`: the kind of its first tier, if it has one."""
        return f"{f'{self.exits} exits' if self.exits in WITH_EXITS else 'your model'}, {first or 'no'} first tier"


def candidates(pipelines: Mapping[str, Any], some: Answered, claim: Claim, *, seconds: float) -> list[Candidate]:
    """Pairs of second and first tiers, cheapest first, on items that choose; as many as the time allows.

    Of a tagger's pairs all are guessed at, and the one that promises most is run.
    """
    begin = time.monotonic()
    seen = {name: observed(pipeline, some) for name, pipeline in pipelines.items()}
    seen = {name: answers for name, answers in seen.items() if answers.costs is not None}
    if some.checkpoint.tags:
        seen = {name: _read(answers, seconds, len(seen) ** 2) for name, answers in seen.items()}
    pairs = [
        (exits, first, _pair(answers, other))
        for (exits, answers), (first, other) in itertools.product(seen.items(), repeat=2)
        # Otherwise there is no first tier, or the same second one everywhere.
        if exits == first or not (isinstance(answers, NumberAnswers) or len(answers.layers) == 1)
    ]
    points = dict[int, Any]()
    if some.checkpoint.tags:
        promised = []
        for number, (_, _, both) in enumerate(pairs):
            points[number], most = word_guesses(both, claim.ask, grid=WORDS)
            within = (step.cost for step in points[number] if step.risk <= most)
            promised.append(min(within, default=1.0) * both.costs.full)
    else:
        promised = [0.0] * len(pairs)
    found = list[Candidate]()
    for number in np.argsort(promised, kind="stable").tolist():
        exits, first, both = pairs[number]
        if found and (some.checkpoint.tags or time.monotonic() - begin > seconds):
            break
        path = _path(both, claim, points.get(number, ()))
        # Up to the first that breaks the bound on the texts with gaps; the test on others goes no further.
        if steps := tuple(itertools.takewhile(lambda step: step.risk <= claim.ask.bound, path)):
            best = min(steps, key=lambda step: step.cost)
            tiers = (*pipelines[first].tiers[:-1], pipelines[exits].tiers[-1])
            pipeline = replace(pipelines[exits], tiers=tiers).with_policies(best.policies)
            found.append(Candidate(exits, first, pipeline, steps, best.cost * both.costs.full))
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
    taken = timed(ways, seconds=seconds)
    medians = {name: float(np.median(own)) for name, own in taken.items()}
    names = list(ways)[1:]
    best = min(range(len(few)), key=lambda number: medians[names[number]], default=None)
    if best is None or speed_up(taken["full depth"], taken[names[best]]).median < PAYS:
        return None, medians
    return few[best], medians


def observed(pipeline: Any, some: Answered) -> TextAnswers | WordAnswers:
    """What all tiers say about items, with the original's answers to compare with."""
    if some.checkpoint.regression:
        return NumberAnswers.of(pipeline, some)
    if some.checkpoint.tags:
        tags = None if some.truth is None else np.concatenate(some.truth)
        return replace(observe_sentences(pipeline, some.items, tags), original=some.answers)
    return replace(observe_texts(pipeline, some.items, some.truth), original=some.answers)


def _read(answers: Any, seconds: float, pairs: int) -> Any:
    """As many of these sentences as the time allows so many pairs, read by tier 2 at every exit."""
    some = answers.fitting()
    each = some.costs.full * some.words.rows.tokens / max(len(some), 1)
    few = max(FEW, int(seconds / max(each * (pairs * READS + WORDS.run), 1e-9)))
    return some.select(np.arange(min(few, len(some)))).read_whole()


def _pair(answers: Any, other: Any) -> Any:
    """What the second tier of the one says behind the first of the other; both are of one task."""
    if answers is other:
        return answers
    costs = replace(answers.costs, tiers=(other.costs.tiers[0], *answers.costs.tiers[1:]))
    return replace(answers, tiers=(other.tiers[0], *answers.tiers[1:]), costs=costs)


def _path(answers: Any, claim: Claim, points: Sequence[Any]) -> tuple[Step, ...]:
    """The path of settings, safest first; `points`: of words, that were guessed."""
    if isinstance(answers, NumberAnswers):
        return answers.path()
    if isinstance(answers, WordAnswers):
        return run_guesses(answers, points, claim.ask, grid=WORDS)
    return text_path(answers, claim.ask)

"""The cheapest setting that can be certified, or why none can.

A share of the documents, drawn by a seed, chooses temperatures and a path of settings; the others test it, in its
order, until a setting fails (fixed-sequence testing: "Learn then Test", Angelopoulos et al. 2021). The last that
passed is taken. However many pass, the chance that a bound that does not hold is certified is at most 1 - confidence:
that takes the first unsafe setting of the path to pass its one exact test. Where classes count by themselves each has
to pass, and nothing is corrected: the claim fails as soon as one class does (an intersection-union test).

It holds for texts that come as these did: exchangeable, none picked for its answer. It leaves to others: what is
counted (`losses`), the statistics (`bounds`, `sequence`), the order (`paths`), files and certificates (`cli`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from cascade.batch import BoolArray, IntArray
from cascade.calibration.examples import Costs
from cascade.certification import bounds
from cascade.certification.answers import Answers
from cascade.certification.claims import Agreement, Claim, MaxDeferred, MaxDrop, MeanCost
from cascade.certification.helping import chosen_router, helps
from cascade.certification.losses import differ, lost
from cascade.certification.means import Mean
from cascade.certification.paths import Grid, Step, Sure, path
from cascade.certification.replay import Replayed, Setting, replay
from cascade.certification.sequence import fixed_sequence
from cascade.certification.temperature import Temperatures, fit_temperatures
from cascade.checks import check_share
from cascade.confidence import max_probability
from cascade.exceptions import DataError, OptionError
from cascade.routing import RoutingState

__all__ = ["Certified", "Figures", "Outcome", "Refused", "Tested", "Testing", "certify", "testing"]

LEAST = 20  # documents, below which there is nothing to choose from
ENOUGH = 100  # of the choosing share; temperatures of fewer are worth less than the bundle's
SHOWN = 8  # classes in a message
FEWER = 5000  # documents that choose, at most: more change the path hardly


@dataclass(frozen=True)
class Tested:
    """A setting that was tested, by itself.

    Attributes:
        step: of the path.
        events: documents that count against it; of `MeanCost` those that cost more than the bound.
        rate: of the events; of `MeanCost` the mean in seconds.
        examples: documents.
        p_value: of "the bound does not hold".
        upper: one-sided bound of `rate`, at the claim's confidence.
    """

    step: Step
    events: int
    rate: float
    examples: int
    p_value: float
    upper: float


@dataclass(frozen=True)
class Figures:
    """What a setting does on the testing share.

    Attributes:
        examples: documents, or a tagger's sentences or words, of this share.
        accuracy, full_accuracy: of the setting, of tier 2 at full depth; `None` without labels, as the next three.
        drop: the second less the first.
        harms: wrong where full depth is right.
        gains: right where full depth is wrong.
        disagreements: answers that differ from full depth's.
        deferred: share of the rows.
        mean_exit: layer, of the deferred rows; 0 where there are none.
        seconds, full_seconds: a document costs on average, predicted from costs per token; of taggers measured.
    """

    examples: int
    accuracy: float | None
    full_accuracy: float | None
    drop: float | None
    harms: int | None
    gains: int | None
    disagreements: int
    deferred: float
    mean_exit: float
    seconds: float
    full_seconds: float

    @property
    def speed_up(self) -> float:
        """Over tier 2 at full depth."""
        return self.full_seconds / self.seconds if self.seconds else math.inf


@dataclass(frozen=True, eq=False, kw_only=True)
class Outcome:
    """What both outcomes say.

    Attributes:
        claim: what was asked.
        method: how it was tested, in words.
        steps: the path.
        tested: of its first steps; all but perhaps the last passed.
        chosen_on, tested_on: numbers of the documents of either share.
        temperatures: of all settings of the path.
        seed: of the shares.
        warnings: what makes the guarantee doubtful, each a sentence.
    """

    claim: Claim
    method: str
    steps: tuple[Step, ...]
    tested: tuple[Tested, ...]
    chosen_on: IntArray
    tested_on: IntArray
    temperatures: Temperatures
    seed: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class Certified(Outcome):
    """Something was certified.

    Attributes:
        number: of the step that is taken.
        figures: of it.
    """

    number: int
    figures: Figures

    @property
    def step(self) -> Step:
        """The step that is taken."""
        return self.steps[self.number]

    @property
    def setting(self) -> Setting:
        """Its policies."""
        return self.step.setting

    @property
    def taken(self) -> Tested:
        """Its test."""
        return self.tested[self.number]


@dataclass(frozen=True, eq=False, kw_only=True)
class Refused(Outcome):
    """Nothing was certified.

    Attributes:
        why: a sentence without a full stop.
        examples_needed: in all, the choosing share too, as far as these can tell; `None` where no number would do.
    """

    why: str
    examples_needed: int | None


def certify(
    answers: Answers,
    costs: Costs,
    claim: Claim,
    *,
    labels: Sequence[str] = (),
    seed: int = 0,
    chosen: float = 0.3,
    temper: bool = True,
    learn_router: bool = True,
    grid: Grid | None = None,
) -> Certified | Refused:
    """Choose a path on one share of the documents, test it on the other.

    Args:
        answers: of both tiers, at all exits, about documents that are drawn as those of the claim will be.
        costs: seconds per token (`answers.observe`).
        claim: about texts.
        labels: names, for messages about classes; numbers if left out.
        seed: of the shares.
        chosen: share of the documents that choose, 5,000 of them at most; the others test.
        temper: fit temperatures on the choosing share, where it has labels and 100 documents at least.
        learn_router: try a learned router there, see `helping`.
        grid: settings that are tried; `Grid()` if left out.

    Raises:
        OptionError: a claim that needs labels where there are none, or an impossible share.
        DataError: fewer documents than it takes to choose anything.
    """
    total = len(answers)
    if claim.ask.needs_labels and answers.truth is None:
        raise OptionError(
            f"{type(claim.ask).__name__} needs labelled examples, these have none; ask for Agreement, which needs none"
        )
    if total < LEAST:
        raise DataError(
            f"there must be at least {LEAST} examples, were: {total}; a bound of 0.01 at 95 % takes hundreds"
        )
    check_share("chosen", chosen, "0.3 leaves seven tenths for the test")
    count = min(max(round(chosen * total), 1), FEWER, total - 1)
    order = np.random.default_rng(seed).permutation(total).astype(np.int64)
    choosing, rest = order[:count], order[count:]
    chooser = answers.select(choosing)
    if temper and answers.truth is not None and count >= ENOUGH:
        chooser = chooser.with_temperatures(_fitted(chooser))
    sure = _sure(chooser, seed) if learn_router else None
    steps = path(chooser, costs, claim.ask, sure=sure, grid=grid)
    tester = answers.select(rest).with_temperatures(chooser.temperatures)
    test = Testing.of(tester, costs, claim, chooser=chooser)
    tested: list[Tested] = []

    def p_values() -> Iterator[float]:
        for step in steps:
            tested.append(test.of_step(step))
            yield tested[-1].p_value

    hopeless = test.hopeless(labels, total / len(rest))
    passed = 0 if hopeless else fixed_sequence(p_values(), level=claim.level)
    shared = {
        "claim": claim,
        "method": test.method,
        "steps": steps,
        "tested": tuple(tested),
        "chosen_on": choosing,
        "tested_on": rest,
        "temperatures": chooser.temperatures,
        "seed": seed,
        "warnings": test.warnings(),
    }
    if passed:
        return Certified(**shared, number=passed - 1, figures=test.figures(steps[passed - 1].setting))  # type: ignore[arg-type]  # as listed above
    why, needed = hopeless or test.refusal(tested, labels, total / len(rest))
    return Refused(**shared, why=why, examples_needed=needed)  # type: ignore[arg-type]  # as listed above


def testing(answers: Answers, costs: Costs, outcome: Outcome) -> Testing:
    """The testing share of an outcome again, to look at more of it. `answers`, `costs`: as `certify` was given."""
    tempered = answers.with_temperatures(outcome.temperatures)
    shares = tempered.select(outcome.tested_on), tempered.select(outcome.chosen_on)
    return Testing.of(shares[0], costs, outcome.claim, chooser=shares[1])


def _fitted(chooser: Answers) -> Temperatures:
    goal = chooser.goal()[chooser.documents]
    truth = goal if chooser.binary else goal[:, 0]
    return fit_temperatures(
        chooser.tier1, chooser.tier2, truth, was=chooser.temperatures, multi_label=chooser.multi_label
    )


def _sure(chooser: Answers, seed: int) -> Sure | None:
    truth = None if chooser.truth is None else chooser.goal()[chooser.documents]
    helping = helps(chooser.tier1, chooser.tier2[:, -1], truth, multi_label=chooser.multi_label)
    choice = chosen_router(chooser.tier1, chooser.lengths, helping, multi_label=chooser.multi_label, seed=seed)
    if choice.router is None:
        return None
    confidence = max_probability(chooser.tier1, multi_label=chooser.multi_label)
    state = RoutingState(chooser.tier1, confidence, chooser.lengths, chooser.multi_label)
    return Sure(choice.score(state), choice.at)


@dataclass(frozen=True, eq=False)
class Testing:
    """The testing share, and what is counted on it. Make it with `testing` or `Testing.of`.

    Attributes:
        groups: documents of each class that has to pass by itself; `None`: all together. Shape `(classes, documents)`.
        most: seconds of a document, above which they count as that many (`MeanCost`).
    """

    answers: Answers
    costs: Costs
    claim: Claim
    full: IntArray
    goal: IntArray
    groups: BoolArray | None
    most: float = field(default=math.inf)

    @classmethod
    def of(cls, answers: Answers, costs: Costs, claim: Claim, *, chooser: Answers) -> Testing:
        """Of the answers of either share, with the temperatures of the path."""
        full, goal = answers.full(), answers.goal()
        groups = None
        if isinstance(claim.ask, MaxDrop | Agreement) and claim.ask.per_class:
            of = goal if isinstance(claim.ask, MaxDrop) else full
            several = np.arange(answers.tier2.shape[-1])
            groups = of.T.astype(np.bool_) if answers.binary else of[:, 0] == several[:, None]
        lengths = np.bincount(chooser.documents, weights=chooser.lengths)
        return cls(answers, costs, claim, full, goal, groups, 2 * float(lengths.max()) * (costs.full + costs.tier1))

    @property
    def method(self) -> str:
        """In words."""
        ask = self.claim.ask
        if isinstance(ask, MeanCost):
            how = "a betting test of a bounded mean (Waudby-Smith and Ramdas)"
        else:
            how = "an exact binomial test"
        classes = " of every class" if self.groups is not None else ""
        return f"fixed-sequence testing along a path chosen on other examples, by {how}{classes}"

    def of_step(self, step: Step) -> Tested:
        """Test a setting."""
        ask, confidence = self.claim.ask, self.claim.confidence
        ran = replay(self.answers, step.setting, self.costs)
        if isinstance(ask, MeanCost):
            mean = Mean(np.minimum(ran.seconds, self.most), most=self.most, level=self.claim.level)
            above = int((ran.seconds > ask.seconds).sum())
            return Tested(step, above, mean.mean, len(ran.seconds), mean.p_value(ask.seconds), mean.upper())
        event = self._event(ran)
        if self.groups is None:
            events, examples = int(event.sum()), len(event)
            p_value = float(bounds.p_value(events, examples, ask.bound))
        else:
            found, sizes = (self.groups & event).sum(axis=1), self.groups.sum(axis=1)
            p_values = bounds.p_value(found, sizes, ask.bound)
            worst = int(p_values.argmax())
            events, examples, p_value = int(found[worst]), int(sizes[worst]), float(p_values[worst])
        upper = bounds.upper_bound(events, examples, confidence=confidence)
        return Tested(step, events, events / max(examples, 1), examples, p_value, upper)

    def by_class(self, setting: Setting) -> tuple[IntArray, IntArray]:
        """Events and documents of each class; of none where classes do not count by themselves."""
        if self.groups is None:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        event = self._event(replay(self.answers, setting, self.costs))
        return (self.groups & event).sum(axis=1), self.groups.sum(axis=1)

    def hopeless(self, labels: Sequence[str], scale: float) -> tuple[str, int] | None:
        """Why not even a setting without a single event could pass, and how many examples that would take."""
        ask = self.claim.ask
        if isinstance(ask, MeanCost):
            return None
        least = bounds.examples_needed(ask.bound, confidence=self.claim.confidence)
        sizes = np.array([len(self.answers)]) if self.groups is None else self.groups.sum(axis=1)
        few = np.flatnonzero(sizes < least)
        if not len(few):
            return None
        if self.groups is None:
            why = f"{sizes[0]} examples are left to test with, and even without a single event it takes {least}"
            return why, math.ceil(least * scale)
        named = [f"{_name(labels, int(number))} ({sizes[number]})" for number in few]
        listed = ", ".join(named[:SHOWN]) + (f" and {len(named) - SHOWN} more" if named[SHOWN:] else "")
        why = f"{least} examples of every class are needed to test with, fewer are left of {listed}"
        # What is missing most of in proportion decides; of a class that is not there nothing can be told.
        share = max(float(sizes.min()), 1.0) / float(sizes.sum())
        return why, math.ceil(least * scale / share)

    def refusal(self, tested: Sequence[Tested], labels: Sequence[str], scale: float) -> tuple[str, int | None]:
        """Why the first setting of the path did not pass."""
        ask = self.claim.ask
        if not tested:
            return "nothing that was tried is both cheaper than tier 2 at full depth and likely to keep the bound", None
        first = tested[0]
        if isinstance(ask, MeanCost):
            if first.rate >= ask.seconds:
                return f"even the cheapest setting costs {first.rate * 1000:.3g} ms on average", None
            why = f"the cheapest setting costs {first.rate * 1000:.3g} ms on average, which is too near to tell"
            spare = (math.log(1 / self.claim.level) / -math.log(max(first.p_value, 1e-12))) if first.p_value < 1 else 0
            return why, math.ceil(len(self.answers) * scale * max(spare, 2.0)) if spare else None
        what = "events" if self.groups is None else "events in the worst class"
        seen = f"the safest setting of the path has {first.events} {what} among {first.examples} examples"
        if first.rate >= ask.bound:
            return f"{seen}, which is no less than the bound", None
        least = bounds.examples_needed(ask.bound, confidence=self.claim.confidence, rate=first.rate)
        share = first.examples / len(self.answers)
        return f"{seen}, too many to be sure of the bound", math.ceil(least * scale / share)

    def warnings(self) -> tuple[str, ...]:
        """About this share."""
        if not isinstance(self.claim.ask, MeanCost):
            return ()
        lengths = np.bincount(self.answers.documents, weights=self.answers.lengths)
        long = int((lengths * (self.costs.full + self.costs.tier1) > self.most).sum())
        most = self.most / (self.costs.full + self.costs.tier1)
        return (
            f"a text of more than {most:.0f} tokens counts as one of so many ({long} of {len(lengths)} were longer)",
        )

    def figures(self, setting: Setting) -> Figures:
        """What a setting does."""
        ran = replay(self.answers, setting, self.costs)
        layers = np.asarray(self.answers.layers)[ran.exits[ran.deferred]]
        lengths = np.bincount(self.answers.documents, weights=self.answers.lengths)
        n, accuracy, full_accuracy, drop, harms, gains = len(self.answers), None, None, None, None, None
        if self.answers.truth is not None:
            right, full_right = ~differ(ran.answers, self.goal), ~differ(self.full, self.goal)
            accuracy, full_accuracy = float(right.mean()), float(full_right.mean())
            harms, gains = int((full_right & ~right).sum()), int((right & ~full_right).sum())
            drop = (harms - gains) / n
        return Figures(
            examples=n,
            accuracy=accuracy,
            full_accuracy=full_accuracy,
            drop=drop,
            harms=harms,
            gains=gains,
            disagreements=int(differ(ran.answers, self.full).sum()),
            deferred=float(ran.deferred.mean()),
            mean_exit=float(layers.mean()) if len(layers) else 0.0,
            seconds=float(ran.seconds.mean()),
            full_seconds=float(lengths.mean()) * self.costs.full,
        )

    def _event(self, ran: Replayed) -> BoolArray:
        """Documents that count against a setting; of deferral those of which a window is deferred."""
        if isinstance(self.claim.ask, MaxDeferred):
            return np.bincount(self.answers.documents, weights=ran.deferred) > 0
        return lost(self.claim.ask, ran.answers, self.full, self.goal)


def _name(labels: Sequence[str], number: int) -> str:
    return repr(labels[number]) if number < len(labels) else f"class {number}"

"""The cheapest setting that can be certified, or why none can: one procedure for texts and for sentences.

A share of the examples, drawn by a seed, chooses temperatures and a path of settings; the others test it in its order
until one fails (fixed-sequence testing: "Learn then Test", Angelopoulos et al. 2021). The last that passed is taken. A
bound that does not hold is certified with a probability of at most 1 - confidence, however many pass, if examples come
as these did (exchangeable, none picked for its answer) and every question about them is counted (`Claim.level`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from cascade.calibration.certify.bounds import examples_needed, fixed_sequence, upper_limit
from cascade.calibration.certify.claims import ORIGINAL, Agreement, Claim, MaxDrop, Unit
from cascade.calibration.certify.events import by_class, count, doubts, figures_of
from cascade.calibration.certify.outcomes import Certified, Outcome, Refused, Step, Tested
from cascade.calibration.runs import Run, Sample
from cascade.core.labels import listed
from cascade.core.rounding import percent, percent_up
from cascade.core.rows import IntArray
from cascade.exceptions import DataError, OptionError

CHOOSERS = 10  # examples that choose, at least, where the test needs nearly all
SHARES = {Unit.TEXT: (20, 0.2, 5000), Unit.SENTENCE: (10, 0.3, 500)}
"""By what is counted: distinct examples at least, as fewer say nothing; the share that chooses, and its most."""


@dataclass(frozen=True, eq=False)
class Split:
    """Both shares, numbers of examples, shape `(choosing,)` and `(testing,)`. Make it with `Split.of`.

    `chosen`: share that chooses, as far as `most` allows: so many at most, as more would change a path hardly.
    """

    choosers: IntArray
    testers: IntArray
    chosen: float
    most: int

    @classmethod
    def of(cls, total: int, claim: Claim, *, seed: int) -> Split:
        """Draw both shares of so many examples by a seed: a fifth of the texts chooses, three tenths of the sentences.

        Where examples are few, more of them test, if so many are needed to show the claim without a single event. Too
        few (`SHARES`) are a `DataError`.
        """
        least, chosen, most = SHARES[claim.unit]
        needed = examples_needed(claim.ask.bound, confidence=1 - claim.level)
        if total < least:
            raise DataError(
                f"there must be at least {least} distinct examples, got {total}; a bound of {claim.ask.bound:g} at "
                f"{100 * claim.confidence:.4g} % takes {needed:,} for the test alone"
            )
        count = min(max(round(chosen * total), 1), most, total - 1)
        if total - count < needed <= total - CHOOSERS:
            count = total - needed
        order = np.random.default_rng(seed).permutation(total).astype(np.int64)
        return cls(order[:count], order[count:], chosen, most)

    def in_all(self, testers: float) -> int:
        """Examples of both shares, if so many have to test."""
        return math.ceil(testers) + min(self.most, math.ceil(testers * self.chosen / (1 - self.chosen) - 1e-9))


S = TypeVar("S", bound=Sample)


@dataclass(frozen=True, eq=False)
class Chosen(Generic[S]):
    """What the choosing share chose: a path, the testing share with its temperatures, and what has to be said of it."""

    steps: Sequence[Step]
    tester: S
    warnings: tuple[str, ...] = ()


def certify(
    tester: S,
    claim: Claim,
    choose: Callable[[], Chosen[S]],
    *,
    split: Split,
    seed: int,
    labels: Sequence[str] = (),
    progress: Callable[[int], object] | None = None,
) -> Certified | Refused:
    """Test the path that `choose` makes, of other examples, on those of the testing share.

    `choose` is called only where the claim can be shown at all; it hands the testing share on, and does not look at it.
    `split`: by `seed`; `labels`: names, for messages about classes, numbers if left out; `progress`: called with 1 for
    each test.
    """
    check_labels(claim, labelled=tester.labelled)
    outcome = Outcome(
        claim=claim,
        method=_method(claim),
        steps=(),
        tested=(),
        chosen_on=split.choosers,
        tested_on=split.testers,
        temperatures=tester.temperatures,
        seed=seed,
        warnings=doubts(claim, tester, labels),
    )
    infeasible = _infeasible_reason(claim, tester, split, labels)
    if infeasible is not None:
        return Refused(**vars(outcome), why=infeasible[0], examples_needed=infeasible[1])
    chosen = choose()
    tester, steps = chosen.tester, tuple(chosen.steps)
    tested: list[Tested] = []
    passing: list[Run] = []  # of the last setting that passed: no setting runs twice

    def p_values() -> Iterator[float]:
        for step in steps:
            run = tester.run(step.policies)
            events, seen, p_value = count(claim, tester, run)
            upper = float(upper_limit(events, seen, confidence=claim.confidence))
            tested.append(Tested(step, events, seen, p_value, upper))
            if p_value <= claim.level:
                passing[:] = [run]
            if progress is not None:
                progress(1)
            yield p_value

    passed = fixed_sequence(p_values(), level=claim.level)
    said = vars(outcome) | {"steps": steps, "tested": tuple(tested)}
    said |= {"temperatures": tester.temperatures, "warnings": (*outcome.warnings, *chosen.warnings)}
    if not passed:
        why, needed = _refusal(claim, tested, len(tester), split)
        return Refused(**said, why=why, examples_needed=needed)
    run, number = passing[0], passed - 1
    figures = figures_of(tester, run, tester.timed(steps[number].policies))
    classes = zip(*(column.tolist() for column in by_class(claim, tester, run)), strict=True)
    return Certified(
        **said,
        number=number,
        figures=figures,
        disagreement_upper=disagreement_limit(claim, figures.disagreements, figures.examples, len(steps)),
        run=run,
        classes=tuple(classes) if claim.ask.per_class else (),
    )


def check_labels(claim: Claim, *, labelled: bool) -> None:
    """An `OptionError` where a claim needs labels and there are none, or classes that sentences do not have."""
    if claim.ask.needs_labels and not labelled:
        raise OptionError(f"{type(claim.ask).__name__} needs labelled examples, these have none; ask for Agreement")
    if claim.unit is Unit.SENTENCE and claim.ask.per_class:
        raise OptionError("a bound for every label separately must be about texts, got sentences; leave per_class out")


def disagreement_limit(claim: Claim, events: int, examples: int, steps: int) -> float:
    """Upper limit of the disagreement of the setting that was taken, whichever of the path it is.

    Each setting of the path gets an equal part of the error (Bonferroni), so selecting one of them does not spoil it.
    Where disagreement itself was certified, the bound is the limit: the smaller of both would spend the error twice.
    """
    if isinstance(claim.ask, Agreement) and not claim.ask.per_class and claim.than != ORIGINAL:
        return claim.ask.bound
    return float(upper_limit(events, examples, confidence=1 - claim.level / max(steps, 1)))


def _method(claim: Claim) -> str:
    classes = " of every class" if claim.ask.per_class else ""
    sentences = " of sentences with any such word; F1 is not certified" if claim.unit is Unit.SENTENCE else ""
    counted = (
        f"; question {claim.question} about these examples, at a level of {percent(claim.level)}: all questions share "
        f"{percent(1 - claim.confidence)}"
    ) * (claim.question is not None)
    path = "fixed-sequence testing along a path chosen on other examples"
    return f"{path}, by an exact binomial test{classes}{sentences}{counted}"


def _infeasible_reason(
    claim: Claim, tester: Sample, split: Split, labels: Sequence[str]
) -> tuple[str, int | None] | None:
    """Why not even a setting without a single event could pass, and how many examples that would take."""
    ask, unit = claim.ask, claim.unit.value
    least = examples_needed(ask.bound, confidence=1 - claim.level)
    if not ask.per_class:
        if len(tester) >= least:
            return None
        why = f"{len(tester)} {unit}s are left to test with, and even without a single event it takes {least}"
        return why, split.in_all(least)
    sizes = tester.classes(tester.goal if isinstance(ask, MaxDrop) else tester.reference).sum(axis=1)
    few = np.flatnonzero(sizes < least)
    if not len(few):
        return None
    named = [f"{repr(labels[n]) if n < len(labels) else f'class {n}'} ({sizes[n]})" for n in few.tolist()]
    why = f"{least} {unit}s of every class are needed to test with, fewer are left of {listed(named)}"
    # The rarest class decides; of a class that is not there nothing can be told.
    return why, split.in_all(least * len(tester) / int(sizes.min())) if sizes.min() else None


def _refusal(claim: Claim, tested: Sequence[Tested], testers: int, split: Split) -> tuple[str, int | None]:
    """Why the first setting of the path did not pass, and how many examples would do for it, asked once more."""
    if not tested:
        return "nothing that was tried is both cheaper than full depth and likely to keep the bound", None
    first = tested[0]
    of = f"{claim.unit.value}s of the worst class" if claim.ask.per_class else f"{claim.unit.value}s"
    seen = (
        f"the safest setting of the path has {first.events} events among {first.examples} {of} "
        f"({percent(first.rate)}, upper limit {percent_up(first.upper)})"
    )
    if first.rate >= claim.ask.bound:
        return f"{seen}, which is no less than the bound", None
    least = examples_needed(claim.ask.bound, confidence=1 - claim.later.level, rate=first.rate)
    return f"{seen}, too many to be sure of the bound", split.in_all(least * testers / first.examples)

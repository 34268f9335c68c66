"""The cheapest setting that can be certified, or why none can.

A share of the documents, drawn by a seed, chooses temperatures and a path of settings; the others test it, in its
order, until a setting fails (fixed-sequence testing: "Learn then Test", Angelopoulos et al. 2021). The last that
passed is taken. However many pass, the chance that a bound that does not hold is certified is at most 1 - confidence:
that takes the first unsafe setting of the path to pass its one exact test. Where classes count by themselves each has
to pass, and nothing is corrected: the claim fails as soon as one class does (an intersection-union test).

It holds for texts that come as these did: exchangeable, none picked for its answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from cascade.calibration.answers import Answers
from cascade.calibration.claims import Claim
from cascade.calibration.examples import Costs
from cascade.calibration.helping import chosen_router, helps
from cascade.calibration.outcomes import Certified, Figures, Outcome, Refused, Tested
from cascade.calibration.paths import Grid, Sure, path
from cascade.calibration.sequence import fixed_sequence
from cascade.calibration.shares import Share
from cascade.calibration.temperature import Temperatures, fit_temperatures
from cascade.core.checks import check_share
from cascade.core.confidence import max_probability
from cascade.exceptions import DataError, OptionError
from cascade.policies.routing import RoutingState

__all__ = ["Certified", "Figures", "Outcome", "Refused", "Share", "Tested", "certify", "share_of"]

LEAST = 20  # documents, below which there is nothing to choose from
ENOUGH = 100  # of the choosing share; temperatures of fewer are worth less than the bundle's
FEWER = 5000  # documents that choose, at most: more change the path hardly


def certify(
    answers: Answers,
    costs: Costs,
    claim: Claim,
    *,
    labels: Sequence[str] = (),
    seed: int = 0,
    chosen: float = 0.2,
    temper: bool = True,
    learn_router: bool = True,
    grid: Grid | None = None,
    progress: Callable[[int], object] | None = None,
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
        progress: called with 1 for each setting that was tested.

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
    check_share("chosen", chosen, "0.2 leaves four fifths for the test")
    count = min(max(round(chosen * total), 1), FEWER, total - 1)
    order = np.random.default_rng(seed).permutation(total).astype(np.int64)
    choosing, rest = order[:count], order[count:]
    chooser = answers.select(choosing)
    if temper and answers.truth is not None and count >= ENOUGH:
        chooser = chooser.with_temperatures(_fitted(chooser))
    sure = _sure(chooser, seed) if learn_router else None
    steps = path(chooser, costs, claim.ask, sure=sure, grid=grid)
    tester = answers.select(rest).with_temperatures(chooser.temperatures)
    test = Share.of(tester, costs, claim, chooser=chooser)
    tested: list[Tested] = []

    def p_values() -> Iterator[float]:
        for step in steps:
            tested.append(test.of_step(step))
            if progress is not None:
                progress(1)
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


def share_of(answers: Answers, costs: Costs, outcome: Outcome) -> Share:
    """The testing share of an outcome again, to look at more of it. `answers`, `costs`: as `certify` was given."""
    tempered = answers.with_temperatures(outcome.temperatures)
    shares = tempered.select(outcome.tested_on), tempered.select(outcome.chosen_on)
    return Share.of(shares[0], costs, outcome.claim, chooser=shares[1])


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

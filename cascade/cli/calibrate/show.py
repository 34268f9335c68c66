"""An outcome of `cascade calibrate` for a terminal.

Needs the extra `calibrate`, so the command imports it when it runs.
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from cascade.calibration.certify.claims import Agreement, Unit
from cascade.calibration.certify.outcomes import Certified, Outcome, Refused
from cascade.cli.show import duration, pairs, policy_rows
from cascade.core.rounding import percent, percent_up
from cascade.exceptions import printable

AGAIN = (
    "Examples that are added to these, and another seed or bound, make another question about the same examples, which "
    "is tested at a smaller level; with new examples alone the first question is asked anew."
)


def shown(outcome: Certified | Refused, *, model: str, data: str, priced: bool = False) -> str:
    """What was asked, what came of it, and what the reader must know.

    `data`: the file's name; `priced`: costs are prices, not seconds, and settings thresholds alone.
    """
    chosen, tested = len(outcome.chosen_on), len(outcome.tested_on)
    lines = [
        printable(f"{model}, {chosen + tested:,} examples of {data}: {chosen:,} chose the path, {tested:,} tested it"),
        click.style(printable(outcome.claim.describe()), bold=True),
        "",
    ]
    rows = _certified(outcome, priced) if isinstance(outcome, Certified) else _refused(outcome)
    level = f"tested at a level of {percent(outcome.claim.level)}"
    lines.append(pairs([*rows, ("question", f"number {outcome.claim.question} about these examples, {level}")]))
    if isinstance(outcome, Refused) and outcome.tested:
        lines.append(AGAIN)
    lines += [f"Warning: {printable(warning)}." for warning in outcome.warnings]
    return "\n".join(lines)


def _certified(outcome: Certified, priced: bool) -> Iterator[tuple[str, str]]:
    figures, claim = outcome.figures, outcome.claim
    last, count = _last(outcome), len(outcome.policies.exits)
    before = f", after {outcome.number} safer ones" if outcome.number else ""
    yield "certified", f"yes: setting {outcome.number + 1} of {len(outcome.steps)}{before}"
    yield claim.counted, _tested(outcome, outcome.number)
    if figures.drop is not None and figures.accuracy is not None and figures.full_accuracy is not None:
        both = f"{100 * figures.accuracy:.2f} %, full {last} {100 * figures.full_accuracy:.2f} %"
        lost = f"drop {100 * figures.drop:.2f} points ({figures.harms} harmed, {figures.gains} gained)"
        yield "accuracy", f"{both}; {lost}"
    if not isinstance(claim.ask, Agreement):
        seen = f"{figures.disagreements:,} of {figures.examples:,}"
        part, limit = percent(figures.disagreements / figures.examples), percent_up(outcome.disagreement_upper)
        yield "disagreement", f"{seen} ({part}), at most {limit}"
    if count == 2:
        yield "deferred", percent(figures.deferred)
    for number, (share, layer) in enumerate(figures.answered, 1):
        if count != 2:
            yield f"tier {number}", f"answers {percent(share)}{f', mean exit layer {layer:.2f}' * (layer > 0)}"
        elif layer:
            yield "mean exit", f"layer {layer:.2f}, of the deferred"
    yield "cost", _cost(outcome, priced)
    if priced:
        yield from (row for row in policy_rows(outcome.policies) if row[0].startswith("router"))
        return
    yield from policy_rows(outcome.policies)
    yield "temperatures", "; ".join(", ".join(f"{value:g}" for value in tier) for tier in outcome.temperatures)


def _refused(outcome: Refused) -> Iterator[tuple[str, str]]:
    yield "certified", "no"
    yield "why", outcome.why
    needed, remedy = outcome.examples_needed, "no number is known that would do for these; ask for less"
    yield "examples needed", remedy if needed is None else f"about {needed:,} in all, as far as these can tell"
    if outcome.tested:
        yield outcome.claim.counted, f"{_tested(outcome, 0)}, of the safest setting"


def _tested(outcome: Outcome, number: int) -> str:
    tested = outcome.tested[number]
    return (
        f"{tested.events:,} of {tested.examples:,} ({percent(tested.rate)}), bound {percent(outcome.claim.ask.bound)} "
        f"(upper limit of this setting alone {percent_up(tested.upper)}, an estimate)"
    )


def _cost(outcome: Certified, priced: bool) -> str:
    figures = outcome.figures
    if priced:
        each = f"{figures.seconds:.4g} a row, {_last(outcome)} alone {figures.full_seconds:.4g}"
        return f"{each}: {figures.speed_up:.2f} times as cheap"
    texts = outcome.claim.unit is Unit.TEXT
    kind, how = ("predicted", "by costs per token measured here") if texts else ("measured", "here, in turns")
    return (
        f"{duration(figures.seconds)}, full {_last(outcome)} {duration(figures.full_seconds)}: {kind} speed-up "
        f"{figures.speed_up:.2f}, {how}"
    )


def _last(outcome: Certified) -> str:
    return f"tier {len(outcome.policies.exits)}"

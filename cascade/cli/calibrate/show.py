"""An outcome of `cascade calibrate` for a terminal.

Needs the extra `calibrate`, so the command imports it when it runs.
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from cascade.calibration.certify.claims import Agreement, Unit
from cascade.calibration.certify.outcomes import Certified, Outcome, Refused
from cascade.cli.show import duration
from cascade.core.rounding import percent, percent_up
from cascade.exceptions import printable
from cascade.policies.exits import never
from cascade.policies.routing import DeferAll
from cascade.policies.settings import Policies

AGAIN = (
    "Examples that are added to these, and another seed or bound, make another question about the same examples, which "
    "is tested at a smaller level; with new examples alone the first question is asked anew."
)


def shown(outcome: Certified | Refused, *, model: str, data: str) -> str:
    """What was asked, what came of it, and what the reader must know. `data`: the file's name."""
    chosen, tested = len(outcome.chosen_on), len(outcome.tested_on)
    lines = [
        printable(f"{model}, {chosen + tested:,} examples of {data}: {chosen:,} chose the path, {tested:,} tested it"),
        click.style(printable(outcome.claim.describe()), bold=True),
        "",
    ]
    rows = list(_certified(outcome)) if isinstance(outcome, Certified) else list(_refused(outcome))
    level = f"tested at a level of {percent(outcome.claim.level)}"
    rows.append(("question", f"number {outcome.claim.question} about these examples, {level}"))
    width = max(len(name) for name, _ in rows)
    lines += [f"{name:<{width}}  {value}" for name, value in rows]
    if isinstance(outcome, Refused) and outcome.tested:
        lines.append(AGAIN)
    lines += [f"Warning: {printable(warning)}." for warning in outcome.warnings]
    return "\n".join(lines)


def _certified(outcome: Certified) -> Iterator[tuple[str, str]]:
    figures, claim, policies = outcome.figures, outcome.claim, outcome.policies
    last, count = _last(outcome), len(policies.exits)
    before = f", after {outcome.number} safer ones" if outcome.number else ""
    yield "certified", click.style(f"yes: setting {outcome.number + 1} of {len(outcome.steps)}{before}", fg="green")
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
    yield "cost", _cost(outcome)
    names = ("router", "exit policy", "blend") if count == 2 else ("routers", "exit policies", "blends")
    yield from zip(names, settings(policies), strict=True)
    for told in never_asked(policies):
        yield "never asked", told
    if policies.windows is not None:
        yield "windows", repr(policies.windows)
    if policies.decoding is not None:
        yield "decoding", repr(policies.decoding)
    yield "temperatures", "; ".join(", ".join(f"{value:g}" for value in tier) for tier in outcome.temperatures)


def _refused(outcome: Refused) -> Iterator[tuple[str, str]]:
    yield "certified", click.style("no", fg="red")
    yield "why", printable(outcome.why)
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


def _cost(outcome: Certified) -> str:
    figures = outcome.figures
    texts = outcome.claim.unit is Unit.TEXT
    kind, how = ("predicted", "by costs per token measured here") if texts else ("measured", "here, in turns")
    return (
        f"{duration(figures.seconds)}, full {_last(outcome)} {duration(figures.full_seconds)}: {kind} speed-up "
        f"{figures.speed_up:.2f}, {how}"
    )


def _last(outcome: Certified) -> str:
    return f"tier {len(outcome.policies.exits)}"


def settings(policies: Policies) -> tuple[str, str, str]:
    """Routers, exit policies and blends; the first of several tiers is left out where it has no exits."""
    exits = policies.exits[1:] if len(policies.exits) > 1 and policies.exits[0] == never else policies.exits
    blends = ", ".join(f"{blend:g}" for blend in policies.blend) or "0"
    return "; ".join(map(repr, policies.routers)) or "none", "; ".join(map(repr, exits)), blends


def never_asked(policies: Policies) -> list[str]:
    """What has to be said of tiers before the last one that do not pay."""
    numbers = [number for number, router in enumerate(policies.routers, 1) if isinstance(router, DeferAll)]
    return [f"tier {number} costs more than it saves on these examples, so that it is not run" for number in numbers]

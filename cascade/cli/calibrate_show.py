"""An outcome of `cascade calibrate` for a terminal.

Needs the extra `calibrate`, so the command imports it when it runs.
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from cascade.calibration.certify import Certified, Outcome, Refused, Tested
from cascade.calibration.claims import Agreement, MaxDeferred, MeanCost, Unit
from cascade.calibration.reporting import quantity_of
from cascade.cli.show import duration

__all__ = ["shown"]


def shown(outcome: Outcome, *, model: str, data: str) -> str:
    """What was asked, what came of it, and what the reader must know.

    Args:
        outcome: certified or refused.
        model: as the user named it.
        data: the file's name.
    """
    chosen, tested = len(outcome.chosen_on), len(outcome.tested_on)
    lines = [
        f"{model}, {chosen + tested:,} examples of {data}: {chosen:,} chose the path, {tested:,} tested it",
        click.style(outcome.claim.describe(), bold=True),
        "",
    ]
    rows = list(_certified(outcome)) if isinstance(outcome, Certified) else list(_refused(outcome))
    width = max(len(name) for name, _ in rows)
    lines += [f"{name:<{width}}  {value}" for name, value in rows]
    lines += [f"Warning: {warning}." for warning in outcome.warnings]
    return "\n".join(lines)


def _certified(outcome: Certified) -> Iterator[tuple[str, str]]:
    figures, setting, claim = outcome.figures, outcome.setting, outcome.claim
    before = f", after {outcome.number} safer ones" if outcome.number else ""
    yield "certified", click.style(f"yes: setting {outcome.number + 1} of {len(outcome.steps)}{before}", fg="green")
    yield quantity_of(claim), _tested(outcome, outcome.taken)
    if figures.drop is not None and figures.accuracy is not None and figures.full_accuracy is not None:
        yield (
            "accuracy",
            (
                f"{_percent(figures.accuracy)}, full tier 2 {_percent(figures.full_accuracy)}; drop "
                f"{100 * figures.drop:.2f} points ({figures.harms} harmed, {figures.gains} gained)"
            ),
        )
    if not isinstance(claim.ask, Agreement):
        share = figures.disagreements / figures.examples
        yield "disagreement", f"{figures.disagreements:,} of {figures.examples:,} ({_percent(share)})"
    if not isinstance(claim.ask, MaxDeferred):
        yield "deferred", _percent(figures.deferred)
    if figures.deferred:
        yield "mean exit", f"layer {figures.mean_exit:.2f}, of the deferred"
    yield "cost", _cost(outcome)
    yield "router", repr(setting.router)
    yield "exit policy", repr(setting.exit_policy)
    yield "blend", f"{setting.blend:g}"
    if setting.windows is not None:
        yield "windows", repr(setting.windows)
    if setting.decoding is not None:
        yield "decoding", repr(setting.decoding)
    values = ", ".join(f"{value:g}" for value in outcome.temperatures.exits)
    yield "temperatures", f"{outcome.temperatures.tier1:g}; {values}"


def _refused(outcome: Outcome) -> Iterator[tuple[str, str]]:
    why = outcome.why if isinstance(outcome, Refused) else ""
    needed = outcome.examples_needed if isinstance(outcome, Refused) else None
    yield "certified", click.style("no", fg="red")
    yield "why", why
    remedy = "no number of examples would do for these; ask for less"
    yield "examples needed", remedy if needed is None else f"about {needed:,} in all, as far as these can tell"
    if outcome.tested:
        yield quantity_of(outcome.claim), f"{_tested(outcome, outcome.tested[0])}, of the safest setting"


def _tested(outcome: Outcome, tested: Tested) -> str:
    if isinstance(outcome.claim.ask, MeanCost):
        return (
            f"{duration(tested.rate)} on average of {tested.examples:,}, at most {duration(tested.upper)} "
            f"(bound {duration(outcome.claim.ask.bound)})"
        )
    return (
        f"{tested.events:,} of {tested.examples:,} ({_percent(tested.rate)}), at most {_percent(tested.upper)} "
        f"(bound {_percent(outcome.claim.ask.bound)})"
    )


def _cost(outcome: Certified) -> str:
    figures = outcome.figures
    texts = outcome.claim.unit is Unit.TEXT
    kind, how = ("predicted", "by costs per token measured here") if texts else ("measured", "here, in turns")
    return (
        f"{duration(figures.seconds)}, full tier 2 {duration(figures.full_seconds)}: {kind} speed-up "
        f"{figures.speed_up:.2f}, {how}"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"

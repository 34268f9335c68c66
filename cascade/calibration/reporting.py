"""From an outcome to the report's values, and to JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from cascade.bundle.certificate import Certificate
from cascade.calibration.answers import Answers
from cascade.calibration.bounds import upper_bounds
from cascade.calibration.certify import Certified, Outcome, Refused, Share, Tested, share_of
from cascade.calibration.claims import Agreement, Claim, MaxDeferred, MeanCost, Unit
from cascade.calibration.examples import Costs
from cascade.calibration.issuing import settings_of
from cascade.calibration.paths import Step
from cascade.calibration.reliability import per_head, risk_coverage
from cascade.calibration.replay import Setting
from cascade.calibration.report import Fate, Head, PerClass, Report, Trial, Trials, machine, now
from cascade.core.confidence import answers as answers_of
from cascade.core.confidence import max_probability

__all__ = ["in_words", "outcome_json", "quantity_of", "report_of"]

HARM = (
    "Harm is an answer of the cascade that is wrong where that of tier 2 at full depth is right. The accuracy lost is "
    "the rate of harm less that of gain, so a bound on harm bounds it."
)
SPLIT = (
    "The examples were split by a seed. One share chose temperatures and a path of settings, ordered before the other "
    "share was looked at; that one tested them in this order, each at the full level, until one failed."
)
ASSUMED = (
    "The guarantee is about examples that are exchangeable with these. Speed-ups are estimates by the costs that both "
    "tiers had on this machine in this run."
)


def quantity_of(claim: Claim) -> str:
    """What is counted, in words."""
    if isinstance(claim.ask, MeanCost):
        return "mean cost"
    if isinstance(claim.ask, MaxDeferred):
        return "deferred"
    if isinstance(claim.ask, Agreement):
        return "disagreement with tier 2"
    return "change of correctness" if claim.ask.two_sided else "harm"


def in_words(setting: Setting) -> str:
    """A setting on one line."""
    parts = [repr(setting.router), repr(setting.exit_policy)]
    parts += [f"blend {setting.blend:g}"] * bool(setting.blend)
    parts += [repr(policy) for policy in (setting.windows, setting.decoding) if policy is not None]
    return ", ".join(parts)


def outcome_json(outcome: Outcome, *, certificate: Certificate | None, costs: Costs | None) -> dict[str, Any]:
    """All of an outcome as plain values.

    Args:
        outcome: certified or refused.
        certificate: of a certified one.
        costs: per token; of taggers there are none.
    """
    written: dict[str, Any] = {
        "certified": isinstance(outcome, Certified),
        "claim": {**outcome.claim.to_json(), "words": outcome.claim.describe()},
        "method": outcome.method,
        "chosen_on": len(outcome.chosen_on),
        "tested_on": len(outcome.tested_on),
        "seed": outcome.seed,
        "warnings": list(outcome.warnings),
        "path": [_step(outcome, number, step) for number, step in enumerate(outcome.steps)],
        "costs": None if costs is None else asdict(costs),
    }
    if isinstance(outcome, Certified):
        figures = {**asdict(outcome.figures), "speed_up": outcome.figures.speed_up}
        setting = settings_of(outcome, outcome.setting)
        written |= {"number": outcome.number, "setting": setting, "figures": figures}
    if isinstance(outcome, Refused):
        written |= {"why": outcome.why, "examples_needed": outcome.examples_needed}
    return {**written, "certificate": None if certificate is None else certificate.to_json()}


def report_of(
    outcome: Outcome,
    *,
    model: str,
    data: str,
    labels: Sequence[str],
    threads: int,
    command: str,
    certificate: Certificate | None = None,
    observed: tuple[Answers, Costs] | None = None,
) -> Report:
    """The values of a report.

    Args:
        outcome: certified or refused.
        model: as the user named it.
        data: the same.
        labels: names.
        threads: that the tiers had.
        command: the exact one.
        certificate: of a certified outcome.
        observed: what `certify` was given; left out of taggers, whose report then has no diagram of reliability.
    """
    share = None if observed is None else share_of(*observed, outcome)
    units = {Unit.TEXT: "texts", Unit.SENTENCE: "sentences", Unit.WORD: "words"}
    lines: Mapping[str, str] = {}
    if certificate is not None:
        lines = {
            "Claim": certificate.claim,
            "Confidence": f"{certificate.confidence:g}",
            "Data": f"{certificate.data.name}, sha256 {certificate.data.sha256}",
            "Settings": in_words(outcome.setting) if isinstance(outcome, Certified) else "",
            "Library": certificate.library_version,
            "Date": certificate.date,
        }
    examples = outcome.figures.examples if isinstance(outcome, Certified) else len(outcome.tested_on)
    return Report(
        model=model,
        data=data,
        claim=outcome.claim.describe(),
        certified=isinstance(outcome, Certified),
        outcome=_said(outcome),
        unit=units[outcome.claim.unit],
        examples=examples,
        labelled=share is not None and share.answers.truth is not None,
        tested=_trials(outcome, share),
        machine=machine(threads=threads),
        command=command,
        made=now(),
        certificate=lines,
        warnings=outcome.warnings if certificate is None else certificate.warnings,
        method=(HARM, SPLIT, ASSUMED, f"Test: {outcome.method}."),
        **(_pictures(outcome, share, labels) if share is not None else {}),
    )


def _said(outcome: Outcome) -> str:
    if isinstance(outcome, Refused):
        more = (
            "" if outcome.examples_needed is None else f" About {outcome.examples_needed:,} examples would be needed."
        )
        return f"{outcome.why[0].upper()}{outcome.why[1:]}.{more}"
    assert isinstance(outcome, Certified)  # noqa: S101  # there is no third kind
    figures, taken, ask = outcome.figures, outcome.taken, outcome.claim.ask
    kind = "predicted" if outcome.claim.unit is Unit.TEXT else "measured"
    seen = (
        f"{taken.rate * 1000:.3g} ms on average, at most {taken.upper * 1000:.3g} ms"
        if isinstance(ask, MeanCost)
        else f"{taken.events:,} of {taken.examples:,} counted against it ({taken.rate:.3%}), at most {taken.upper:.3%}"
    )
    return (
        f"Certified, at a {kind} speed-up of {figures.speed_up:.2f} over tier 2 at full depth: "
        f"{in_words(outcome.setting)}. {seen} at a confidence of {outcome.claim.confidence:.4g}."
    )


def _step(outcome: Outcome, number: int, step: Step) -> dict[str, Any]:
    tested = outcome.tested[number] if number < len(outcome.tested) else None
    return {
        **step.setting.to_json(),
        "guessed_risk": step.risk,
        "predicted_cost": step.cost,
        "guessed_deferred": step.deferred,
        "tested": None
        if tested is None
        else {name: getattr(tested, name) for name in ("events", "rate", "examples", "p_value", "upper")},
    }


def _trials(outcome: Outcome, share: Share | None) -> Trials:
    taken = outcome.number if isinstance(outcome, Certified) else -1
    mean = isinstance(outcome.claim.ask, MeanCost)
    trials = []
    for number, step in enumerate(outcome.steps):
        fate = Fate.CHOSEN if number == taken else Fate.CERTIFIED if number < taken else Fate.UNTESTED
        if number == taken + 1 and number < len(outcome.tested):
            fate = Fate.FAILED
        found: Tested | None = outcome.tested[number] if number < len(outcome.tested) else None
        # Figures of the testing share, as everywhere else in the report; of a tagger's they are the path's guesses.
        figures = None if share is None else share.figures(step.setting)
        if found is None and share is not None:
            found = share.of_step(step)
        trials.append(
            Trial(
                setting=in_words(step.setting),
                speed_up=figures.speed_up if figures is not None else 1 / step.cost if step.cost else math.inf,
                value=math.nan if found is None else found.rate,
                upper=math.nan if found is None else found.upper,
                fate=fate,
                events=None if found is None or mean else found.events,
                deferred=step.deferred if figures is None else figures.deferred,
            )
        )
    claim = outcome.claim
    return Trials(
        quantity=quantity_of(claim),
        bound=claim.ask.bound,
        trials=tuple(trials),
        confidence=claim.confidence,
        seconds=mean,
    )


def _pictures(outcome: Outcome, share: Share, labels: Sequence[str]) -> dict[str, Any]:
    answers = share.answers
    goal = answers.goal()[answers.documents]
    truth = goal if answers.binary else goal[:, 0]
    names = ["tier 1", *(f"exit {layer}" for layer in answers.layers)]
    values = [outcome.temperatures.tier1, *outcome.temperatures.exits]
    lines = per_head(answers.tier1, answers.tier2, truth, multi_label=answers.multi_label)
    heads = tuple(
        Head(name=name, reliability=line, temperature=value)
        for name, line, value in zip(names, lines, values, strict=True)
    )
    sure = max_probability(answers.tier1, multi_label=answers.multi_label)
    wrong = (answers_of(answers.tier1, multi_label=answers.multi_label) != goal).any(axis=1)
    classes: tuple[PerClass, ...] = ()
    if isinstance(outcome, Certified):
        events, sizes = share.by_class(outcome.setting)
        uppers = upper_bounds(events, sizes, confidence=outcome.claim.confidence)
        classes = tuple(
            PerClass(label=labels[number], events=int(found), examples=int(size), upper=float(upper))
            for number, (found, size, upper) in enumerate(zip(events, sizes, uppers, strict=True))
        )
    return {"heads": heads, "risk": risk_coverage(sure, np.asarray(wrong)), "classes": classes}

"""An outcome as the certificate that a bundle keeps, and as plain values for JSON, with where it was made."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from cascade._version import __version__
from cascade.bundle.certificate import Certificate, Data, Disagreement
from cascade.calibration.certify.bounds import upper_limit
from cascade.calibration.certify.outcomes import Certified, Outcome, Refused, Step
from cascade.calibration.costs import Costs
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger
from cascade.runtime.host import host
from cascade.runtime.threads import available_cpus

SAFER = 12  # settings that a certificate keeps to fall back on


def data_of(name: str, sha256: str, outcome: Outcome) -> Data:
    """What a certificate says about its examples, of a file with this name and hash."""
    chosen_on = len(outcome.chosen_on)
    return Data(name=name, sha256=sha256, examples=chosen_on + len(outcome.tested_on), chosen_on=chosen_on)


def issue(pipeline: Classifier | Tagger, outcome: Certified, data: Data) -> Certificate:
    """The certificate of a bundle with the setting that was certified."""
    figures, taken, claim = outcome.figures, outcome.taken, outcome.claim
    passed = [step.policies for step in outcome.steps[: outcome.number]]
    # Evenly from all that passed, the one just before among them; the safest stays the first.
    kept = sorted({round(place * (len(passed) - 1) / (SAFER - 1)) for place in range(SAFER)}) if passed else []
    return Certificate(
        claim=claim.ask.describe(claim.unit, claim.than),
        ask=claim.ask.to_json(),
        confidence=claim.confidence,
        unit=claim.unit.value,
        examples=taken.examples,
        events=taken.events,
        bound=claim.ask.bound,
        upper_estimate=taken.upper,
        disagreement=Disagreement(
            events=figures.disagreements, examples=figures.examples, upper=outcome.disagreement_upper
        ),
        method=f"{outcome.method}; the limit of disagreement holds for every setting of the path at once",
        data=data,
        policies=outcome.policies,
        safer=tuple(passed[number] for number in kept),
        models=pipeline.bundle.manifest.models(),
        library_version=__version__,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        warnings=outcome.warnings,
    )


def outcome_json(
    outcome: Outcome,
    *,
    certificate: Certificate | None = None,
    costs: Costs | None = None,
    labels: Sequence[str] = (),
    made: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """All of an outcome, with its certificate, costs per token, names of the classes, and where and how it was made."""
    written: dict[str, Any] = {
        "guarantee": True,
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
        written |= {
            "number": outcome.number,
            "policies": outcome.policies.to_json(),
            "figures": {
                **asdict(outcome.figures),
                "answered": list(map(list, outcome.figures.answered)),
                "speed_up": outcome.figures.speed_up,
            },
            "classes": [
                {
                    "label": labels[number] if number < len(labels) else number,
                    "events": events,
                    "examples": examples,
                    "upper_estimate": float(upper_limit(events, examples, confidence=outcome.claim.confidence)),
                }
                for number, (events, examples) in enumerate(outcome.classes)
            ],
        }
    if isinstance(outcome, Refused):
        written |= {"why": outcome.why, "examples_needed": outcome.examples_needed}
    return {**written, "certificate": None if certificate is None else certificate.to_json(), "made": made}


def machine(*, threads: int) -> dict[str, Any]:
    """Facts about this machine by name. `threads`: that the tiers were given."""
    return {
        **host(),
        "cpus_allowed": available_cpus(),
        "threads": threads,
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "python": platform.python_version(),
        "cascade": __version__,
    }


def _step(outcome: Outcome, number: int, step: Step) -> dict[str, Any]:
    written = {"policies": step.policies.to_json(), "guessed_risk": step.risk, "predicted_cost": step.cost}
    written |= {"guessed_deferred": step.deferred, "tested": None}
    if number < len(outcome.tested):
        one = outcome.tested[number]
        figures = {name: getattr(one, name) for name in ("events", "examples", "rate", "p_value")}
        written["tested"] = {**figures, "upper_estimate": one.upper}
    return written

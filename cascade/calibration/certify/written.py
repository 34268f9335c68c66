"""An outcome as plain values for JSON, and where it was made: predicted speed-ups are those of one machine."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from cascade._version import __version__
from cascade.bundle.certificate import Certificate
from cascade.calibration.certify.bounds import upper_limit
from cascade.calibration.certify.outcomes import Certified, Outcome, Refused, Step
from cascade.calibration.costs import Costs
from cascade.runtime.host import host
from cascade.runtime.threads import available_cpus


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
    written = {
        "policies": step.policies.to_json(),
        "guessed_risk": step.risk,
        "predicted_cost": step.cost,
        "guessed_deferred": step.deferred,
        "tested": None,
    }
    if number < len(outcome.tested):
        one = outcome.tested[number]
        figures = {name: getattr(one, name) for name in ("events", "examples", "rate", "p_value")}
        written["tested"] = {**figures, "upper_estimate": one.upper}
    return written

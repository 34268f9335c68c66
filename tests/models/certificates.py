"""A certificate for a test's bundle: plausible, and about exactly its models and policies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cascade.bundle.certificate import Certificate, Data, Disagreement
from cascade.bundle.manifest import Manifest


def certificate_of(manifest: Manifest, **changes: Any) -> Certificate:
    """What `cascade calibrate` could have made for a manifest whose files are known. `changes`: other fields."""
    certificate = Certificate(
        claim="the accuracy is at most 1 point below that of tier 2 at full depth",
        ask={"ask": "MaxDrop", "bound": 0.01, "per_class": False},
        confidence=0.95,
        unit="text",
        examples=1050,
        events=3,
        bound=0.01,
        upper_estimate=0.00737,
        disagreement=Disagreement(events=17, examples=1050, upper=0.0242),
        method="fixed-sequence testing with exact binomial tests",
        data=Data(name="calibration.jsonl", sha256="0123456789ab" * 5 + "cdef", examples=1500, chosen_on=450),
        policies=manifest.policies,
        models=manifest.models(),
        library_version="0.1.0",
        date="2026-01-31T12:30:00+00:00",
    )
    return replace(certificate, **changes)

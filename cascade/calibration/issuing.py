"""From an outcome to the certificate that a bundle keeps."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cascade._version import __version__
from cascade.bundle.certificate import Certificate, Data, Disagreement
from cascade.calibration.bounds import upper_bound
from cascade.calibration.certify import Certified, Outcome
from cascade.calibration.claims import MeanCost
from cascade.calibration.replay import Setting
from cascade.pipelines.base import Face

__all__ = ["data_of", "issue", "settings_of"]

SAFER = 12  # settings that a certificate keeps to fall back on
BLOCK = 1 << 20


def data_of(file: Path, outcome: Outcome) -> Data:
    """What a certificate says about its examples, the file being read once more for its hash."""
    digest = hashlib.sha256()
    with file.open("rb") as source:
        while block := source.read(BLOCK):
            digest.update(block)
    chosen_on = len(outcome.chosen_on)
    return Data(
        name=file.name, sha256=digest.hexdigest(), examples=chosen_on + len(outcome.tested_on), chosen_on=chosen_on
    )


def settings_of(outcome: Outcome, setting: Setting) -> dict[str, Any]:
    """A setting of the path with the path's temperatures, in the form of `Face.settings`."""
    temperatures = [outcome.temperatures.tier1, list(outcome.temperatures.exits)]
    return {**setting.to_json(), "temperatures": temperatures}


def issue(face: Face, outcome: Certified, data: Data, *, warnings: Sequence[str] = ()) -> Certificate:
    """The certificate of a bundle with the setting that was certified.

    Args:
        face: the bundle that was calibrated.
        outcome: of the calibration.
        data: the examples.
        warnings: about the examples, beside those of the outcome.
    """
    figures, taken, claim = outcome.figures, outcome.taken, outcome.claim
    passed = [step.setting for step in outcome.steps[: outcome.number]]
    # Evenly from all that passed, the one just before among them; the safest stays the first.
    kept = sorted({round(place * (len(passed) - 1) / (SAFER - 1)) for place in range(SAFER)}) if passed else []
    return Certificate(
        claim=claim.ask.describe(claim.unit),
        ask=claim.ask.to_json(),
        confidence=claim.confidence,
        unit=claim.unit.value,
        examples=taken.examples,
        events=None if isinstance(claim.ask, MeanCost) else taken.events,
        bound=claim.ask.bound,
        upper=taken.upper,
        disagreement=Disagreement(
            events=figures.disagreements,
            examples=figures.examples,
            upper=upper_bound(figures.disagreements, figures.examples, confidence=claim.confidence)
            if figures.disagreement_upper is None
            else figures.disagreement_upper,
        ),
        method=outcome.method,
        data=data,
        policies=face.with_settings(settings_of(outcome, outcome.setting)).settings,
        safer=tuple(face.with_settings(settings_of(outcome, passed[number])).settings for number in kept),
        models=face.bundle.manifest.models(),
        library_version=__version__,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        warnings=(*outcome.warnings, *warnings),
    )

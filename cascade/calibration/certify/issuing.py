"""From an outcome to the certificate that a bundle keeps."""

from __future__ import annotations

from datetime import datetime, timezone

from cascade._version import __version__
from cascade.bundle.certificate import Certificate, Data, Disagreement
from cascade.calibration.certify.outcomes import Certified, Outcome
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger

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

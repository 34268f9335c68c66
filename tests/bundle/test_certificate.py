"""Certificates: they round-trip, every fault is named, and they know what they are about."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from cascade.bundle.certificate import Certificate, faults
from cascade.bundle.form import shown
from cascade.bundle.manifest import Manifest
from cascade.exceptions import BundleError
from cascade.policies import Policies, Threshold, Windows
from tests.bundle.test_manifest import MANIFEST, TAGGER
from tests.models.certificates import certificate_of

CERTIFICATE = certificate_of(MANIFEST)

Raw = dict[str, Any]


def changed(change: Callable[[Raw], object], certificate: Certificate = CERTIFICATE) -> Raw:
    raw = certificate.to_json()
    change(raw)
    return raw


@pytest.mark.parametrize("manifest", [MANIFEST, TAGGER])
def test_round_trip(manifest: Manifest) -> None:
    safer = tuple(replace(manifest.policies, blend=(blend,)) for blend in (0.0, 0.5))
    certificate = certificate_of(manifest, safer=safer, warnings=("3 examples are there twice",))
    assert Certificate.from_json(json.loads(json.dumps(certificate.to_json()))) == certificate


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda raw: raw.pop("claim"), "certificate must have the field claim"),
        (lambda raw: raw.update(harms=3), 'certificate must not have the field "harms"'),
        (lambda raw: raw.update(claim=3), "claim must be a string, got 3"),
        (lambda raw: raw.update(ask="MaxDrop"), 'ask must be an object, got "MaxDrop"'),
        (lambda raw: raw.update(confidence=1), "confidence must be a number between 0 and 1, got 1"),
        (lambda raw: raw.update(unit="row"), 'unit must be one of text, sentence, word, got "row"'),
        (lambda raw: raw.update(examples=0), "examples must be a whole number from 1 to 2147483647, got 0"),
        (lambda raw: raw.update(examples=1050.0), "examples must be a whole number from 1 to 2147483647, got 1050.0"),
        (lambda raw: raw.update(events=True), "events must be a whole number from 0 to 2147483647, got true"),
        (lambda raw: raw.update(events=1051), "events must be at most examples, got 1051 of 1050"),
        (lambda raw: raw.update(bound=-0.1), "bound must be a number of at least 0 and finite, got -0.1"),
        (
            lambda raw: raw.update(upper_estimate=math.inf),
            "upper_estimate must be a number of at least 0 and finite, got Infinity",
        ),
        (
            lambda raw: raw.update(upper_estimate=math.nan),
            "upper_estimate must be a number of at least 0 and finite, got NaN",
        ),
        (lambda raw: raw.update(disagreement=17), "disagreement must be an object, got 17"),
        (lambda raw: raw["disagreement"].pop("upper"), "disagreement must have the field upper"),
        (lambda raw: raw["disagreement"].update(events=-1), "events of disagreement must be a whole number from 0 to"),
        (lambda raw: raw["disagreement"].update(events=9**4), "must be at most examples of disagreement, got 6561 of"),
        (lambda raw: raw["data"].update(sha256=None), "sha256 of data must be a string, got null"),
        (lambda raw: raw["data"].update(chosen_on=1501), "chosen_on of data must be at most examples of data, got 150"),
        (lambda raw: raw["policies"].pop("blend"), "blend must be a list, got None"),
        (lambda raw: raw["policies"].update(blend=[2]), "blend must be in [0, 1]"),
        (lambda raw: raw["policies"].update(routers=["all"]), "the router must be written"),
        (lambda raw: raw["policies"].update(extra=1), "extra is no setting"),
        (lambda raw: raw["policies"].update(temperatures=[[1], [0]]), "temperatures must be above 0 and finite"),
        (lambda raw: raw.update(policies=[]), "policies must be an object, got []"),
        (lambda raw: raw.update(safer={}), "safer must be a list, got {}"),
        (lambda raw: raw.update(safer=[7]), "policies must be an object, got 7"),
        (lambda raw: raw.update(safer=[{**raw["policies"], "blend": [-1]}]), "blend must be in [0, 1]"),
        (lambda raw: raw.update(models={"a": 1}), 'models must be an object of strings, got {"a": 1}'),
        (lambda raw: raw.update(date="2026-01-31T12:30:00"), "date must be a date and time with an offset, in ISO's"),
        (lambda raw: raw.update(date=3), "date must be a date and time with an offset, in ISO's form, got 3"),
        (lambda raw: raw.update(warnings=["a", 1]), 'warnings must be a list of strings, got ["a", 1]'),
    ],
)
def test_faults(change: Callable[[Raw], object], fault: str) -> None:
    raw = changed(change)
    assert fault in "; ".join(faults(raw)).replace(" of certificate", "")
    with pytest.raises(BundleError, match=r"a certificate must be as cascade wrote it, but .*; calibrate again"):
        Certificate.from_json(raw)


def test_all_faults_at_once() -> None:
    def change(raw: Raw) -> None:
        raw.update(unit="row", events=-1)
        raw["data"].update(examples=0)
        raw["policies"].update(blend=[2])

    assert len(faults(changed(change))) == 4
    assert faults(3) == ["certificate must be an object, got 3"]
    assert faults(CERTIFICATE.to_json()) == []


def test_what_may_be_left_out() -> None:
    written = {name: own for name, own in CERTIFICATE.to_json().items() if name not in ("safer", "warnings")}
    assert Certificate.from_json(written) == CERTIFICATE


def test_what_differs() -> None:
    policies, models = MANIFEST.policies, MANIFEST.models()
    assert CERTIFICATE.differences(policies, models) == []
    other = replace(policies, routers=(Threshold(0.5),), temperatures=((1.0,), (1.5, 2.0)))
    assert CERTIFICATE.differences(other, models) == [
        "routers must be (Threshold(threshold=0.9),) as certified, got (Threshold(threshold=0.5),)",
        "temperatures must be ((1.0,), (1.5, 1.0)) as certified, got ((1.0,), (1.5, 2.0))",
    ]
    windows = replace(policies, windows=Windows(1))
    assert CERTIFICATE.differences(windows, models) == [f"windows must be None as certified, got {Windows(1)!r}"]
    other_models = {**models, "onnx/model.onnx": "f" * 64, "new.onnx": "0"}
    del other_models["tier2/embed.onnx"]
    assert set(CERTIFICATE.differences(policies, other_models)) == {
        "onnx/model.onnx is another than the certified one",
        "new.onnx is new",
        "tier2/embed.onnx is missing",
    }


def test_numbers_compare_by_value() -> None:
    written = {**MANIFEST.policies.to_json(), "temperatures": [[1], [1.5, 1]], "blend": [0]}
    assert CERTIFICATE.differences(Policies.from_json(written), MANIFEST.models()) == []


def test_long_values_are_clipped() -> None:
    assert len(shown(list(range(1000)))) == 100
    assert shown(list(range(1000))).endswith("...")


def test_described() -> None:
    certificate = replace(CERTIFICATE, warnings=("3 examples are there twice.",))
    assert certificate.described() == [
        "Claim, at a confidence of 95 %: the accuracy is at most 1 point below that of tier 2 at full depth.",
        (
            "Data: calibration.jsonl (sha256 0123456789ab), 1,500 examples; settings were chosen on 450 of them and "
            "tested on the other 1,050."
        ),
        (
            "Counted against it: 3 of 1,050 texts (0.286 %); certified is a rate of at most 1 %. The upper limit of "
            "this setting alone is 0.737 %, an estimate, because the setting was selected by the same counts."
        ),
        (
            "Answers that differ from those of tier 2 at full depth: 17 of 1,050 texts; the limit that a monitor "
            "watches is 2.42 %."
        ),
        "Test: fixed-sequence testing with exact binomial tests.",
        "Made on 2026-01-31 12:30 UTC by cascade 0.1.0.",
        (
            "It assumes that the examples in use are exchangeable with these: drawn from the same source in the same "
            "way. Of others nothing is claimed. It assumes too that no question was asked of these examples, with "
            "another seed, say, or before some were added, but those that the test has counted."
        ),
        "Warning: 3 examples are there twice.",
    ]


def test_limits_are_rounded_up() -> None:
    other = replace(CERTIFICATE.disagreement, upper=0.01092870480168696)
    described = replace(CERTIFICATE, upper_estimate=0.010049, disagreement=other).described()
    assert "The upper limit of this setting alone is 1.01 %" in described[2]
    assert described[3].endswith("the limit that a monitor watches is 1.1 %.")

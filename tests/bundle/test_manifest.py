"""`cascade.json`: it round-trips, and every fault is named, all at once."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cascade.bundle.manifest import MANIFEST_FILE, TAGGING, Manifest
from cascade.bundle.profile import Profile
from cascade.bundle.tiers import FileRecord, MultiExitSpec, SingleExitSpec, StageSpec
from cascade.exceptions import BundleError
from cascade.policies import MaxProbability, Policies, Threshold, Windows, argmax, defer_all, never
from tests.models.certificates import certificate_of

LABELS = ("negative", "positive")
PATHS = ("onnx/model.onnx", "tier2/embed.onnx", "tier2/stage_00.onnx", "tier2/stage_01.onnx")
FIRST = SingleExitSpec(PATHS[0], max_length=64, model="static")
SECOND = MultiExitSpec(
    embed=PATHS[1],
    stages=(StageSpec(PATHS[2], 1, "int8"), StageSpec(PATHS[3], 3)),
    width=16,
    heads=4,
    max_length=64,
    position_offset=2,
)
MANIFEST = Manifest(
    task="text-classification",
    problem_type="single_label_classification",
    labels=LABELS,
    tiers=(FIRST, SECOND),
    policies=Policies((Threshold(0.9),), (never, never), ((1.0,), (1.5, 1.0))),
    library_version="0.1.0",
    files={path: FileRecord("0" * 64, 1) for path in (*PATHS, "tokenizer.json")},
)
TAGGER = replace(MANIFEST, task=TAGGING, policies=replace(MANIFEST.policies, windows=Windows(), decoding=argmax))

Raw = dict[str, Any]


def changed(change: Callable[[Raw], object], text: str = MANIFEST.to_json()) -> str:
    raw: Raw = json.loads(text)
    change(raw)
    return json.dumps(raw)


PROFILE = Profile(100, {"length": (3.5, 9.0), "new": (0.1,)}, base64.b64encode(b"\x01" * 4096).decode())
WHOLE = replace(MANIFEST, profile=PROFILE, inputs="pair", encode_special_tokens=True)


@pytest.mark.parametrize("manifest", [MANIFEST, TAGGER, WHOLE, replace(MANIFEST, certificate=certificate_of(MANIFEST))])
def test_round_trip(manifest: Manifest) -> None:
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert manifest.faults() == []


def test_three_tiers_with_a_tokenizer_of_their_own() -> None:
    files = {**MANIFEST.files, "first/tokenizer.json": FileRecord("1" * 64, 1)}
    tiers = (SECOND, replace(FIRST, tokenizer="first/tokenizer.json"), SECOND)
    policies = Policies((defer_all, defer_all), (MaxProbability(0.9), never, never), ((1, 1), (2,), (1, 1)), (0.5, 0))
    manifest = replace(MANIFEST, tiers=tiers, policies=policies, files=files)
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert "first/tokenizer.json" in manifest.models()
    assert replace(manifest, tiers=(SECOND, FIRST, SECOND)).models() != manifest.models()
    assert [info.layers for info in manifest.infos] == [(1, 3), (), (1, 3)]


def test_the_hash_of_what_is_said_stays_what_it_was() -> None:
    layers = [[stage.file, stage.layer] for stage in SECOND.stages]
    said: list[object] = [MANIFEST.task, MANIFEST.problem_type, LABELS, FIRST.file, LABELS, FIRST.max_length]
    said += [SECOND.embed, layers, LABELS, SECOND.width, SECOND.heads, SECOND.max_length, SECOND.position_offset]
    assert MANIFEST.models()[MANIFEST_FILE] == hashlib.sha256(json.dumps(said).encode()).hexdigest()


@pytest.mark.parametrize("name", ["sentiment", "intents", "pos"])
def test_shipped_bundles_are_read_with_their_certificates(name: str) -> None:
    text = (Path(__file__).parents[2] / "models" / name / MANIFEST_FILE).read_text(encoding="utf-8")
    manifest = Manifest.from_json(text)
    assert (manifest.certificate is None) is (json.loads(text)["certificate"] is None)
    assert manifest.doubts() == []
    again = Manifest.from_json(manifest.to_json())
    assert (again, again.doubts()) == (manifest, [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cascade.json must be JSON, but Expecting .*; export the bundle again"),
        ("[]", "cascade.json must be a JSON object, got list; export the bundle again"),
        ('{"a": ' * 100_000, "must be JSON, but it is nested too deeply"),
        ('{"a": ' * 80 + "1" + "}" * 80, "must be nested at most 64 deep"),
        ('{"figures": NaN}', "must be JSON, but NaN is no JSON"),
        ('{"figures": {"a": 1e999}}', "must be JSON, but 1e999 is no JSON"),
        ('{"labels": ["\\ud800"]}', "must be JSON, but a string has half a surrogate pair"),
    ],
)
def test_what_is_no_manifest(text: str, message: str) -> None:
    with pytest.raises(BundleError, match=message) as error:
        Manifest.from_json(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("number", ["1" + "0" * 30, "9" * 5000, "1e400"])
def test_huge_numbers(number: str) -> None:
    with pytest.raises(BundleError, match="must be") as error:
        Manifest.from_json(MANIFEST.to_json().replace('"max_length": 64', f'"max_length": {number}', 1))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("version", [0, 2, 4, None, "3", True, [3]])
def test_another_format(version: object) -> None:
    with pytest.raises(BundleError, match=r"format_version must be 3, got .*; export it again with"):
        Manifest.from_json(changed(lambda raw: raw.update(format_version=version)))


FAULTS: list[tuple[Callable[[Raw], object], str]] = [
    (lambda raw: raw.pop("tiers"), "it must have the field tiers"),
    (lambda raw: raw.pop("files"), "is used but not listed under files"),
    (lambda raw: raw.update(strange=1), 'it must not have the field "strange"'),
    (lambda raw: raw.update(files=[]), r"files must be an object, got \[\]"),
    (lambda raw: raw["files"].update(a={"bytes": -1}), r'files\["a"\] must have .* sha256; bytes .* at least 0'),
    (lambda raw: raw["tiers"][1].pop("width"), r"tiers\[1\] must have the field width"),
    (lambda raw: raw["tiers"][1]["stages"][0].pop("layer"), r"stages\[0\] of tiers\[1\] must have the field layer"),
    (lambda raw: raw.update(tiers=[3]), r"tiers\[0\] must be an object whose kind is one of single_exit, multi_"),
    (lambda raw: raw["tiers"][0].update(kind=["a"]), r"tiers\[0\] must be an object whose kind is"),
    (lambda raw: raw["tiers"][1].update(stages=["x"]), r"stages\[0\] of tiers\[1\] must be an object"),
    (lambda raw: raw["tiers"][1].update(stages=[]), "stages of .* must be a list that is not empty"),
    (lambda raw: raw["tiers"][1].update(heads="4"), "heads of .* must be a whole number from 1 to .*4"),
    (lambda raw: raw["tiers"][1].update(position_offset=-1), "position_offset .* whole number from 0 to"),
    (lambda raw: raw["tiers"][1].update(heads=5), "heads of .* must divide the width, 16, got 5"),
    (lambda raw: raw["tiers"][1]["stages"].reverse(), r"in the order of their layers, got \(3, 1\)"),
    (lambda raw: raw["tiers"][1].update(embed=[]), r"embed of tiers\[1\] must be a string, got \[\]"),
    (lambda raw: raw["tiers"][0].update(tokenizer="own.json"), "own.json is used but not listed under files"),
    (lambda raw: raw["files"].pop(PATHS[3]), "tier2/stage_01.onnx is used but not listed under files"),
    (lambda raw: raw.update(task="summarisation"), 'task must be one of .*, got "summarisation"'),
    (lambda raw: raw.update(problem_type="ranking"), 'problem_type must be one of .*, got "ranking"'),
    (lambda raw: raw.update(problem_type="regression"), "labels of a regression must be one name, got 2"),
    (
        lambda raw: raw.update(problem_type="regression", labels=["y"]),
        "Threshold must be asked about labels, got",
    ),
    (lambda raw: raw.update(problem_type="regression", labels=["y"]), "must have blend 0 and temperatures 1, got"),
    (lambda raw: raw.update(problem_type="regression", task=TAGGING), "problem_type of token-classification must be s"),
    (lambda raw: raw.update(task=TAGGING), "windows must be given for a tagger"),
    (lambda raw: raw.update(labels=["a", "a"]), "labels must be distinct names and at least one, without"),
    (lambda raw: raw.update(labels=["a\x1b[2J", "b"]), r'without control characters, got \["a\\u001b'),
    (lambda raw: raw.update(labels=["a\x9b", "b"]), r'without control characters, got \["a\\x9b", "b"\]'),
    (lambda raw: raw.update(labels="np"), 'without control characters, got "np"'),
    (lambda raw: raw.update(labels=[["a"], 3]), "labels must be distinct names and at least one"),
    (lambda raw: raw.update(figures=[]), r"figures must be an object, got \[\]"),
    (lambda raw: raw.update(certificate=3), "certificate must be null or an object, got 3"),
    (lambda raw: raw.update(certificate={"claim": "x"}), "certificate must have the field ask; .* the field date"),
    (lambda raw: raw.update(policies=3), "policies must be an object, got 3"),
    (lambda raw: raw["policies"].update(blend=[1.5]), r"blend must be in \[0, 1\]"),
    (lambda raw: raw["policies"].update(routers=[{"policy": "Oracle"}]), "the router must be one of"),
    (lambda raw: raw["policies"].update(temperatures=[[1], [1]]), "must be one per exit, got 1 for 2 of tier 2"),
    (lambda raw: raw["policies"].update(temperatures=[[10**400], [1, 1]]), "must be above 0 and finite, one per"),
    (lambda raw: raw["policies"].update(blend=[10**400]), r"blend must be in \[0, 1\]"),
    (
        lambda raw: raw.update(certificate={"policies": {}, "upper_estimate": 10**400}),
        "upper_estimate of certificate must be a ",
    ),
]


@pytest.mark.parametrize(("change", "fault"), FAULTS)
def test_faults(change: Callable[[Raw], object], fault: str) -> None:
    with pytest.raises(BundleError, match=f"{MANIFEST_FILE} must be as cascade wrote it, but .*{fault}.*; export it"):
        Manifest.from_json(changed(change))


def test_all_faults_at_once() -> None:
    def change(raw: Raw) -> None:
        raw.update(task="other", problem_type="other", certificate={})
        raw["tiers"][0].update(max_length=0)
        raw["policies"].update(routers=3)

    with pytest.raises(BundleError) as error:
        Manifest.from_json(changed(change))
    for fault in ("task must be", "problem_type must be", "max_length of tiers[0]", "routers must be a list", "claim"):
        assert fault in str(error.value)


def test_figures_that_are_no_json_are_not_written() -> None:
    with pytest.raises(BundleError, match=r"figures must be JSON, but .*; write null or a string"):
        replace(MANIFEST, figures={"accuracy": float("nan")}).to_json()


def test_models_are_the_graphs_the_tokenizer_and_what_is_said_about_them() -> None:
    manifest = replace(MANIFEST, files={**MANIFEST.files, "README.md": FileRecord("2" * 64, 9)})
    models = manifest.models()
    assert set(models) == {*PATHS, "tokenizer.json", MANIFEST_FILE}
    policies = Policies((defer_all,), (never, never), ((3.0,), (2.0, 2.0)), (0.5,))
    first = replace(FIRST, model="other", precision="int8")
    same = replace(manifest, policies=policies, figures={"a": 1}, library_version="9", tiers=(first, SECOND))
    assert same.models() == models
    swapped = tuple(replace(stage, file=path) for stage, path in zip(SECOND.stages, PATHS[:1:-1], strict=True))
    for other in (
        replace(manifest, labels=LABELS[::-1]),
        replace(manifest, problem_type="multi_label_classification"),
        replace(manifest, tiers=(replace(FIRST, max_length=32), SECOND)),
        replace(manifest, tiers=(FIRST, replace(SECOND, max_length=32))),
        replace(manifest, tiers=(FIRST, replace(SECOND, position_offset=0))),
        replace(manifest, tiers=(FIRST, replace(SECOND, heads=2))),
        replace(manifest, tiers=(FIRST, replace(SECOND, stages=swapped))),
    ):
        assert {path for path, own in other.models().items() if own != models[path]} == {MANIFEST_FILE}


def test_doubts() -> None:
    assert MANIFEST.doubts() == []
    manifest = replace(MANIFEST, certificate=certificate_of(MANIFEST))
    assert manifest.doubts() == []
    altered = {**manifest.files, PATHS[0]: FileRecord("f" * 64, 1)}
    assert replace(manifest, files=altered, policies=replace(manifest.policies, blend=(0.5,))).doubts() == [
        "blend must be (0.0,) as certified, got (0.5,)",
        "onnx/model.onnx is another than the certified one",
    ]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("texts", 0, "texts of profile must be a whole number from 1"),
        ("edges", {"length": [2, 1]}, "edges of profile must be lists of rising numbers by feature"),
        ("edges", {"colour": [1, 2]}, "edges of profile must be lists of rising numbers by feature"),
        ("edges", {"new": [True]}, "edges of profile must be lists of rising numbers by feature"),
        ("known", "AAAA", "known of profile must be base64 of 4096 bytes"),
        ("known", "?" * 5464, "known of profile must be base64 of 4096 bytes"),
        ("more", 1, 'profile must not have the field "more"'),
    ],
)
def test_a_profile_that_cannot_be(field: str, value: object, message: str) -> None:
    with pytest.raises(BundleError, match=re.escape(message)):
        Manifest.from_json(changed(lambda raw: raw["profile"].update({field: value}), WHOLE.to_json()))


@pytest.mark.parametrize(("field", "value"), [("encode_special_tokens", 1), ("inputs", "texts"), ("profile", [])])
def test_optional_fields_have_rules_too(field: str, value: object) -> None:
    with pytest.raises(BundleError, match=f"{field} must be"):
        Manifest.from_json(changed(lambda raw: raw.update({field: value})))

"""`cascade.json`: it round-trips, and every fault is named, all at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from cascade.bundle.manifest import TAGGING, FileRecord, Manifest, StageSpec, TierOneSpec, TierTwoSpec
from cascade.exceptions import BundleError
from tests.models.certificates import certificate_of

LABELS = ("negative", "positive")
PATHS = ("onnx/model.onnx", "tier2/embed.onnx", "tier2/stage_00.onnx", "tier2/stage_01.onnx")
MANIFEST = Manifest(
    task="text-classification",
    problem_type="single_label_classification",
    labels=LABELS,
    tier1=TierOneSpec(file=PATHS[0], kind="static", labels=LABELS, max_length=64),
    tier2=TierTwoSpec(
        embed=PATHS[1],
        stages=(StageSpec(PATHS[2], 1, 1.5, "int8"), StageSpec(PATHS[3], 3)),
        labels=LABELS,
        width=16,
        heads=4,
        max_length=64,
        position_offset=2,
    ),
    router={"policy": "Threshold", "threshold": 0.9},
    exit_policy={"policy": "never"},
    library_version="0.1.0",
    files={path: FileRecord("0" * 64, 1) for path in PATHS},
)

Raw = dict[str, Any]


def changed(change: Callable[[Raw], object]) -> str:
    raw: Raw = json.loads(MANIFEST.to_json())
    change(raw)
    return json.dumps(raw)


def test_round_trip() -> None:
    assert Manifest.from_json(MANIFEST.to_json()) == MANIFEST


def test_round_trip_of_a_tagger() -> None:
    tagger = replace(MANIFEST, task=TAGGING, windows={"margin": 3, "whole": 0.6}, decoding={"decoder": "Viterbi"})
    assert Manifest.from_json(tagger.to_json()) == tagger


def test_bundles_from_before_taggers_load() -> None:
    def change(raw: Raw) -> None:
        del raw["windows"], raw["decoding"]

    assert Manifest.from_json(changed(change)) == MANIFEST


def test_not_json() -> None:
    with pytest.raises(BundleError, match=r"cascade.json must be JSON, but Expecting .*; export the bundle again"):
        Manifest.from_json("{")
    with pytest.raises(BundleError, match=r"cascade.json must be a JSON object, was: list; export again"):
        Manifest.from_json("[]")


@pytest.mark.parametrize("version", [0, 1, 3, None, "2"])
def test_another_format(version: object) -> None:
    with pytest.raises(BundleError, match=rf"format_version must be 2, was: {version}; export it again with"):
        Manifest.from_json(changed(lambda raw: raw.update(format_version=version)))


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.pop("tier1"),
        lambda raw: raw.pop("files"),
        lambda raw: raw["tier2"].pop("stages"),
        lambda raw: raw["tier2"].pop("width"),
        lambda raw: raw["tier2"].pop("heads"),
        lambda raw: raw.update(strange=1),
        lambda raw: raw.update(files=[]),
        lambda raw: raw["tier1"].update(labels=3),
    ],
)
def test_missing_and_misnamed_fields(change: Callable[[Raw], object]) -> None:
    with pytest.raises(BundleError, match=r"cascade.json lacks or misnames a field: .*; export the bundle again"):
        Manifest.from_json(changed(change))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda raw: raw.update(task="summarisation"), "task must be one of .*, was: summarisation"),
        (lambda raw: raw.update(problem_type="regression"), "problem_type must be one of .*, was: regression"),
        (
            lambda raw: raw.update(task="token-classification", problem_type="multi_label_classification"),
            "problem_type of token-classification must be single_label_classification, was: multi_label",
        ),
        (lambda raw: raw.update(windows={"margin": 3}), "windows must be left out of text-classification"),
        (lambda raw: raw.update(task="token-classification", decoding="bio"), "decoding must be an object, was: 'bio'"),
        (lambda raw: raw.update(labels=["a", "a"]), r"labels must be distinct names .*, were: \['a', 'a'\]"),
        (lambda raw: raw.update(labels=[["a"], 3]), r"labels must be distinct names and at least one, were: \[\["),
        (lambda raw: raw["tier2"].update(embed=[]), r"\[\] is used but not listed under files"),
        (lambda raw: raw["tier1"].update(labels=["x", "y"]), r"labels of tier 1 must be \['negative', 'positive'\]"),
        (lambda raw: raw["tier2"].update(labels=["x", "y"]), r"labels of tier 2 must be .*, were: \['x', 'y'\]"),
        (lambda raw: raw.update(blend=1.5), r"blend must be in \[0, 1\], was: 1.5"),
        (lambda raw: raw.update(blend="half"), r"blend must be in \[0, 1\], was: 'half'"),
        (lambda raw: raw.update(blend=True), r"blend must be in \[0, 1\], was: True"),
        (lambda raw: raw["tier1"].update(kind=[]), r"kind must be a string, was: \[\]"),
        (lambda raw: raw.update(certificate=3), "certificate must be an object, was: 3"),
        (lambda raw: raw.update(certificate={"claim": "x"}), "certificate must have the field ask; .* the field date"),
        (lambda raw: raw.update(figures=[]), r"figures must be an object, was: \[\]"),
        (lambda raw: raw["tier1"].update(temperature="1"), "temperature must be above 0 and finite, was: '1'"),
        (lambda raw: raw["tier2"]["stages"][0].update(temperature=0), "temperature must be above 0 .*, was: 0"),
        (lambda raw: raw["tier1"].update(max_length="64"), "max_length must be a whole number of .* 1, was: '64'"),
        (lambda raw: raw["tier2"].update(heads=0), "heads must be a whole number of at least 1, was: 0"),
        (lambda raw: raw["tier2"].update(heads="4"), "heads must be a whole number of at least 1, was: '4'"),
        (lambda raw: raw["tier2"].update(heads=5), "heads must divide the width, 16, was: 5"),
        (lambda raw: raw["tier2"].update(position_offset=-1), "position_offset must be .* at least 0, was: -1"),
        (lambda raw: raw["tier2"]["stages"][0].update(layer="1"), "layer must be a whole number .*, was: '1'"),
        (lambda raw: raw["tier2"].update(stages=[]), "tier 2 must have at least one stage"),
        (lambda raw: raw["tier2"]["stages"].reverse(), r"stages must be in the order of their layers, were: \[3, 1\]"),
        (lambda raw: raw["files"].pop(PATHS[3]), "tier2/stage_01.onnx is used but not listed under files"),
    ],
)
def test_contradictions(change: Callable[[Raw], object], fault: str) -> None:
    with pytest.raises(BundleError, match=f"cascade.json contradicts itself: .*{fault}.*; export the bundle again"):
        Manifest.from_json(changed(change))


def test_all_faults_at_once() -> None:
    def change(raw: Raw) -> None:
        raw.update(task="other", problem_type="other")

    with pytest.raises(BundleError, match=r"task must be .*; problem_type must be"):
        Manifest.from_json(changed(change))


def test_settings_are_what_a_certificate_is_about() -> None:
    settings = {"router": MANIFEST.router, "exit_policy": MANIFEST.exit_policy, "blend": 0.0}
    assert MANIFEST.settings() == {**settings, "temperatures": [1.0, [1.5, 1.0]]}
    windows = {"margin": 3, "whole": 0.6}
    tagger = replace(MANIFEST, task=TAGGING, windows=windows)
    assert tagger.settings() == {**MANIFEST.settings(), "windows": windows, "decoding": None}


def test_models_are_the_graphs_the_tokenizer_and_what_is_said_about_them() -> None:
    files = {**MANIFEST.files, "tokenizer.json": FileRecord("1" * 64, 9), "README.md": FileRecord("2" * 64, 9)}
    manifest = replace(MANIFEST, files=files)
    models = manifest.models()
    assert set(models) == {*PATHS, "tokenizer.json", "cascade.json"}
    assert models["tokenizer.json"] == "1" * 64
    same = replace(
        manifest,
        router={"policy": "defer_all"},
        blend=0.5,
        figures={"a": 1},
        library_version="9",
        tier1=replace(manifest.tier1, temperature=3.0, kind="other", precision="int8"),
        tier2=replace(manifest.tier2, stages=tuple(replace(s, temperature=2.0) for s in manifest.tier2.stages)),
    )
    assert same.models() == models
    first, second = manifest.tier1, manifest.tier2
    swapped = [replace(stage, file=path) for stage, path in zip(second.stages, PATHS[:1:-1], strict=True)]
    for other in (
        replace(manifest, labels=LABELS[::-1]),
        replace(manifest, problem_type="multi_label_classification"),
        replace(manifest, tier1=replace(first, max_length=32)),
        replace(manifest, tier2=replace(second, max_length=32)),
        replace(manifest, tier2=replace(second, position_offset=0)),
        replace(manifest, tier2=replace(second, heads=2)),
        replace(manifest, tier2=replace(second, stages=tuple(swapped))),
    ):
        assert {path for path, own in other.models().items() if own != models[path]} == {"cascade.json"}


def test_doubts() -> None:
    assert MANIFEST.doubts() == []
    manifest = replace(MANIFEST, certificate=certificate_of(MANIFEST).to_json())
    assert manifest.doubts() == []
    altered = {**manifest.files, PATHS[0]: FileRecord("f" * 64, 1)}
    assert replace(manifest, files=altered, blend=0.5).doubts() == [
        "the blend is 0.5, certified: 0.0",
        "onnx/model.onnx is another than the certified one",
    ]

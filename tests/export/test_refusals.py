"""What is no pair of tiers, or does not answer as its checkpoints, is refused, and nothing is written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cascade.exceptions import BundleError, DataError, InputError, OptionError
from cascade.training.models.config import CLASSIFICATION, TAGGING
from cascade_export import Calibration, ExportOptions, export_bundle, verify
from cascade_export import export as export_module
from cascade_export import tiers as tiers_module
from cascade_export.verify import check, torch_logits
from tests.export.conftest import LABELLED, TAGGED
from tests.models import tiny


def refused(tmp_path: Path, error: type[Exception], match: str, tier2: Path, tier1: Path, **options: Any) -> None:
    with pytest.raises(error, match=match):
        export_bundle(tier2, tier1, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("other", "match"),
    [
        (
            {"labels": ("positive", "negative")},
            r"labels in the same order, tier 2 has \[negative, positive\] \(2\), tier 1 \[positive, negative\] \(2\)",
        ),
        ({"problem_type": "multi_label_classification"}, "same problem_type, tier 2 has single"),
    ],
)
def test_labels_and_problem_types_must_be_equal(tiers: Path, tmp_path: Path, other: dict[str, Any], match: str) -> None:
    tiny.tier1_static(tmp_path / "other", **other)
    refused(tmp_path, BundleError, match, tiers / "tier2", tmp_path / "other")


@pytest.mark.parametrize("kind", ["static", "transformer"])
@pytest.mark.parametrize(("tier2", "prefix"), [("tier2", "tag-"), ("tagger", "")])
def test_tasks_must_be_equal(tiers: Path, tmp_path: Path, tier2: str, prefix: str, kind: str) -> None:
    tasks = (CLASSIFICATION, TAGGING) if prefix else (TAGGING, CLASSIFICATION)
    match = "same task, tier 2 has {}, tier 1 {}; distil".format(*tasks)
    refused(tmp_path, BundleError, match, tiers / tier2, tiers / f"{prefix}{kind}")


def test_tokenizers_must_be_equal(tiers: Path, tmp_path: Path) -> None:
    tiny.tier1_static(tmp_path / "other")
    file = tmp_path / "other" / "tokenizer.json"
    spec = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = spec["model"]["vocab"]
    vocabulary["film"], vocabulary["plot"] = vocabulary["plot"], vocabulary["film"]
    file.write_text(json.dumps(spec), encoding="utf-8")
    refused(tmp_path, BundleError, "same tokenizer, but the vocabularies", tiers / "tier2", tmp_path / "other")


def test_a_missing_or_broken_checkpoint_is_named(tiers: Path, tmp_path: Path) -> None:
    reads = "must hold a model that transformers reads, but: "
    refused(tmp_path, OptionError, "tier 1 must be .* must hold a config.json, but there", tiers / "tier2", tmp_path)
    own = "tier 2 must be a checkpoint of `cascade-train exits` or a fine-tuned model, but"
    refused(tmp_path, OptionError, own, tmp_path / "nothing", tiers / "static")
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "config.json").write_text('{"model_type": "nonsense"}', encoding="utf-8")
    refused(tmp_path, OptionError, "1 must be what transformers reads, but: ", tiers / "tier2", tmp_path / "1")
    for tier in ("tier2", "static"):
        copy = shutil.copytree(tiers / tier, tmp_path / tier)
        (copy / "model.safetensors").write_bytes(b"flipped" * 10)
    broken = "Error while deserializing"
    refused(tmp_path, OptionError, f"{own} {broken}", tmp_path / "tier2", tiers / "static")
    refused(tmp_path, OptionError, f"static {reads}{broken}", tiers / "tier2", tmp_path / "static")


def test_tier2_needs_a_tokenizer(tiers: Path, tmp_path: Path) -> None:
    tiny.tier2(tmp_path / "2", depth=1)
    for file in tmp_path.glob("2/*token*"):
        file.unlink()
    match = "tier 2 must have a tokenizer, but .* a tokenizer.json or a vocabulary"
    refused(tmp_path, OptionError, match, tmp_path / "2", tiers / "static")


@pytest.mark.parametrize("length", [0, 65])
def test_max_length_must_fit(tiers: Path, tmp_path: Path, length: int) -> None:
    options = ExportOptions(max_length=length)
    match = rf"max_length must be in \[1, 64\], the positions of tier 2, got {length}"
    refused(tmp_path, OptionError, match, tiers / "tier2", tiers / "static", options=options)


@pytest.mark.parametrize(
    ("tier", "calibration", "error", "match"),
    [
        ("tier2", Calibration([]), OptionError, "calibration must hold at least one text"),
        ("tier2", Calibration(["a", "b"], ["negative"]), DataError, "a label per text, got 1 for 2 texts"),
        ("tier2", Calibration(["a"], ["neutral"], "f"), DataError, "f: example 1 has the label 'neutral'"),
        ("tier2", Calibration(["a"], [tiny.LABELS]), DataError, r"example 1 must have one label, got 2"),
        ("tier2", TAGGED, InputError, "a pair must hold two texts"),
        ("tagger", LABELLED, InputError, "a sentence must be a list of words"),
        ("tagger", Calibration([[], []]), OptionError, "at least one word, has none"),
        ("tagger", Calibration([["a"], ["b"]], [["X"]]), DataError, "got 2 sentences and tags for 1"),
        ("tagger", Calibration([["a", "b"]], [["X"]], "f"), DataError, "sentence 1 has 2 words and 1 tags"),
        ("tagger", Calibration([["a"]], [["ADJ"]]), DataError, "example 1 has the label 'ADJ', which"),
    ],
)
def test_calibration_must_fit(
    tiers: Path, tmp_path: Path, tier: str, calibration: Calibration, error: type[Exception], match: str
) -> None:
    tier1 = {"tier2": "static", "tagger": "tag-static"}[tier]
    refused(tmp_path, error, match, tiers / tier, tiers / tier1, calibration=calibration)


def test_agreement_must_be_a_share() -> None:
    with pytest.raises(OptionError, match=r"agreement must be in \[0, 1\], got 98"):
        ExportOptions(agreement=98)
    with pytest.raises(OptionError, match=r"weight_bits must be 7 or 8, got 4; 7 are for x86 without VNNI"):
        ExportOptions(weight_bits=4)


def test_an_output_that_is_taken_is_refused_at_once(tiers: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep", encoding="utf-8")
    with pytest.raises(OptionError, match="must be a new or empty folder"):
        export_bundle(tiers / "tier2", tiers / "static", tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(("tier2", "tier1"), [("tier2", "static"), ("tagger", "tag-static")])
def test_a_graph_that_differs_from_torch_is_not_written(
    tiers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tier2: str, tier1: str
) -> None:
    monkeypatch.setattr(verify, "torch_logits", lambda *given, **exits: torch_logits(*given, **exits) + 0.01)
    refused(tmp_path, BundleError, "tier2/stage_00.onnx must answer as its", tiers / tier2, tiers / tier1)
    assert list(tmp_path.iterdir()) == []


def test_words_that_leave_are_verified_too(tiers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right at full depth and wrong with words that have left: not written."""
    tiny.tagger(tmp_path / "2", depth=3)  # what has left after layer 1 first looks different to layer 3
    monkeypatch.setattr(verify, "torch_logits", lambda model, part, **_: torch_logits(model, part))
    match = "tier2/stage_02.onnx, with words that have left, must answer as its checkpoint"
    refused(tmp_path, BundleError, match, tmp_path / "2", tiers / "tag-static")


def test_a_nan_is_a_difference() -> None:
    with pytest.raises(BundleError, match="largest difference was nan"):
        check("graph", np.full((2, 2), np.nan, np.float32), np.zeros((2, 2), np.float32))


@pytest.mark.parametrize("step", ["quantise_tier", "model_card", "write_bundle"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_nothing_is_written_when_a_step_breaks(
    tiers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: type[BaseException]
) -> None:
    def broken(*given: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(tiers_module if step == "quantise_tier" else export_module, step, broken)
    with pytest.raises(error):
        export_bundle(tiers / "tier2", tiers / "static", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []

"""From two tagging checkpoints to a bundle: what is in it, that it answers as torch, what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from transformers import AutoConfig

from cascade import Tagger
from cascade.bundle.manifest import Manifest
from cascade.bundle.opening import open_bundle
from cascade.core.confidence import softmax
from cascade.core.rows import Units
from cascade.exceptions import BundleError, DataError, OptionError
from cascade.policies import exits, windows
from cascade.policies.exits import AtExit, any_of, never
from cascade.policies.routing import defer_all, defer_none
from cascade.policies.unit_exits import ExitByToken, TokenExit
from cascade.policies.windows import Windows
from cascade_export import Calibration, ExportOptions, Int8, TagCalibration, export_bundle, verify
from cascade_export import export as export_module
from cascade_export.cli import main
from cascade_export.packed.chain import chain_logits, padded_logits
from cascade_export.packed.graphs import TierTwoGraphs
from cascade_export.tag_texts import encode_sentences
from cascade_export.verify import TOLERANCE, torch_tier1, torch_tier2
from tests.models import tiny, tiny_tagging
from tests.models.tiny_tagging import SENTENCES, TAGS, words_of

TAGGED = TagCalibration(SENTENCES, TAGS, "some sentences")
SPANS = ("O", "B-thing", "I-thing")


@pytest.fixture(scope="module")
def tiers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with checkpoints `tier2`, `static` and `transformer`, and the classifiers `classifier` and `static-1`."""
    folder = tmp_path_factory.mktemp("tiers")
    tiny.tagger(folder / "tier2", depth=2)
    tiny_tagging.tier1_static(folder / "static")
    tiny_tagging.tier1_transformer(folder / "transformer")
    tiny.tier2(folder / "classifier", depth=2)
    tiny.tier1_static(folder / "static-1")
    tiny.tier1_transformer(folder / "transformer-1")
    return folder


def graphs_of(folder: Path, manifest: Manifest) -> TierTwoGraphs:
    stages = tuple(onnx.load(folder / stage.file) for stage in manifest.tier2.stages)
    return TierTwoGraphs(onnx.load(folder / manifest.tier2.embed), stages)


@pytest.mark.parametrize("kind", ["static", "transformer"])
def test_tier1_graphs_answer_as_torch(tmp_path: Path, kind: str) -> None:
    make = {"static": tiny_tagging.tier1_static, "transformer": tiny_tagging.tier1_transformer}
    model = make[kind](tmp_path / "tier1")
    tiny.tagger(tmp_path / "tier2", depth=1)
    bundle = export_bundle(
        tmp_path / "tier2", tmp_path / "tier1", tmp_path / "out", calibration=TAGGED, options=ExportOptions(agreement=0)
    )
    words = words_of()
    expected = torch_tier1(model, words, max_length=64)
    assert expected.shape == (len(words), 3)
    fp32 = padded_logits(onnx.load(bundle.path("onnx/model.onnx")), words, max_length=64)
    np.testing.assert_allclose(fp32, expected, atol=1e-5, rtol=1e-5)
    assert bundle.manifest.tier1.kind == kind
    assert bundle.manifest.tier1.file == "onnx/model_quantized.onnx"
    small = onnx.load(bundle.path("onnx/model_quantized.onnx"))
    assert [value.name for value in small.graph.output] == ["logits"]
    assert "MatMul" not in {node.op_type for node in small.graph.node} or kind == "transformer"
    if kind == "static":  # numbers of tokens are copied beside their neighbours, and bytes in a second layer
        made = {name: node.op_type for node in small.graph.node for name in node.output}
        copied = [made[node.input[0]] for node in small.graph.node if node.op_type == "Pad"]
        assert copied == ["Where", "QuantizeLinear"]
        assert not [t for t in small.graph.initializer if len(t.dims) == 2 and t.data_type == onnx.TensorProto.FLOAT]
    int8 = padded_logits(small, words, max_length=64)
    assert 0 < np.abs(int8 - expected).max() < 0.1 * np.abs(expected).max()
    alone = [padded_logits(small, words.select(np.array([row])), max_length=64) for row in range(words.n_rows)]
    np.testing.assert_allclose(np.concatenate(alone), int8, atol=1e-5)


def test_what_is_in_a_bundle(tiers: Path, tmp_path: Path) -> None:
    options = ExportOptions(max_length=48, windows=Windows(margin=2), fp32=False, agreement=0)
    export_bundle(tiers / "tier2", tiers / "static", tmp_path / "out", calibration=TAGGED, options=options)
    bundle = open_bundle(tmp_path / "out")
    manifest = bundle.manifest
    assert manifest.task == "token-classification"
    assert manifest.labels == tiny.TAGS
    assert exits.from_json(manifest.exit_policy) == TokenExit(0.05, window=1)
    assert manifest.windows is not None
    assert windows.from_json(manifest.windows) == Windows(margin=2)
    assert [stage.layer for stage in manifest.tier2.stages] == [1, 2]
    assert {stage.precision for stage in manifest.tier2.stages} == {"int8"}
    assert manifest.tier2.max_length == manifest.tier1.max_length == 48
    assert (manifest.tier2.width, manifest.tier2.heads) == (16, 2)
    assert 1.0 not in {manifest.tier1.temperature, *(stage.temperature for stage in manifest.tier2.stages)}
    known = {"source": "some sentences", "sha256": None, "texts": 8, "labelled": True}
    known["words"] = sum(map(len, SENTENCES))
    assert manifest.figures["calibration"] == known
    assert set(manifest.figures["tier1"]) > {"agreement", "accuracy", "accuracy_fp32", "max_difference"}
    assert all(0 < figures["verified_within"] < TOLERANCE for figures in manifest.figures["tier2"])
    assert set(manifest.files) == {
        "README.md",
        "config.json",
        "onnx/model_quantized.onnx",
        "tier2/embed.onnx",
        "tier2/stage_00.onnx",
        "tier2/stage_01.onnx",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    card = bundle.path("README.md").read_text(encoding="utf-8")
    for part in ("pipeline_tag: token-classification", "import Tagger", "| tier 2, exit after layer 2 | int8 |"):
        assert part in card
    assert f"on {known['words']} words (some sentences)" in card
    assert AutoConfig.from_pretrained(tmp_path / "out").id2label == dict(enumerate(tiny.TAGS))


def test_figures_are_those_of_the_written_graphs(tiers: Path, tmp_path: Path) -> None:
    model = tiny.tagger(tmp_path / "2", depth=2)
    export_bundle(tmp_path / "2", tiers / "transformer", tmp_path / "out", calibration=TAGGED)
    manifest = open_bundle(tmp_path / "out").manifest
    words = words_of()
    found = chain_logits(graphs_of(tmp_path / "out", manifest), words, position_offset=0)
    expected = torch_tier2(model, words)
    wanted = np.array([tiny.TAGS.index(tag) for tags in TAGS for tag in tags])
    for i, figures in enumerate(manifest.figures["tier2"]):
        assert figures["accuracy"] == pytest.approx((found[:, i].argmax(1) == wanted).mean(), abs=1e-4)
        assert figures["accuracy_fp32"] == pytest.approx((expected[:, i].argmax(1) == wanted).mean(), abs=1e-4)
        same = (found[:, i].argmax(1) == expected[:, i].argmax(1)).mean()
        assert figures["agreement"] == pytest.approx(same, abs=1e-4)
        assert figures["max_difference"] == pytest.approx(np.abs(found[:, i] - expected[:, i]).max(), abs=1e-4)


def test_without_tags_or_sentences_temperatures_stay_one(tiers: Path, tmp_path: Path) -> None:
    for name, calibration in (("own", None), ("untagged", TagCalibration(SENTENCES))):
        bundle = export_bundle(tiers / "tier2", tiers / "static", tmp_path / name, calibration=calibration)
        assert [stage.temperature for stage in bundle.manifest.tier2.stages] == [1.0, 1.0]
        assert "accuracy" not in bundle.manifest.figures["tier1"]
        assert bundle.manifest.figures["calibration"]["labelled"] is False


def test_long_and_empty_sentences_calibrate(tiers: Path, tmp_path: Path) -> None:
    """A sentence that no row holds becomes several rows: none of its words is lost, none is read twice."""
    long = [tiny.WORDS[i % 30] for i in range(150)]
    words = [["good"], [], long, ["x" * 5000, "film"]]
    calibration = TagCalibration(words, [[tiny.TAGS[len(word) % 3] for word in own] for own in words])
    text = tiny.tokenizer().to_str()
    rows = encode_sentences(calibration, text, tiny.TAGS, max_length=40)
    assert isinstance(rows.batch, Units)
    assert len(rows.batch) == 153
    assert (rows.batch.rows.lengths <= 40).all()
    assert rows.targets is not None
    assert rows.targets.tolist() == [len(word) % 3 for own in words for word in own]
    ids = tiny.tokenizer().encode(" ".join(long)).ids[1:-1]
    assert rows.batch.first_ids[1:151].tolist() == ids
    manifest = export_bundle(tiers / "tier2", tiers / "static", tmp_path / "out", calibration=calibration).manifest
    assert manifest.figures["calibration"]["words"] == 153


def test_dynamic_int8_and_none(tiers: Path, tmp_path: Path) -> None:
    for int8 in (Int8.DYNAMIC, Int8.NONE):
        out = tmp_path / int8.value
        options = ExportOptions(int8=int8, agreement=0)
        bundle = export_bundle(tiers / "tier2", tiers / "transformer", out, options=options)
        for file in (bundle.manifest.tier1.file, bundle.manifest.tier2.stages[0].file):
            operators = {node.op_type for node in onnx.load(bundle.path(file)).graph.node}
            assert ("DynamicQuantizeMatMul" in operators) == (int8 is Int8.DYNAMIC)
            assert "QuantizeLinear" not in operators


def test_policies_of_ones_own(tiers: Path, tmp_path: Path) -> None:
    policy = any_of(TokenExit(0.1, window=3), AtExit(1))
    options = ExportOptions(exit_policy=policy)
    manifest = export_bundle(tiers / "tier2", tiers / "static", tmp_path / "out", options=options).manifest
    assert exits.from_json(manifest.exit_policy) == policy


def test_classifiers_have_no_windows(tiers: Path, tmp_path: Path) -> None:
    manifest = export_bundle(tiers / "classifier", tiers / "static-1", tmp_path / "out").manifest
    assert manifest.task == "text-classification"
    assert manifest.windows is None
    assert manifest.exit_policy["policy"] == "MaxProbability"


def test_entities_are_scored_where_seqeval_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Sequence[Sequence[str]], Sequence[Sequence[str]]]] = []

    def f1_score(right: Sequence[Sequence[str]], given: Sequence[Sequence[str]], *, zero_division: int) -> float:
        asked.append((right, given))
        return 0.25

    whole, part = ModuleType("seqeval"), ModuleType("seqeval.metrics")
    part.f1_score = f1_score  # type: ignore[attr-defined]  # what a stand-in has
    whole.__spec__ = part.__spec__ = export_module.__spec__
    monkeypatch.setitem(sys.modules, "seqeval", whole)
    monkeypatch.setitem(sys.modules, "seqeval.metrics", part)
    tiny.tagger(tmp_path / "2", depth=1, labels=SPANS)
    tiny_tagging.tier1_static(tmp_path / "1", labels=SPANS)
    words = [["good", "film"], [], ["the", "plot", "is", "dull"]]
    tags = [["B-thing", "I-thing"], [], ["O", "B-thing", "O", "O"]]
    bundle = export_bundle(tmp_path / "2", tmp_path / "1", tmp_path / "out", calibration=TagCalibration(words, tags))
    assert bundle.manifest.figures["tier2"][0]["f1"] == bundle.manifest.figures["tier1"]["f1_fp32"] == 0.25
    for right, given in asked:
        assert right == [tags[0], tags[2]]
        assert [len(own) for own in given] == [2, 4]
        assert {tag for own in given for tag in own} <= set(SPANS)
    assert "| F1 of entities | F1 fp32 |" in bundle.path("README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("layers", [None, (2, 3)])
def test_the_engine_answers_as_the_written_graphs(tiers: Path, tmp_path: Path, layers: tuple[int, ...] | None) -> None:
    """int8, through the manifest: words that leave at fixed exits, full depth, and tier 1."""
    tiny.tagger(tmp_path / "2", depth=3, layers=layers)
    options = ExportOptions(agreement=0)
    export_bundle(tmp_path / "2", tiers / "static", tmp_path / "out", calibration=TAGGED, options=options)
    manifest = open_bundle(tmp_path / "out").manifest
    graphs, words = graphs_of(tmp_path / "out", manifest), words_of()
    stages = manifest.tier2.stages
    assert {stage.precision for stage in stages} == {"int8"}
    tagger = Tagger.from_pretrained(tmp_path / "out", threads=1).with_router(defer_all)

    by_id = np.random.default_rng(0).integers(0, len(stages), tiny.tokenizer().get_vocab_size())
    fixed = ExitByToken(tuple(stages[exit_].layer for exit_ in by_id.tolist()))
    last = np.full(len(words), len(stages) - 1)
    for policy, leaving in ((never, last), (fixed, by_id[words.first_ids])):
        found = tagger.with_exit_policy(policy).predict([list(own) for own in SENTENCES])
        logits = chain_logits(graphs, words, position_offset=0, exits=leaving)[np.arange(len(words)), leaving]
        warm = np.array([stage.temperature for stage in stages], np.float32)[leaving]
        np.testing.assert_allclose(found.probabilities, softmax(logits / warm[:, None]), atol=1e-5)
        assert found.routes.words.exit_layer.tolist() == [stages[exit_].layer for exit_ in leaving]
    first = tagger.with_router(defer_none).predict([list(own) for own in SENTENCES])
    logits = padded_logits(onnx.load(tmp_path / "out" / manifest.tier1.file), words, max_length=64)
    np.testing.assert_allclose(first.probabilities, softmax(logits / manifest.tier1.temperature), atol=1e-5)


# ------------------------------------------------------------------------------------------------ refusals


def refused(tmp_path: Path, error: type[Exception], match: str, tier2: Path, tier1: Path, **options: Any) -> None:
    with pytest.raises(error, match=match):
        export_bundle(tier2, tier1, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("make", [tiny_tagging.tier1_static, tiny_tagging.tier1_transformer])
def test_tags_must_be_equal(tiers: Path, tmp_path: Path, make: Callable[..., Any]) -> None:
    make(tmp_path / "other", labels=("VERB", "NOUN", "X"))
    refused(
        tmp_path,
        BundleError,
        r"same labels in the same order, tier 2 has \[NOUN, VERB, X\] \(3\), tier 1 \[VERB, NOUN, X\] \(3\)",
        tiers / "tier2",
        tmp_path / "other",
    )


@pytest.mark.parametrize(("tier2", "tier1"), [("tier2", "static-1"), ("tier2", "transformer-1")])
def test_a_classifier_is_no_first_tier_of_a_tagger(tiers: Path, tmp_path: Path, tier2: str, tier1: str) -> None:
    match = "same task, tier 2 has token-classification, tier 1 text-classification; distil"
    refused(tmp_path, BundleError, match, tiers / tier2, tiers / tier1)


@pytest.mark.parametrize(("tier2", "tier1"), [("classifier", "static"), ("classifier", "transformer")])
def test_a_tagger_is_no_first_tier_of_a_classifier(tiers: Path, tmp_path: Path, tier2: str, tier1: str) -> None:
    match = "same task, tier 2 has text-classification, tier 1 token-classification; distil"
    refused(tmp_path, BundleError, match, tiers / tier2, tiers / tier1)


@pytest.mark.parametrize(
    ("calibration", "match"),
    [
        (Calibration(["a text"]), "must be a TagCalibration, was: Calibration; give sentences as lists of words"),
        (TagCalibration([]), "at least one word, has none; leave it out or add sentences"),
        (TagCalibration([[], []]), "at least one word, has none"),
        (TagCalibration([["a"], ["b"]], [["X"]]), "one list of tags per sentence, has 1 for 2 sentences"),
        (TagCalibration([["a", "b"]], [["X"]], "f.jsonl"), "f.jsonl: sentence 1 must have one tag per word, has 1"),
        (TagCalibration([["a"]], [["ADJ"]], "f.jsonl"), r"sentence 1 must be among \[NOUN, VERB, X\] \(3\), was: ADJ"),
    ],
)
def test_calibration_must_fit(tiers: Path, tmp_path: Path, calibration: TagCalibration, match: str) -> None:
    refused(tmp_path, (OptionError, DataError), match, tiers / "tier2", tiers / "static", calibration=calibration)  # type: ignore[arg-type]  # pytest takes several


def test_sentences_do_not_calibrate_a_classifier(tiers: Path, tmp_path: Path) -> None:
    match = "must be a Calibration, was: TagCalibration; give texts with labels"
    refused(tmp_path, OptionError, match, tiers / "classifier", tiers / "static-1", calibration=TAGGED)


def test_a_graph_that_differs_from_torch_is_not_written(
    tiers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "torch_tier2", lambda *given, **exits: torch_tier2(*given, **exits) + 0.01)
    refused(tmp_path, BundleError, "tier2/stage_00.onnx must answer as its", tiers / "tier2", tiers / "static")
    assert list(tmp_path.iterdir()) == []


def test_words_that_leave_are_verified_too(tiers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right at full depth and wrong with words that have left: not written."""
    tiny.tagger(tmp_path / "2", depth=3)  # what has left after layer 1 first looks different to layer 3
    monkeypatch.setattr(verify, "torch_tier2", lambda model, part, exits=None: torch_tier2(model, part))
    match = "tier2/stage_02.onnx, with words that have left, must answer as its checkpoint"
    refused(tmp_path, BundleError, match, tmp_path / "2", tiers / "static")


def test_options_are_values() -> None:
    assert replace(ExportOptions(), windows=Windows(margin=1)).windows == Windows(margin=1)
    assert ExportOptions() == ExportOptions()


# ---------------------------------------------------------------------------------------------- command line


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert isinstance(end.value.code, int)
    return end.value.code


def write(file: Path, records: Sequence[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return file


def test_command_round_trip(tiers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = [{"words": own, "upos": tags} for own, tags in zip(SENTENCES, TAGS, strict=True)]
    file = write(tmp_path / "dev.jsonl", records)
    status = run(
        *("--tier2", tiers / "tier2", "--tier1", tiers / "static", "--output", tmp_path / "out", "--calibration", file),
        *("--tokens-column", "words", "--tags-column", "upos", "--threshold", 0.8, "--exit-threshold", 0.1),
    )
    assert status == 0, capsys.readouterr().err
    assert "tier 2, layer 2: int8, agrees with fp32 on" in capsys.readouterr().out
    manifest = open_bundle(tmp_path / "out").manifest
    assert manifest.router["threshold"] == 0.8
    assert exits.from_json(manifest.exit_policy) == TokenExit(0.1)
    assert manifest.figures["calibration"]["source"] == "dev.jsonl"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"tokens": ["a"]}, "'tags' with a list of tags"),
        ({"words": ["a"], "tags": ["X"]}, "'tokens'"),
        ({"tokens": ["a", "b"], "tags": ["X"]}, "one tag per word"),
        ({"tokens": ["a"], "tags": ["ADJ"]}, "must be among"),
    ],
)
def test_bad_calibration_data_are_named(
    tiers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], record: dict[str, Any], message: str
) -> None:
    file = write(tmp_path / "dev.jsonl", [record])
    output = tmp_path / "out"
    status = run(*("--tier2", tiers / "tier2", "--tier1", tiers / "static", "--output", output, "--calibration", file))
    assert status == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    assert "dev.jsonl" in last
    assert message in last
    assert not output.exists()

"""From two checkpoints to a bundle, for both tasks: its contents and its answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tokenizers
from transformers import AutoConfig, AutoTokenizer

from cascade import Classifier, Tagger
from cascade.bundle.manifest import Manifest
from cascade.bundle.opening import Bundle, open_bundle
from cascade.bundle.tiers import SingleExitSpec
from cascade.core.confidence import softmax
from cascade.policies.exits import AtExit, any_of, never
from cascade.policies.routing import Budget, defer_all, defer_none
from cascade.policies.unit_exits import TokenExit
from cascade.policies.windows import Windows
from cascade.text.texts import Text
from cascade.text.tokenizer import Tokenizer
from cascade.training.data import tokenizer_of
from cascade.training.models.config import CLASSIFICATION, TAGGING
from cascade.training.task import BY_NAME as TASKS
from cascade_export import Calibration, ExportOptions, export_bundle
from cascade_export.checkpoints import load_tier
from cascade_export.export import model_card
from cascade_export.int8.rewriting import linears
from cascade_export.packed.chain import chain_logits
from cascade_export.packed.stages import TierGraphs
from cascade_export.texts import Agreement, Sample, encode
from cascade_export.verify import TOLERANCE, torch_logits
from tests.export.conftest import LABELLED, TAGGED
from tests.models import tiny, tiny_tagging
from tests.models.by_token import ExitByToken
from tests.models.graphs import operators, padded_logits
from tests.models.tiny_tagging import SENTENCES, TAGS, words_of

Exported = Callable[[str], Bundle]
SPANS = ("O", "B-thing", "I-thing")
MULTI = "multi_label_classification"


def graphs_of(bundle: Bundle) -> TierGraphs:
    embed, *stages = (onnx.load(bundle.path(file)) for file in sorted(bundle.manifest.files) if "tier2/" in file)
    return TierGraphs(embed, tuple(stages))


@pytest.mark.parametrize("kind", ["static", "transformer", "tag-static", "tag-transformer"])
def test_tier1_graphs_answer_as_torch(tiers: Path, exported: Exported, kind: str) -> None:
    task, bundle = TAGGING if kind.startswith("tag") else CLASSIFICATION, exported(kind)
    units = words_of()
    if task == CLASSIFICATION:
        units = Tokenizer(tiny.tokenizer(), max_length=64).encode(tiny.TEXTS).units
    expected = torch_logits(load_tier(tiers / kind, TASKS[task]), units, max_length=64)[:, 0]
    fp32 = padded_logits(onnx.load(bundle.path("onnx/model.onnx")), units, max_length=64)
    np.testing.assert_allclose(fp32, expected, atol=1e-6 * max(10, np.abs(expected).max()), rtol=0)
    assert bundle.manifest.tier1.model == kind.removeprefix("tag-")
    assert bundle.manifest.tier1.file == "onnx/model_quantized.onnx"
    small = onnx.load(bundle.path("onnx/model_quantized.onnx"))
    if kind == "tag-static":  # numbers of tokens are copied beside their neighbours, and bytes in a second layer
        made = {name: node.op_type for node in small.graph.node for name in node.output}
        copied = [made[node.input[0]] for node in small.graph.node if node.op_type == "Pad"]
        assert copied == ["Where", "QuantizeLinear"]
        assert not [t for t in small.graph.initializer if len(t.dims) == 2 and t.data_type == onnx.TensorProto.FLOAT]
        assert "MatMul" not in operators(small)
    int8 = padded_logits(small, units)
    assert 0 < np.abs(int8 - expected).max() < 0.1 * np.abs(expected).max()
    alone = [padded_logits(small, units.select(np.array([row])), max_length=64) for row in range(units.n_rows)]
    np.testing.assert_allclose(np.concatenate(alone), int8, atol=1e-5)


def test_what_is_in_a_bundle(tiers: Path, tmp_path: Path) -> None:
    card: Any = {"name": "Tiny", "license": "Apache-2.0", "data": "eight sentences"}
    options = ExportOptions(router=Budget(0.25), exit_policy=AtExit(1), max_length=48, **card)
    steps: list[str] = []
    export_bundle(
        tiers / "tier2",
        tiers / "static",
        tmp_path / "out",
        calibration=LABELLED,
        options=options,
        progress=steps.append,
    )
    tiers_ = [f"{step} tier {number}" for number in (2, 1) for step in ("export", "quantise")]
    assert steps == ["read the checkpoints", *tiers_, "write"]
    bundle = open_bundle(tmp_path / "out")
    manifest = bundle.manifest
    assert (manifest.task, manifest.labels, manifest.policies.windows) == (CLASSIFICATION, tiny.LABELS, None)
    assert (manifest.policies.routers, manifest.policies.exits) == ((Budget(0.25),), (never, AtExit(1)))
    assert [stage.layer for stage in manifest.tier2.stages] == [1, 2]
    assert {stage.precision for stage in manifest.tier2.stages} == {"int8"}
    assert manifest.tier2.max_length == manifest.tier1.max_length == 48
    assert (manifest.tier2.width, manifest.tier2.heads) == (16, 2)
    first, second = manifest.policies.temperatures
    assert all(0.05 <= temperature <= 20 for temperature in second)
    assert 1.0 not in {*first, *second[:-1]}
    assert second[-1] == 1  # full depth's scores stay the checkpoint's
    known = {"source": "some texts", "sha256": None, "texts": 8, "labelled": True}
    assert manifest.figures["calibration"] == known
    assert set(manifest.figures["tier1"]) > {"agreement", "accuracy", "accuracy_fp32", "max_difference"}
    assert set(manifest.files) == {
        "README.md",
        "config.json",
        "onnx/model.onnx",
        "onnx/model_quantized.onnx",
        "tier2/embed.onnx",
        "tier2/stage_00.onnx",
        "tier2/stage_01.onnx",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    card_text = bundle.path("README.md").read_text(encoding="utf-8")
    for words in ("# Tiny", "license: apache-2.0", "eight sentences", "| tier 2, layer 2 | int8 |"):
        assert words in card_text


def test_the_card_says_what_becomes_of_long_texts(exported: Exported) -> None:
    manifest = exported("static").manifest
    sizes = {path: record.bytes for path, record in manifest.files.items()}
    for truncation, words in ((False, "read in windows"), (True, "cut, as transformers cuts them")):
        own = replace(manifest, truncation=truncation)
        assert f"tokens; longer texts are {words}\n" in model_card(own, ExportOptions(), name="x", sizes=sizes)


def test_what_is_in_a_taggers_bundle(exported: Exported) -> None:
    bundle = exported("tag-static")
    manifest = bundle.manifest
    assert (manifest.task, manifest.labels) == (TAGGING, tiny.TAGS)
    assert manifest.policies.exits == (never, TokenExit(0.05))
    assert manifest.policies.windows == Windows()
    assert {stage.precision for stage in manifest.tier2.stages} == {"int8"}
    known = {"source": "some sentences", "sha256": None, "texts": 8, "labelled": True}
    known["words"] = sum(map(len, SENTENCES))
    assert manifest.figures["calibration"] == known
    assert all(0 < figures["verified_within"] < TOLERANCE for figures in manifest.figures["tier2"])
    card = bundle.path("README.md").read_text(encoding="utf-8")
    for part in ("pipeline_tag: token-classification", "import Tagger", "| tier 2, layer 2 | int8 |"):
        assert part in card
    assert f"on {known['words']} words (some sentences)" in card
    assert AutoConfig.from_pretrained(bundle.folder).id2label == dict(enumerate(tiny.TAGS))


def test_figures_are_those_of_the_written_graphs(tiers: Path, exported: Exported) -> None:
    bundle, words = exported("tag-transformer"), words_of()
    model = load_tier(tiers / "tagger", TASKS[TAGGING])
    found, expected = chain_logits(graphs_of(bundle), words), torch_logits(model, words)
    wanted = np.array([tiny.TAGS.index(tag) for tags in TAGS for tag in tags])
    for i, figures in enumerate(bundle.manifest.figures["tier2"]):
        answers, fp32 = found[:, i].argmax(1), expected[:, i].argmax(1)
        assert figures["accuracy"] == pytest.approx((answers == wanted).mean(), abs=1e-4)
        assert figures["accuracy_fp32"] == pytest.approx((fp32 == wanted).mean(), abs=1e-4)
        assert figures["agreement"] == pytest.approx((answers == fp32).mean(), abs=1e-4)
        assert figures["max_difference"] == pytest.approx(np.abs(found[:, i] - expected[:, i]).max(), abs=1e-4)


@pytest.mark.parametrize("kind", ["static", "transformer"])
def test_other_tools_read_configuration_and_tokenizer(exported: Exported, kind: str) -> None:
    """The tokenizer of the checkpoint pads and truncates; the bundle's does not."""
    folder = exported(kind).folder
    config = AutoConfig.from_pretrained(folder)
    assert config.id2label == dict(enumerate(tiny.LABELS))
    assert config.problem_type == tiny.SINGLE
    assert AutoTokenizer.from_pretrained(folder)("a film")["input_ids"] == tiny.tokenizer().encode("a film").ids
    raw = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert raw.padding is raw.truncation is None


def without_labels(manifest: Manifest) -> None:
    assert manifest.policies.temperatures[1] == (1.0, 1.0)
    assert "accuracy" not in manifest.figures["tier1"]
    assert manifest.figures["calibration"]["labelled"] is False


def test_without_labels_temperatures_stay_one(tiers: Path, tmp_path: Path) -> None:
    calibration = Calibration(SENTENCES)
    bundle = export_bundle(tiers / "tagger", tiers / "tag-static", tmp_path / "out", calibration=calibration)
    without_labels(bundle.manifest)


@pytest.mark.parametrize(("tier2", "tier1"), [("tier2", "transformer"), ("tagger", "tag-transformer")])
def test_all_in_fp32(tiers: Path, tmp_path: Path, tier2: str, tier1: str) -> None:
    options = ExportOptions(int8=False)
    bundle = export_bundle(tiers / tier2, tiers / tier1, tmp_path / "out", options=options)
    manifest = bundle.manifest
    without_labels(manifest)  # nor texts of the user's
    assert {manifest.tier1.precision, *(stage.precision for stage in manifest.tier2.stages)} == {"fp32"}
    assert manifest.figures["int8"] == "none"
    for file in (manifest.tier1.file, manifest.tier2.stages[0].file):
        graph = onnx.load(bundle.path(file))
        assert "QuantizeLinear" not in operators(graph)
        assert linears(graph)
    assert manifest.figures["tier2"][-1]["max_difference"] == 0


def test_of_a_first_tier_agreement_is_asked_less(tiers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it answers is certified; the last tier's int8 is held to what is asked."""
    monkeypatch.setattr(Sample, "compare", lambda *given, **options: Agreement(0.985, 15, 0.1))
    exact = ExportOptions(agreement=0.999)
    manifest = export_bundle(tiers / "tier2", tiers / "transformer", tmp_path / "out", options=exact).manifest
    assert manifest.tier1.precision == "int8"
    assert {stage.precision for stage in manifest.tier2.stages} == {"fp32"}
    (alone,) = export_bundle(tiers / "transformer", None, tmp_path / "alone", options=exact).manifest.tiers
    assert isinstance(alone, SingleExitSpec)
    assert alone.precision == "fp32"


def test_full_depth_scores_as_its_checkpoint_unless_asked(tiers: Path, tmp_path: Path) -> None:
    for tempered in (False, True):
        options = ExportOptions(int8=False, temper_full_depth=tempered)
        bundle = export_bundle(
            tiers / "tier2", tiers / "static", tmp_path / str(tempered), calibration=LABELLED, options=options
        )
        full = Classifier.from_pretrained(bundle.folder, threads=1).with_router(defer_all).with_exit_policy(never)
        units = Tokenizer(tiny.tokenizer(), max_length=64).encode(tiny.TEXTS).units
        logits = torch_logits(load_tier(tiers / "tier2", TASKS[CLASSIFICATION]), units)[:, -1]
        same = np.allclose(full.predict(list(tiny.TEXTS)).probabilities, softmax(logits), atol=1e-5)
        assert same is not tempered


def test_multi_label(tmp_path: Path) -> None:
    names = ("kind", "long", "about money")
    tiny.tier2(tmp_path / "2", depth=2, labels=names, problem_type=MULTI)
    tiny.tier1_static(tmp_path / "1", labels=names, problem_type=MULTI)
    labels: list[tuple[str, ...]] = [("kind",), (), ("kind", "long"), ("about money",)] * 2
    bundle = export_bundle(
        tmp_path / "2", tmp_path / "1", tmp_path / "out", calibration=Calibration(tiny.TEXTS, labels)
    )
    assert bundle.manifest.problem_type == MULTI
    assert bundle.manifest.policies.temperatures[1][0] != 1
    assert 0 <= bundle.manifest.figures["tier2"][0]["accuracy"] <= 1


def test_long_and_paired_texts_calibrate(tiers: Path, tmp_path: Path) -> None:
    texts: list[Text] = [("a good film", "the plot is dull"), "very " * 200 + "good", ""]
    calibration = Calibration(texts, ["negative", "positive", "negative"])
    manifest = export_bundle(tiers / "tier2", tiers / "static", tmp_path / "out", calibration=calibration).manifest
    assert manifest.figures["calibration"]["texts"] == 3


def test_long_and_empty_sentences_calibrate(tiers: Path, tmp_path: Path) -> None:
    """A sentence that no row holds becomes several rows: none of its words is lost, none is read twice."""
    long = [tiny.WORDS[i % 30] for i in range(150)]
    words = [["good"], [], long, ["x" * 5000, "film"]]
    calibration = Calibration(words, [[tiny.TAGS[len(word) % 3] for word in own] for own in words])
    sample = encode(calibration, TASKS[TAGGING], tokenizer_of(tiny.tokenizer().to_str(), max_length=40), tiny.TAGS)
    assert len(sample.units) == 153
    assert (sample.units.rows.lengths <= 40).all()
    assert sample.targets is not None
    assert sample.targets.tolist() == [len(word) % 3 for own in words for word in own]
    ids = tiny.tokenizer().encode(" ".join(long)).ids[1:-1]
    assert sample.units.first_ids[1:151].tolist() == ids
    manifest = export_bundle(tiers / "tagger", tiers / "tag-static", tmp_path / "out", calibration=calibration).manifest
    assert manifest.figures["calibration"]["words"] == 153


def test_entities_are_scored(tmp_path: Path) -> None:
    tiny.tagger(tmp_path / "2", depth=1, labels=SPANS)
    tiny_tagging.tier1_static(tmp_path / "1", labels=SPANS)
    words = [["good", "film"], [], ["the", "plot", "is", "dull"]]
    tags = [["B-thing", "I-thing"], [], ["O", "B-thing", "O", "O"]]
    calibration = Calibration(words, tags)
    sample = encode(calibration, TASKS[TAGGING], tokenizer_of(tiny.tokenizer().to_str(), max_length=64), SPANS)
    right = np.eye(3, dtype=np.float32)[[1, 2, 0, 1, 0, 0]]
    half = np.eye(3, dtype=np.float32)[[1, 0, 0, 1, 0, 0]]  # the first entity is too short
    figures = sample.figures(half, right)
    assert (figures["f1"], figures["f1_fp32"]) == (0.5, 1.0)
    bundle = export_bundle(tmp_path / "2", tmp_path / "1", tmp_path / "out", calibration=calibration)
    assert {"f1", "f1_fp32"} <= set(bundle.manifest.figures["tier1"])
    assert "| F1 of entities | F1 fp32 |" in bundle.path("README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("layers", [None, (2, 3)])
def test_the_engine_answers_as_the_written_graphs(tiers: Path, tmp_path: Path, layers: tuple[int, ...] | None) -> None:
    """int8, through the manifest: words that leave at fixed exits, full depth, and tier 1."""
    tiny.tagger(tmp_path / "2", depth=3, layers=layers)
    options = ExportOptions(agreement=0, exit_policy=any_of(TokenExit(0.1, window=3), AtExit(3)))
    output = tmp_path / "out"
    bundle = export_bundle(tmp_path / "2", tiers / "tag-static", output, calibration=TAGGED, options=options)
    manifest = bundle.manifest
    assert manifest.policies.exits[1] == options.exit_policy
    graphs, words = graphs_of(bundle), words_of()
    stages = manifest.tier2.stages
    tagger = Tagger.from_pretrained(output, threads=1).with_router(defer_all)

    by_id = np.random.default_rng(0).integers(0, len(stages), tiny.tokenizer().get_vocab_size())
    fixed = ExitByToken(tuple(stages[exit_].layer for exit_ in by_id.tolist()))
    last = np.full(len(words), len(stages) - 1)
    for policy, leaving in ((never, last), (fixed, by_id[words.first_ids])):
        found = tagger.with_exit_policy(policy).predict([list(own) for own in SENTENCES])
        logits = chain_logits(graphs, words, exits=leaving)[np.arange(len(words)), leaving]
        warm = np.array(manifest.policies.temperatures[1], np.float32)[leaving]
        np.testing.assert_allclose(found.probabilities, softmax(logits / warm[:, None]), atol=1e-5)
        assert found.routes.words.exit_layer.tolist() == [stages[exit_].layer for exit_ in leaving]
    first = tagger.with_router(defer_none).predict([list(own) for own in SENTENCES])
    logits = padded_logits(onnx.load(bundle.path(manifest.tier1.file)), words, max_length=64)
    np.testing.assert_allclose(first.probabilities, softmax(logits / manifest.policies.temperatures[0][0]), atol=1e-5)

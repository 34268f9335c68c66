"""From two checkpoints to a bundle, for both tasks: its contents, its answers, and failures, which write nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tokenizers
from transformers import AutoConfig, AutoTokenizer

from cascade import Tagger
from cascade.bundle.manifest import Manifest
from cascade.bundle.opening import open_bundle
from cascade.core.confidence import softmax
from cascade.core.rows import Units
from cascade.exceptions import BundleError, DataError, InputError, OptionError
from cascade.policies.exits import AtExit, any_of, never
from cascade.policies.routing import Budget, defer_all, defer_none
from cascade.policies.unit_exits import TokenExit
from cascade.policies.windows import Windows
from cascade.text.texts import Text
from cascade.text.tokenizer import Tokenizer
from cascade.training.models.config import CLASSIFICATION, TAGGING
from cascade_export import Calibration, CardOptions, ExportOptions, Int8, export_bundle, verify
from cascade_export import export as export_module
from cascade_export.checkpoints import load_tier1
from cascade_export.int8.linears import linears
from cascade_export.packed.chain import chain_logits, padded_logits
from cascade_export.packed.graphs import TierTwoGraphs
from cascade_export.tasks import TASKS
from cascade_export.texts import encode
from cascade_export.verify import TOLERANCE, check, torch_tier1, torch_tier2
from tests.models import tiny, tiny_tagging
from tests.models.by_token import ExitByToken
from tests.models.tiny_tagging import SENTENCES, TAGS, words_of

LABELLED = Calibration(tiny.TEXTS, ["positive", "positive", "negative", "negative"] * 2, "some texts")
TAGGED = Calibration(SENTENCES, TAGS, "some sentences")
SPANS = ("O", "B-thing", "I-thing")
MULTI = "multi_label_classification"


@pytest.fixture(scope="module")
def tiers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints `tier2`, `static`, `transformer` of a classifier; `tagger`, `tag-static`, `tag-transformer`."""
    folder = tmp_path_factory.mktemp("tiers")
    tiny.tier2(folder / "tier2", depth=2)
    tiny.tier1_static(folder / "static")
    tiny.tier1_transformer(folder / "transformer")
    tiny.tagger(folder / "tagger", depth=2)
    tiny_tagging.tier1_static(folder / "tag-static")
    tiny_tagging.tier1_transformer(folder / "tag-transformer")
    return folder


def units_of(task: str) -> Units:
    return words_of() if task == TAGGING else Tokenizer(tiny.tokenizer(), max_length=64).encode(tiny.TEXTS).units


def graphs_of(folder: Path, manifest: Manifest) -> TierTwoGraphs:
    stages = tuple(onnx.load(folder / stage.file) for stage in manifest.tier2.stages)
    return TierTwoGraphs(onnx.load(folder / manifest.tier2.embed), stages)


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("kind", ["static", "transformer", "tag-static", "tag-transformer"])
def test_tier1_graphs_answer_as_torch(tiers: Path, tmp_path: Path, kind: str) -> None:
    task = TAGGING if kind.startswith("tag") else CLASSIFICATION
    tier2, calibration = ("tagger", TAGGED) if task == TAGGING else ("tier2", LABELLED)
    options = ExportOptions(agreement=0)
    bundle = export_bundle(tiers / tier2, tiers / kind, tmp_path / "out", calibration=calibration, options=options)
    units = units_of(task)
    expected = torch_tier1(load_tier1(tiers / kind, task=TASKS[task]), units, max_length=64)
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
    int8 = padded_logits(small, units, max_length=64)
    assert 0 < np.abs(int8 - expected).max() < 0.1 * np.abs(expected).max()
    alone = [padded_logits(small, units.select(np.array([row])), max_length=64) for row in range(units.n_rows)]
    np.testing.assert_allclose(np.concatenate(alone), int8, atol=1e-5)


def test_what_is_in_a_bundle(tiers: Path, tmp_path: Path) -> None:
    card = CardOptions(name="Tiny", license="Apache-2.0", data="eight sentences")
    options = ExportOptions(router=Budget(0.25), exit_policy=AtExit(1), max_length=48, card=card)
    steps: list[str] = []
    export_bundle(
        tiers / "tier2",
        tiers / "static",
        tmp_path / "out",
        calibration=LABELLED,
        options=options,
        progress=steps.append,
    )
    assert steps == list(export_module.STEPS)
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
    assert 1.0 not in {*first, *second}
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
    for words in ("# Tiny", "license: apache-2.0", "eight sentences", "| tier 2, exit after layer 2 | int8 |"):
        assert words in card_text


def test_what_is_in_a_taggers_bundle(tiers: Path, tmp_path: Path) -> None:
    options = ExportOptions(max_length=48, windows=Windows(margin=2), fp32=False, agreement=0)
    export_bundle(tiers / "tagger", tiers / "tag-static", tmp_path / "out", calibration=TAGGED, options=options)
    bundle = open_bundle(tmp_path / "out")
    manifest = bundle.manifest
    assert (manifest.task, manifest.labels) == (TAGGING, tiny.TAGS)
    assert manifest.policies.exits == (never, TokenExit(0.05))
    assert manifest.policies.windows == Windows(margin=2)
    assert {stage.precision for stage in manifest.tier2.stages} == {"int8"}
    assert manifest.tier2.max_length == manifest.tier1.max_length == 48
    known = {"source": "some sentences", "sha256": None, "texts": 8, "labelled": True}
    known["words"] = sum(map(len, SENTENCES))
    assert manifest.figures["calibration"] == known
    assert all(0 < figures["verified_within"] < TOLERANCE for figures in manifest.figures["tier2"])
    assert "onnx/model.onnx" not in manifest.files
    card = bundle.path("README.md").read_text(encoding="utf-8")
    for part in ("pipeline_tag: token-classification", "import Tagger", "| tier 2, exit after layer 2 | int8 |"):
        assert part in card
    assert f"on {known['words']} words (some sentences)" in card
    assert AutoConfig.from_pretrained(tmp_path / "out").id2label == dict(enumerate(tiny.TAGS))


def test_figures_are_those_of_the_written_graphs(tiers: Path, tmp_path: Path) -> None:
    model = tiny.tagger(tmp_path / "2", depth=2)
    export_bundle(tmp_path / "2", tiers / "tag-transformer", tmp_path / "out", calibration=TAGGED)
    manifest = open_bundle(tmp_path / "out").manifest
    words = words_of()
    found, expected = chain_logits(graphs_of(tmp_path / "out", manifest), words), torch_tier2(model, words)
    wanted = np.array([tiny.TAGS.index(tag) for tags in TAGS for tag in tags])
    for i, figures in enumerate(manifest.figures["tier2"]):
        assert figures["accuracy"] == pytest.approx((found[:, i].argmax(1) == wanted).mean(), abs=1e-4)
        assert figures["accuracy_fp32"] == pytest.approx((expected[:, i].argmax(1) == wanted).mean(), abs=1e-4)
        same = (found[:, i].argmax(1) == expected[:, i].argmax(1)).mean()
        assert figures["agreement"] == pytest.approx(same, abs=1e-4)
        assert figures["max_difference"] == pytest.approx(np.abs(found[:, i] - expected[:, i]).max(), abs=1e-4)


def test_other_tools_read_configuration_and_tokenizer(tiers: Path, tmp_path: Path) -> None:
    tier2 = shutil.copytree(tiers / "tier2", tmp_path / "tier2")
    padded = tiny.tokenizer()
    padded.enable_padding()
    padded.enable_truncation(5)
    padded.save(str(tier2 / "tokenizer.json"))
    ids = tiny.tokenizer().encode("a film").ids
    for kind in ("static", "transformer"):
        export_bundle(tier2, tiers / kind, tmp_path / kind)
        config = AutoConfig.from_pretrained(tmp_path / kind)
        assert config.id2label == dict(enumerate(tiny.LABELS))
        assert config.problem_type == tiny.SINGLE
        assert AutoTokenizer.from_pretrained(tmp_path / kind)("a film")["input_ids"] == ids
        raw = tokenizers.Tokenizer.from_file(str(tmp_path / kind / "tokenizer.json"))
        assert raw.padding is raw.truncation is None


@pytest.mark.parametrize(
    ("tier2", "tier1", "calibration"),
    [
        ("tier2", "static", None),
        ("tagger", "tag-static", None),
        ("tagger", "tag-static", Calibration(SENTENCES)),
    ],
)
def test_without_labels_temperatures_stay_one(
    tiers: Path, tmp_path: Path, tier2: str, tier1: str, calibration: Calibration | None
) -> None:
    manifest = export_bundle(tiers / tier2, tiers / tier1, tmp_path / "out", calibration=calibration).manifest
    assert manifest.policies.temperatures[1] == (1.0, 1.0)
    assert "accuracy" not in manifest.figures["tier1"]
    assert manifest.figures["calibration"]["labelled"] is False


@pytest.mark.parametrize(("int8", "operator"), [(Int8.DYNAMIC, "DynamicQuantizeMatMul"), (Int8.NONE, "Gelu")])
@pytest.mark.parametrize(("tier2", "tier1"), [("tier2", "transformer"), ("tagger", "tag-transformer")])
def test_other_forms_of_int8(tiers: Path, tmp_path: Path, tier2: str, tier1: str, int8: Int8, operator: str) -> None:
    options = ExportOptions(int8=int8, agreement=0)
    bundle = export_bundle(tiers / tier2, tiers / tier1, tmp_path / "out", options=options)
    manifest = bundle.manifest
    precision = "fp32" if int8 is Int8.NONE else "int8"
    assert {manifest.tier1.precision, *(stage.precision for stage in manifest.tier2.stages)} == {precision}
    assert manifest.figures["int8"] == int8.value
    for file in (manifest.tier1.file, manifest.tier2.stages[0].file):
        graph = onnx.load(bundle.path(file))
        assert operator in operators(graph)
        assert "QuantizeLinear" not in operators(graph)
        assert bool(linears(graph)) == (int8 is Int8.NONE)
    if int8 is Int8.NONE:
        assert manifest.figures["tier2"][-1]["max_difference"] == 0


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
    sample = encode(calibration, TASKS[TAGGING], tiny.tokenizer().to_str(), tiny.TAGS, max_length=40)
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
    sample = encode(calibration, TASKS[TAGGING], tiny.tokenizer().to_str(), SPANS, max_length=64)
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
    export_bundle(tmp_path / "2", tiers / "tag-static", tmp_path / "out", calibration=TAGGED, options=options)
    manifest = open_bundle(tmp_path / "out").manifest
    assert manifest.policies.exits[1] == options.exit_policy
    graphs, words = graphs_of(tmp_path / "out", manifest), words_of()
    stages = manifest.tier2.stages
    tagger = Tagger.from_pretrained(tmp_path / "out", threads=1).with_router(defer_all)

    by_id = np.random.default_rng(0).integers(0, len(stages), tiny.tokenizer().get_vocab_size())
    fixed = ExitByToken(tuple(stages[exit_].layer for exit_ in by_id.tolist()))
    last = np.full(len(words), len(stages) - 1)
    for policy, leaving in ((never, last), (fixed, by_id[words.first_ids])):
        found = tagger.with_exit_policy(policy).predict([list(own) for own in SENTENCES])
        logits = chain_logits(graphs, words, exits=leaving)[np.arange(len(words)), leaving]
        warm = np.array(manifest.policies.temperatures[1], np.float32)[leaving]
        np.testing.assert_allclose(found.probabilities, softmax(logits / warm[:, None]), atol=1e-5)
        assert found.routes.words.exit.tolist() == [stages[exit_].layer for exit_ in leaving]
    first = tagger.with_router(defer_none).predict([list(own) for own in SENTENCES])
    logits = padded_logits(onnx.load(tmp_path / "out" / manifest.tier1.file), words, max_length=64)
    np.testing.assert_allclose(first.probabilities, softmax(logits / manifest.policies.temperatures[0][0]), atol=1e-5)


# ------------------------------------------------------------------------------------------------ refusals


def refused(tmp_path: Path, error: type[Exception], match: str, tier2: Path, tier1: Path, **options: Any) -> None:
    with pytest.raises(error, match=match):
        export_bundle(tier2, tier1, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_labels_must_be_equal(tiers: Path, tmp_path: Path) -> None:
    tiny.tier1_static(tmp_path / "other", labels=("positive", "negative"))
    match = (
        r"same labels in the same order, tier 2 has \[negative, positive\] \(2\), tier 1 \[positive, negative\] \(2\)"
    )
    refused(tmp_path, BundleError, match, tiers / "tier2", tmp_path / "other")


def test_problem_types_must_be_equal(tiers: Path, tmp_path: Path) -> None:
    tiny.tier1_static(tmp_path / "other", problem_type=MULTI)
    refused(tmp_path, BundleError, "same problem_type, tier 2 has single", tiers / "tier2", tmp_path / "other")


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
    refused(tmp_path, OptionError, "must be a checkpoint folder with a config.json", tiers / "tier2", tmp_path)
    refused(tmp_path, OptionError, "tier 2 must be", tmp_path / "nothing", tiers / "static")
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "config.json").write_text('{"model_type": "nonsense"}', encoding="utf-8")
    refused(tmp_path, OptionError, "must be a checkpoint that transformers reads", tiers / "tier2", tmp_path / "1")


def test_broken_weights_are_named(tiers: Path, tmp_path: Path) -> None:
    for tier in ("tier2", "static"):
        copy = tmp_path / tier
        shutil.copytree(tiers / tier, copy)
        (copy / "model.safetensors").write_bytes(b"flipped" * 10)
    match = "tier 2 must be a checkpoint of `cascade-train exits`, but Error while deserializing"
    refused(tmp_path, OptionError, match, tmp_path / "tier2", tiers / "static")
    match = "tier 1 must be a checkpoint that transformers reads, but Error while deserializing"
    refused(tmp_path, OptionError, match, tiers / "tier2", tmp_path / "static")


def test_tier2_needs_a_tokenizer(tiers: Path, tmp_path: Path) -> None:
    tiny.tier2(tmp_path / "2", depth=1)
    for file in tmp_path.glob("2/*token*"):
        file.unlink()
    refused(
        tmp_path,
        OptionError,
        "tier 2 must have a tokenizer, but .* a tokenizer.json or a vocabulary",
        tmp_path / "2",
        tiers / "static",
    )


@pytest.mark.parametrize("length", [0, 65])
def test_max_length_must_fit(tiers: Path, tmp_path: Path, length: int) -> None:
    options = ExportOptions(max_length=length)
    match = rf"max_length must be in \[1, 64\], the positions of tier 2, got {length}"
    refused(tmp_path, OptionError, match, tiers / "tier2", tiers / "static", options=options)


@pytest.mark.parametrize(
    ("tier", "calibration", "error", "match"),
    [
        ("tier2", Calibration([]), OptionError, "calibration must hold at least one text"),
        ("tier2", Calibration(["a", "b"], ["negative"]), DataError, "one label per text, got 1 for 2 texts"),
        ("tier2", Calibration(["a"], ["neutral"], "f"), DataError, "f: example 1 has the label 'neutral'"),
        ("tier2", Calibration(["a"], [tiny.LABELS]), DataError, r"text 1 must have 1 label\(s\), one per"),
        ("tier2", TAGGED, InputError, "a pair must hold two texts"),
        ("tagger", LABELLED, InputError, "a sentence must be a list of words"),
        ("tagger", Calibration([[], []]), OptionError, "at least one word, has none"),
        ("tagger", Calibration([["a"], ["b"]], [["X"]]), DataError, "one list of tags per sentence, got 1 for 2 sent"),
        ("tagger", Calibration([["a", "b"]], [["X"]], "f"), DataError, r"f: sentence 1 must have 2 tag\(s\), one per"),
        ("tagger", Calibration([["a"]], [["ADJ"]]), DataError, "has the label 'ADJ', which the model does not"),
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
    monkeypatch.setattr(verify, "torch_tier2", lambda *given, **exits: torch_tier2(*given, **exits) + 0.01)
    refused(tmp_path, BundleError, "tier2/stage_00.onnx must answer as its", tiers / tier2, tiers / tier1)
    assert list(tmp_path.iterdir()) == []


def test_words_that_leave_are_verified_too(tiers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right at full depth and wrong with words that have left: not written."""
    tiny.tagger(tmp_path / "2", depth=3)  # what has left after layer 1 first looks different to layer 3
    monkeypatch.setattr(verify, "torch_tier2", lambda model, part, exits=None: torch_tier2(model, part))
    match = "tier2/stage_02.onnx, with words that have left, must answer as its checkpoint"
    refused(tmp_path, BundleError, match, tmp_path / "2", tiers / "tag-static")


def test_a_nan_is_a_difference() -> None:
    with pytest.raises(BundleError, match="largest difference was nan"):
        check("graph", np.full((2, 2), np.nan, np.float32), np.zeros((2, 2), np.float32))


@pytest.mark.parametrize("step", ["quantise_tier1", "model_card", "write_bundle"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_nothing_is_written_when_a_step_breaks(
    tiers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: type[BaseException]
) -> None:
    def broken(*given: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(export_module, step, broken)
    with pytest.raises(error):
        export_bundle(tiers / "tier2", tiers / "static", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []

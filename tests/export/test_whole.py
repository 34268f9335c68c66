"""Any fine-tuned model becomes a tier without exits, behind a first tier or alone; a multi-exit one may be alone."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoModelForTokenClassification

from cascade import Classifier, Tagger, load
from cascade.bundle.tiers import MultiExitSpec, SingleExitSpec
from cascade.calibration.certify.claims import Agreement, Claim, Unit
from cascade.calibration.certify.outcomes import Certified
from cascade.calibration.certify.whole import certify_sample
from cascade.calibration.choosing import choose_tagger
from cascade.calibration.observing import observe_sentences, observe_texts
from cascade.cli import main
from cascade.exceptions import BundleError, MissingExtraError, OptionError
from cascade.policies.exits import MaxProbability, never
from cascade.policies.routing import defer_all
from cascade.policies.unit_exits import TokenExit
from cascade_export import Calibration, ExportOptions, export_bundle
from tests.models import tiny, tiny_tagging
from tests.models.recorded import costs_of
from tests.models.tiny_tagging import SENTENCES
from tests.training.commands import report_of, train, write

SIZES: dict[str, Any] = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 24}
FAMILIES: dict[str, dict[str, Any]] = {
    "big_bird": {},
    "ernie": {},
    "roformer": {"embedding_size": 16},
    "convbert": {"embedding_size": 16},
}


def fine_tuned(folder: Path, family: str, *, tagging: bool = False) -> Any:
    torch.manual_seed(0)
    vocabulary = tiny.tokenizer().get_vocab_size()
    config = AutoConfig.for_model(
        family, **(SIZES | FAMILIES.get(family, {})), vocab_size=vocabulary, max_position_embeddings=64
    )
    kind: Any = AutoModelForTokenClassification if tagging else AutoModelForSequenceClassification
    return tiny.kept(kind.from_config(tiny.named(config, tiny.TAGS if tagging else ("c", "a", "b"), None)), folder)


def alone(model: Any, texts: Any, **given: bool) -> torch.Tensor:
    """Probabilities of each item by itself, as transformers gives them."""
    rows = [tiny.tokenizer().encode(text, **given) for text in texts]
    with torch.inference_mode():
        found = [model(input_ids=torch.tensor([row.ids])).logits[0].softmax(-1) for row in rows]
    return torch.cat(found) if found[0].ndim == 2 else torch.stack(found)


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("family", ["big_bird", "ernie", "roformer"])
def test_a_classifier_of_any_family(family: str, int8: bool, tmp_path: Path) -> None:
    """A first tier is distilled from it; behind that, and alone, it answers as transformers does."""
    model = fine_tuned(tmp_path / "own", family)
    rows = write(tmp_path / "rows.jsonl", [{"text": text} for text in tiny.TEXTS])
    sizes = ("--width", 8, "--hidden", 8, "--epochs", 1)
    train(
        "first-tier", tmp_path / "own", "--train", rows, "--eval", rows, "--output", tmp_path / "first", *sizes, ok=True
    )
    assert report_of(tmp_path / "first")["scores"].keys() == {"accuracy"}
    calibration, options = Calibration(tiny.TEXTS), ExportOptions(int8=int8, agreement=0)
    wanted = alone(model, tiny.TEXTS)
    for first in (tmp_path / "first", None):
        output = tmp_path / f"bundle-{first is None}"
        manifest = export_bundle(tmp_path / "own", first, output, calibration=calibration, options=options).manifest
        assert manifest.labels == ("c", "a", "b")
        assert isinstance(manifest.tiers[-1], SingleExitSpec)
        assert manifest.policies.exits == (never,) * len(manifest.tiers)
        pipeline = Classifier.from_pretrained(output, threads=1)
        pipeline = pipeline if first is None else pipeline.with_router(defer_all)
        found = pipeline.predict(list(tiny.TEXTS))
        tolerance = 1e-4 if not int8 else 0.1
        np.testing.assert_allclose(found.probabilities, wanted, atol=tolerance)
        assert set(found.routes.tier) == {len(manifest.tiers)}


def test_a_tagger_of_any_family(tmp_path: Path) -> None:
    model = fine_tuned(tmp_path / "own", "ernie", tagging=True)
    options, words = ExportOptions(int8=False), [list(own) for own in SENTENCES]
    export_bundle(tmp_path / "own", None, tmp_path / "bundle", calibration=Calibration(words), options=options)
    found = Tagger.from_pretrained(tmp_path / "bundle", threads=1).predict(words[:4])
    wanted = torch.cat([alone(model, [own], is_pretokenized=True)[1:-1] for own in words[:4]])
    np.testing.assert_allclose(found.probabilities, wanted, atol=1e-4)


@pytest.mark.parametrize("name", ["tier2", "tagger"])
def test_a_multi_exit_tier_alone(tiers: Path, tmp_path: Path, name: str) -> None:
    bundle = export_bundle(tiers / name, None, tmp_path / "out")
    (spec,) = bundle.manifest.tiers
    assert isinstance(spec, MultiExitSpec)
    policies: dict[str, Any] = {"tier2": MaxProbability(0.9), "tagger": TokenExit(0.05)}
    assert bundle.manifest.policies.exits == (policies[name],)
    assert {row["layer"] for row in bundle.manifest.figures["tier1"]} == {1, 2}
    card = bundle.path("README.md").read_text(encoding="utf-8")
    assert "`cascade-encoder`, of 1 tier.\n" in card
    assert "**Tier 1**: exits after layers 1, 2 of width 16" in card
    pipeline: Any = load(tmp_path / "out", threads=1)
    items = list(tiny.TEXTS) if name == "tier2" else [list(own) for own in SENTENCES]
    assert set(pipeline.predict(items).routes.tier if name == "tier2" else [1]) == {1}


def test_answers_that_depend_on_padding_are_refused(tmp_path: Path) -> None:
    fine_tuned(tmp_path / "own", "convbert")
    with pytest.raises(BundleError, match=r"onnx/model.onnx must answer as its checkpoint"):
        export_bundle(tmp_path / "own", None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_without_a_mask_or_a_head_is_refused(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 24, "vocab_size": 200}
    config = AutoConfig.for_model("fnet", **sizes)
    tiny.kept(AutoModelForSequenceClassification.from_config(config), tmp_path / "own")
    with pytest.raises(OptionError, match="an attention_mask, so that padding says nothing, but fnet does not"):
        export_bundle(tmp_path / "own", None, tmp_path / "out")
    tiny.backbone(tmp_path / "encoder")
    with pytest.raises(OptionError, match="has no head for texts or tokens; fine-tune it first"):
        export_bundle(tmp_path / "encoder", None, tmp_path / "out")


@pytest.mark.parametrize("arguments", [("--agreement", 0.9), ("--no-guarantee", "--max-drop", 0.9)])
def test_its_first_tier_is_calibrated(tmp_path: Path, arguments: tuple[object, ...]) -> None:
    """Where the second tier has no exits there is still a threshold to choose and to certify."""
    fine_tuned(tmp_path / "own", "ernie")
    tiny.tier1_static(tmp_path / "first", labels=("c", "a", "b"))
    export_bundle(tmp_path / "own", tmp_path / "first", tmp_path / "bundle", options=ExportOptions(int8=False))
    texts = [f"{first} {second}" for first in tiny.WORDS for second in tiny.WORDS[:9]]
    texts.append("very " * 200)
    pipeline = Classifier.from_pretrained(tmp_path / "bundle", threads=1)
    answers = observe_texts(pipeline, texts, None)
    full = pipeline.with_router(defer_all).predict(texts)
    np.testing.assert_allclose(answers.tiers[-1].full, full.probabilities, atol=1e-5)
    assert answers.layers == (1,)
    assert answers.lengths[-1] > 200
    labels = [{"text": text, "label": label} for text, label in zip(texts, full.labels, strict=True)]
    file, output = write(tmp_path / "texts.jsonl", labels), tmp_path / "out"
    with pytest.raises(SystemExit) as end:
        main(
            ["calibrate", str(tmp_path / "bundle"), "--data", str(file), "--output", str(output), *map(str, arguments)]
        )
    assert end.value.code == 0
    policies = load(output, threads=1).policies
    assert policies.exits == (never, never)
    assert policies.routers != pipeline.policies.routers


def test_a_tagger_behind_its_first_tier_is_calibrated(tmp_path: Path) -> None:
    """Without exits there are still windows and a threshold to choose and to certify."""
    fine_tuned(tmp_path / "own", "ernie", tagging=True)
    tiny_tagging.tier1_static(tmp_path / "first")
    export_bundle(tmp_path / "own", tmp_path / "first", tmp_path / "bundle", options=ExportOptions(int8=False))
    tagger = Tagger.from_pretrained(tmp_path / "bundle", threads=1)
    sentences = [[first, second, last] for first in tiny.WORDS[:9] for second in tiny.WORDS for last in tiny.WORDS[:3]]
    full = tagger.with_router(defer_all).predict(sentences)
    answers = observe_sentences(tagger, sentences, None)
    assert answers.layers == (1,)
    wanted = [tiny.TAGS.index(tag) for tags in full.tags for tag in tags]
    assert answers.full.answers[:, 0].tolist() == wanted
    answers = replace(answers, costs=costs_of(0.01, (1.0,)))  # no test of seconds
    found = certify_sample(answers, Claim(Agreement(0.9), unit=Unit.SENTENCE))
    assert isinstance(found, Certified)
    free = choose_tagger(tagger, sentences, full.tags, max_drop=0.9)
    for policies in (found.policies, free.policies):
        assert policies.exits == (never, never)
        assert policies != tagger.policies
        assert len(tagger.with_policies(policies).predict(sentences[:3]).tags) == 3


def test_optimum_makes_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, options = fine_tuned(tmp_path / "own", "roformer"), ExportOptions(int8=False, optimum=True)
    tiny.tier2(tmp_path / "exits")
    with pytest.raises(OptionError, match="exporter must be torch for a checkpoint with exits, got optimum"):
        export_bundle(tmp_path / "exits", None, tmp_path / "out", options=options)
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "optimum.exporters.onnx", None)
        with pytest.raises(MissingExtraError, match="needs the extra optimum"):
            export_bundle(tmp_path / "own", None, tmp_path / "out", options=options)
    pytest.importorskip("optimum.exporters.onnx")
    export_bundle(tmp_path / "own", None, tmp_path / "out", options=options)
    found = Classifier.from_pretrained(tmp_path / "out", threads=1).predict(list(tiny.TEXTS))
    np.testing.assert_allclose(found.probabilities, alone(model, tiny.TEXTS), atol=1e-4)

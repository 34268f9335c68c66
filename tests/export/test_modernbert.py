"""ModernBERT: the packed chain, the bundle and the engine answer as transformers' padded model, in long rows too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

import cascade
from cascade.core.confidence import softmax
from cascade.core.rows import FloatArray, Units
from cascade.exceptions import BundleError, OptionError
from cascade.policies.exits import MaxProbability, never
from cascade.policies.routing import defer_all
from cascade.training.models.multi_exit import MultiExitModel, MultiExitTagger
from cascade.training.models.students import Static, StaticTagger
from cascade_export import Calibration, ExportOptions, export_bundle
from cascade_export.packed.chain import chain_logits
from cascade_export.packed.stages import TierGraphs, export_tier2, pack
from cascade_export.texts import Sample
from cascade_export.verify import check_tier, random_exits, torch_logits
from tests.export.test_stages import units_of
from tests.models import tiny
from tests.models.batching import FixedSize
from tests.models.graphs import operators, quantised
from tests.models.tiny_tagging import random_words

POSITIONS = 400
ROWS = [1, 70, 5, 65, 66, 193, 129, 300]
"""Tokens: short rows, one block, several blocks."""
TEXTS = ["a very good film", "bad", "the plot is dull " * 20, "it was never warm " * 30, "we cry " * 50, "good " * 350]
KINDS = ["cls", "mean", "words"]


def stock(folder: Path, kind: str = "mean", **changes: Any) -> Any:
    """A fine-tuned checkpoint of transformers: five layers, of which the first and the fourth are global."""
    torch.manual_seed(7)
    plain = tiny.named(tiny.config("modernbert", layers=5, width=32), tiny.TAGS, None)
    pooling = {} if kind == "words" else {"classifier_pooling": kind}
    fields = plain.to_dict() | {"max_position_embeddings": POSITIONS, **pooling, **changes}
    for name in ("layer_types", "rope_parameters"):  # what transformers 5 makes of the others
        fields.pop(name, None)
    made = type(plain).from_dict(fields)
    auto: Any = AutoModelForTokenClassification if kind == "words" else AutoModelForSequenceClassification
    model = auto.from_config(made, attn_implementation="eager")
    model = tiny.kept(model, folder)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
            elif parameter.dim() > 1:
                parameter.mul_(0.6)  # attention that is neither even nor on one token
    model.save_pretrained(folder)
    return model


def multi_exit(folder: Path, kind: str = "mean") -> MultiExitModel | MultiExitTagger:
    """An exit after layers 1, 4 and 5, the first two with heads of their own."""
    made = MultiExitTagger if kind == "words" else MultiExitModel
    model = made.from_checkpoint(folder, labels=[], layers=(1, 4, 5)).eval()
    for parts in (model.heads[:2], model.norms[:2]):
        tiny.spread(parts)
    return model


@dataclass(frozen=True, eq=False)
class Made:
    """A checkpoint of transformers in `folder`, with exits, and as graphs."""

    folder: Path
    reference: Any
    model: MultiExitModel | MultiExitTagger
    graphs: TierGraphs


Make = Callable[[str], Made]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """By kind; made once."""

    @cache
    def of(kind: str) -> Made:
        folder = tmp_path_factory.mktemp(kind)
        reference, model = stock(folder, kind), multi_exit(folder, kind)
        return Made(folder, reference, model, export_tier2(pack(model)))

    return of


def rows_of(lengths: list[int], seed: int = 0) -> Units:
    random = np.random.default_rng(seed)
    return units_of([[2, *random.integers(5, 150, length - 1).tolist()] for length in lengths])


def units(kind: str) -> Units:
    return random_words([0, 100, 1, 20, 31, 140, 9], seed=3) if kind == "words" else rows_of(ROWS)


def answers_of(model: Any, texts: list[str]) -> FloatArray:
    """What transformers answers, text by text. Shape `(texts, labels)`, of words `(words, labels)`."""
    found = []
    for text in texts:
        encoded = tiny.tokenizer().encode(text)
        with torch.inference_mode():
            logits: Tensor = model(torch.tensor([encoded.ids]), torch.ones(1, len(encoded.ids))).logits
        found.append(logits[0, 1:-1] if logits.ndim == 3 else logits)
    return softmax(torch.cat(found).numpy())


@pytest.mark.parametrize("kind", KINDS)
def test_stages_answer_as_transformers(make: Make, kind: str) -> None:
    made, rows = make(kind), units(kind)
    found, expected = chain_logits(made.graphs, rows), torch_logits(made.model, rows)
    np.testing.assert_allclose(found, expected, atol=3e-5, rtol=0)
    assert np.abs(expected[:, 0] - expected[:, 1]).max() > 0.1
    for row, length in enumerate(rows.rows.lengths.tolist()):
        part, own = Sample(rows).part(np.array([row]))
        if not len(own):
            continue
        np.testing.assert_allclose(chain_logits(made.graphs, part), found[own], atol=2e-5, rtol=0)
        with torch.inference_mode():
            ids = torch.from_numpy(part.rows.ids)[None]
            logits = made.reference(ids, torch.ones_like(ids)).logits.reshape(-1, 3)
        wanted = logits[part.first_token] if kind == "words" else logits
        np.testing.assert_allclose(found[own, -1], wanted, atol=3e-5, rtol=0, err_msg=f"{length} tokens")


def test_words_leave_in_long_sentences(make: Make) -> None:
    made, words = make("words"), units("words")
    exits = random_exits(words, 3)
    exits[1:90] = 0  # in some blocks of a long sentence nobody is left
    found = chain_logits(made.graphs, words, exits=exits)
    expected = torch_logits(made.model, words, exits=exits)
    inside = exits[:, None] >= np.arange(3)
    np.testing.assert_allclose(found[inside], expected[inside], atol=3e-5, rtol=0)
    assert np.abs(expected[inside] - torch_logits(made.model, words)[inside]).max() > 1e-3


def test_other_configurations(tmp_path: Path) -> None:
    """Biases everywhere, bases of the rotation, another rhythm of global layers, another activation."""
    biases: dict[str, Any] = dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias", "classifier_bias"), True)
    rotation: dict[str, Any] = {"global_rope_theta": 500.0, "local_rope_theta": 50.0, "global_attn_every_n_layers": 2}
    stock(tmp_path, hidden_activation="gelu_new", classifier_activation="relu", **biases, **rotation)
    model, rows = multi_exit(tmp_path), rows_of(ROWS)
    np.testing.assert_allclose(chain_logits(export_tier2(pack(model)), rows), torch_logits(model, rows), atol=5e-5)


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        (
            "local_attention",
            64,
            "modernbert's local_attention must be 128, got 64; any other encoder gets in as a tier",
        ),
        (
            "rope_scaling",
            {"rope_type": "linear", "factor": 2.0},
            "modernbert's rope_scaling must be default, got linear",
        ),
    ],
)
def test_other_windows_and_rotations_are_refused_before_training(
    tmp_path: Path, name: str, value: object, match: str
) -> None:
    changes: dict[str, Any] = {name: value}
    try:
        stock(tmp_path, **changes)
    except KeyError:
        pytest.skip("this version of transformers makes no model with such a rotation")
    with pytest.raises(OptionError, match=match):
        MultiExitModel.from_checkpoint(tmp_path, labels=[])


# -------------------------------------------------------------------------------------------------------- graphs


def test_the_graph_is_small(make: Make) -> None:
    tables = {"ConstantOfShape": 2, "CumSum": 2, "Sub": 2, "Cos": 2, "Sin": 2}
    assert Counter(operators(make("mean").graphs.stages[2])) == tables | {
        "Gemm": 2,  # of the head
        "MatMul": 10,  # seven without biases, two of attention, one for pooling
        "RotaryEmbedding": 2,
        "Unsqueeze": 4,
        "Squeeze": 2,
        "Gather": 6,
        "Reshape": 5,
        "Transpose": 1,
        "Add": 3,
        "Mul": 3,  # the gate, and two of the tables
        "Softmax": 1,
        "LayerNormalization": 4,  # two of the layer, the exit's own and the head's
        "Gelu": 2,
        "Div": 1,
    }


def test_tables_are_made_when_a_graph_is_loaded(make: Make, tmp_path: Path) -> None:
    """And are not in the file."""
    stage = make("mean").graphs.stages[1]
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(stage.SerializeToString(), options, providers=["CPUExecutionProvider"])
    loaded = onnx.load(tmp_path / "loaded.onnx")
    assert not {"ConstantOfShape", "CumSum", "Cos", "Sin"} & set(operators(loaded))
    assert operators(loaded).count("RotaryEmbedding") == 6
    assert all(len(tensor.raw_data) < POSITIONS * 4 * 8 for tensor in stage.graph.initializer)


@pytest.mark.parametrize("kind", ["mean", "words"])
def test_int8_is_near_fp32(make: Make, kind: str) -> None:
    fp32, rows = make(kind).graphs, units(kind)
    exits = random_exits(rows, 3) if kind == "words" else None
    reference = chain_logits(fp32, rows, exits=exits)
    small = quantised(fp32, rows).graphs
    found = chain_logits(small, rows, exits=exits)
    assert 0 < np.nanmean(np.abs(found - reference)) < 0.05 * np.nanmax(np.abs(reference))
    # Query, key and value share one form of the states, so do both halves of what is expanded.
    assert operators(small.stages[2]).count("QuantizeLinear") == 4 + 2
    for row in range(rows.n_rows):
        part, own = Sample(rows).part(np.array([row]))
        alone = chain_logits(small, part, exits=None if exits is None else exits[own])
        np.testing.assert_allclose(alone, found[own], atol=2e-5)


@pytest.mark.parametrize("kind", ["mean", "words"])
def test_long_rows_are_verified_though_no_text_is_long(make: Make, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(kind)
    rows = random_words([5] * 40, seed=1) if kind == "words" else rows_of([12] * 40)
    sample = Sample(rows, sentences=np.arange(5, 205, 5) if kind == "words" else None)
    reference, names = chain_logits(made.graphs, rows), ["1", "4", "5"]
    assert max(check_tier(names, made.model, made.graphs, sample, reference, max_length=POSITIONS)) < 1e-4
    monkeypatch.setattr("cascade.engine.local_attention.OUT_OF_REACH", np.float32(-1))
    check_tier(names, made.model, made.graphs, sample, reference, max_length=60)
    with pytest.raises(BundleError, match=r"4, in a row of 3\d\d tokens, must answer as its checkpoint"):
        check_tier(names, made.model, made.graphs, sample, reference, max_length=POSITIONS)


# --------------------------------------------------------------------------------------------------- end to end


def loaded(made: Made, folder: Path, kind: str, int8: bool) -> Any:
    """Tier 2 of a bundle, whose first tier is static and begins from what the teacher knows of its tokens."""
    made.model.save_pretrained(folder / "exits")
    tiny.save_tokenizer(folder / "exits")
    student: Static = StaticTagger(width=8, hidden=8) if kind == "words" else Static(width=8, hidden=8)
    student.build(made.model).save_pretrained(folder / "first")
    options = ExportOptions(int8=int8, agreement=0)
    calibration = Calibration(items(kind))
    export_bundle(folder / "exits", folder / "first", folder / "out", calibration=calibration, options=options)
    return cascade.load(folder / "out", threads=1, batching=FixedSize(2)).with_router(defer_all)


def items(kind: str) -> list[Any]:
    return [text.split() for text in TEXTS] if kind == "words" else list(TEXTS)


@pytest.mark.parametrize(
    ("kind", "int8", "atol"),
    [("cls", False, 1e-5), ("words", False, 1e-5), ("mean", True, 0.15), ("words", True, 0.15)],
)
def test_bundles_answer_as_transformers(make: Make, tmp_path: Path, kind: str, int8: bool, atol: float) -> None:
    made = make(kind)
    found = loaded(made, tmp_path, kind, int8).with_exit_policy(never).predict(items(kind))
    np.testing.assert_allclose(found.probabilities, answers_of(made.reference, TEXTS), atol=atol, rtol=0)


def test_texts_leave_early_from_mixed_batches(make: Make, tmp_path: Path) -> None:
    """In batches of two, a short and a long text, that merge where others have left."""
    made = make("mean")
    texts = [text for pair in zip(TEXTS, TEXTS[::-1], strict=True) for text in pair]
    rows = units_of([tiny.tokenizer().encode(text).ids for text in texts])
    every = softmax(torch_logits(made.model, rows))
    threshold = float(np.median(every[:, 0].max(axis=-1))) + 1e-4
    sure = every.max(axis=-1) >= threshold
    sure[:, -1] = True
    exits = sure.argmax(axis=1)
    assert len(set(exits.tolist())) > 1
    pipeline = loaded(made, tmp_path, "mean", False)
    found = pipeline.with_exit_policy(MaxProbability(threshold)).predict(texts)
    np.testing.assert_array_equal(found.routes.exit_layer, np.array(made.model.layers)[exits])
    np.testing.assert_allclose(found.probabilities, every[np.arange(len(texts)), exits], atol=1e-5, rtol=0)

"""`cascade-train --task tagging` from end to end on tiny models: it learns, refuses, and leaves plain folders."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForTokenClassification

from cascade.training import checkpoint as checkpoints
from cascade.training.models.static_tagger import StaticForTokenClassification
from cascade.training.models.students import StaticTagger, Transformer
from cascade.training.models.tagging import MultiExitTagger
from cascade.training.tag_encoding import WordTokenizer
from tests.models import tiny
from tests.training.test_commands import Done, train, write
from tests.training.test_tagging import fine_tuned

NOUNS, VERBS, OTHERS = ("film", "story", "plot", "actor"), ("is", "was", "laugh", "cry"), ("the", "a", "very", "not")
SENTENCES = [
    {"tokens": [first, noun, verb, last], "tags": ["X", "NOUN", "VERB", "X"]}
    for first in OTHERS[:2]
    for noun in NOUNS
    for verb in VERBS
    for last in OTHERS[2:]
]
SPANS = [
    {"tokens": [first, "good", noun, verb], "tags": ["O", "B-thing", "I-thing", "O"]}
    for first in OTHERS
    for noun in NOUNS
    for verb in VERBS
]


@pytest.fixture
def sentences(tmp_path: Path) -> Path:
    return write(tmp_path / "sentences.jsonl", SENTENCES)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A pre-trained backbone as the Hub has them."""
    return tiny.backbone(tmp_path / "checkpoint")


def exits(checkpoint: Path, sentences: Path, output: Path, *more: object) -> Done:
    return train(
        *("exits", checkpoint, "--task", "tagging", "--train", sentences, "--eval", sentences, "--output", output),
        *("--epochs", 4, "--batch-size", 8, "--learning-rate", 1e-2, "--head-factor", 1, *more),
    )


def test_exits_learn_and_leave_a_report(checkpoint: Path, sentences: Path, tmp_path: Path) -> None:
    result = exits(checkpoint, sentences, tmp_path / "out", "--vocabulary", 140)
    assert result.status == 0, result.output
    report = json.loads((tmp_path / "out" / "training.json").read_text())
    assert report["scores"]["layer_3"] >= 0.95
    assert {"layer_1", "layer_2", "layer_3", "mean_of_exits"} == report["scores"].keys()
    assert (report["rows"], report["words"]) == (len(SENTENCES), 4 * len(SENTENCES))
    assert "epoch 1.00  layer 1" in result.output
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["cascade_exits"] == {"task": "token-classification", "layers": [1, 2, 3]}
    model = MultiExitTagger.from_pretrained(tmp_path / "out")
    assert model.labels == ("NOUN", "VERB", "X")
    assert model.backbone.get_input_embeddings().weight.shape == (140, 16)
    assert len(json.loads((tmp_path / "out" / "tokenizer.json").read_text())["model"]["vocab"]) == 140


def test_spans_are_chosen_by_entity_f1(checkpoint: Path, tmp_path: Path) -> None:
    spans = write(tmp_path / "spans.jsonl", SPANS)
    result = exits(checkpoint, spans, tmp_path / "out", "--epochs", 12, "--dropout", 0)
    assert result.status == 0, result.output
    assert json.loads((tmp_path / "out" / "training.json").read_text())["scores"]["entity_f1"] >= 0.95
    assert MultiExitTagger.from_pretrained(tmp_path / "out").labels == ("O", "B-thing", "I-thing")


@pytest.mark.parametrize("kind", ["static", "transformer"])
def test_a_first_tier_imitates_its_teacher(kind: str, checkpoint: Path, sentences: Path, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher"
    assert exits(checkpoint, sentences, teacher).status == 0
    extra = write(tmp_path / "extra.jsonl", [{"tokens": ["they", "laugh"]}] * 3)
    result = train(
        *("first-tier", teacher, "--task", "tagging", "--train", sentences, "--eval", sentences),
        *("--extra-text", extra, "--output", tmp_path / "tier1", "--kind", kind, "--layers", 1, "--width", 8),
        *("--hidden", 8, "--epochs", 12, "--batch-size", 16, "--learning-rate", 5e-3, "--copies", 1),
    )
    assert result.status == 0, result.output
    report = json.loads((tmp_path / "tier1" / "training.json").read_text())
    assert report["scores"]["accuracy"] >= 0.95
    assert report["rows"] == 2 * (len(SENTENCES) + 3)
    loader: Any = StaticForTokenClassification if kind == "static" else AutoModelForTokenClassification
    model = loader.from_pretrained(tmp_path / "tier1")
    assert [model.config.id2label[i] for i in range(3)] == ["NOUN", "VERB", "X"]
    assert (tmp_path / "tier1" / "tokenizer.json").exists()


def test_a_fine_tuned_tagger_needs_no_tags(tmp_path: Path) -> None:
    """Its labels come from its `config.json`; full depth answers as it does."""
    stock = tmp_path / "stock"
    model = fine_tuned("bert", stock)
    tiny.save_tokenizer(stock)
    words = write(tmp_path / "words.jsonl", [{"tokens": row["tokens"]} for row in SENTENCES])
    common = ("--task", "tagging", "--train", words, "--epochs", 1)
    done = train("exits", stock, *common, "--objective", "distil", "--output", tmp_path / "tier2")
    assert done.status == 0, done.output
    tagger = MultiExitTagger.from_pretrained(tmp_path / "tier2")
    assert tagger.labels == tiny.TAGS
    ids = torch.tensor([[2, *range(131, 141), 3]])
    with torch.inference_mode():
        found = tagger(ids, torch.ones_like(ids))["logits"][:, -1]
        torch.testing.assert_close(found, model(ids).logits, atol=1e-5, rtol=1e-5)
    done = train("first-tier", tmp_path / "tier2", *common, "--output", tmp_path / "tier1")
    assert done.status == 0, done.output
    assert "not every sentence has tags" in done.output


def test_a_bundle_of_options(checkpoint: Path, tmp_path: Path) -> None:
    renamed = [{"words": row["tokens"], "pos": row["tags"]} for row in SENTENCES] + [{"words": ["a"], "pos": ["X"]}]
    rows = write(tmp_path / "rows.jsonl", renamed)
    result = exits(
        checkpoint, rows, tmp_path / "out", "--tokens-column", "words", "--tags-column", "pos", "--min-words", 2,
        "--exits", "1,3", "--layer-weights", "1,3", "--self-distil", 0.5, "--label-smoothing", 0.1, "--average", 0.5,
        "--max-length", 4, "--epochs", 1,
    )  # fmt: skip
    assert result.status == 0, result.output
    report = json.loads((tmp_path / "out" / "training.json").read_text())
    assert report["rows"] == len(SENTENCES)
    assert report["options"]["max_length"] == 4
    assert report["objectives"] == ["Joint(weights=(1.0, 3.0), distil=0.5, smoothing=0.1)"]
    assert MultiExitTagger.from_pretrained(tmp_path / "out").layers == (1, 3)


@pytest.mark.parametrize("objective", ["two-stage", "distil"])
def test_a_frozen_backbone_answers_as_before(objective: str, sentences: Path, tmp_path: Path) -> None:
    before = tiny.tagger(tmp_path / "tagger")
    rows = sentences
    if objective == "distil":  # which reads no tags
        rows = write(tmp_path / "untagged.jsonl", [{"tokens": row["tokens"]} for row in SENTENCES])
    result = train(
        *("exits", tmp_path / "tagger", "--task", "tagging", "--train", rows, "--eval", sentences, "--epochs", 1),
        *("--output", tmp_path / "out", "--objective", objective, "--learning-rate", 1e-3),
    )
    assert result.status == 0, result.output
    after = MultiExitTagger.from_pretrained(tmp_path / "out")
    weights = dict(before.state_dict())
    moved = {name for name, tensor in after.state_dict().items() if not torch.equal(weights[name], tensor)}
    if objective == "two-stage":
        assert {"heads.0.weight", "heads.2.weight"} < moved  # the first stage moved everything
    else:
        assert moved == {f"heads.{number}.{name}" for number in (0, 1) for name in ("weight", "bias")}


def test_the_same_seed_gives_the_same_weights(checkpoint: Path, sentences: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert exits(checkpoint, sentences, tmp_path / name, "--seed", seed, "--epochs", 1).status == 0
    a, b, c = (load_file(tmp_path / name / "model.safetensors") for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


@pytest.mark.parametrize("family", ["roberta", "electra", "distilbert", "albert"])
def test_other_families(family: str, sentences: Path, tmp_path: Path) -> None:
    folder = tiny.backbone(tmp_path / "backbone", family)
    result = exits(folder, sentences, tmp_path / "out", "--epochs", 1)
    assert result.status == 0, result.output
    assert MultiExitTagger.from_pretrained(tmp_path / "out").config.model_type == family


def test_transformers_reads_byte_level_words_as_training_did(tmp_path: Path) -> None:
    inner = Tokenizer(models.BPE({piece: number for number, piece in enumerate(["<unk>", "Ġ", "a", "<s>"])}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "tokenizer_config.json").write_text('{"add_prefix_space": false, "kept": 1}')
    checkpoints.publish(
        tmp_path / "out",
        save=lambda _folder: None,
        tokenizer=WordTokenizer(inner.to_str()).text,
        source=tmp_path / "source",
        report={},
    )
    written = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert written == {"add_prefix_space": True, "kept": 1}


def test_frozen_embeddings_stay(sentences: Path, tmp_path: Path) -> None:
    teacher = tiny.tagger(tmp_path / "teacher")
    for kind, name in (("static", "embeddings.weight"), ("transformer", "bert.embeddings.word_embeddings.weight")):
        result = train(
            *("first-tier", tmp_path / "teacher", "--task", "tagging", "--train", sentences, "--kind", kind),
            *("--output", tmp_path / kind, "--layers", 1, "--width", 16, "--epochs", 1, "--freeze-embeddings"),
        )
        assert result.status == 0, result.output
        found = load_file(tmp_path / kind / "model.safetensors")[name]
        student: Any = (StaticTagger(width=16) if kind == "static" else Transformer(layers=1, width=16)).build_tagger(
            teacher
        )
        torch.testing.assert_close(found, student.get_input_embeddings().weight)


def test_a_resumed_first_tier_does_not_ask_its_teacher_again(sentences: Path, tmp_path: Path) -> None:
    tiny.tagger(tmp_path / "teacher")
    arguments = (
        *("first-tier", tmp_path / "teacher", "--task", "tagging", "--train", sentences, "--width", 8, "--copies", 1),
        *("--output", tmp_path / "out"),
    )
    assert train(*arguments, "--epochs", 1).status == 0
    kept = tmp_path / "out" / "run" / "teacher.npy"
    known = np.load(kept)
    assert known.shape == (2 * 4 * len(SENTENCES), 3)
    np.save(kept, np.zeros_like(known))
    resumed = train(*arguments, "--epochs", 2, "--resume")
    assert resumed.status == 0, resumed.output
    assert not np.load(kept).any()


BAD = [
    ([{"tokens": ["a"], "tags": ["X"]}], "the training data must have at least two tags, have: ['X']"),
    ([{"tokens": ["a", "b"], "tags": ["X"]}], "line 1: there must be one tag per word"),
    ([{"tokens": ["a"]}], "line 1: there must be a column 'tags'"),
]


@pytest.mark.parametrize(("records", "message"), BAD)
def test_bad_rows_are_named(records: list[dict[str, Any]], message: str, checkpoint: Path, tmp_path: Path) -> None:
    rows = write(tmp_path / "bad.jsonl", records)
    result = train("exits", checkpoint, "--task", "tagging", "--train", rows, "--output", tmp_path / "out")
    assert result.status == 2
    assert result.output.startswith("Error: ")
    assert message in result.output
    assert result.output.count("\n") == 1
    assert not (tmp_path / "out" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pooling", "mean"], "--pooling must be left out of --task tagging, was: mean"),
        (["--multi-label"], "--multi-label must be left out of --task tagging, was: True"),
        (["--min-words", "9"], "--min-words 9 leaves no training sentence; lower it"),
        (["--max-length", "2"], "--max-length must leave room for a word, at least 3, was: 2"),
        (["--vocabulary", "3"], "--vocabulary must be at least"),
    ],
)
def test_bad_options(arguments: list[str], message: str, checkpoint: Path, sentences: Path, tmp_path: Path) -> None:
    result = exits(checkpoint, sentences, tmp_path / "out", *arguments)
    assert result.status == 2
    assert message in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--imitation", "2"], "imitation must be in [0, 1], was: 2"),
        (["--temperature", "0"], "temperature must be above 0, was: 0"),
        (["--hidden-layers", "0"], "layers of a static tagger must be at least 1, was: 0"),
        (["--reach", "-1"], "reach of a static tagger must be at least 0, was: -1"),
        (["--kind", "transformer", "--layers", "9"], "--layers must be 1 to 3, was: 9"),
    ],
)
def test_bad_first_tier_options(arguments: list[str], message: str, sentences: Path, tmp_path: Path) -> None:
    tiny.tagger(tmp_path / "teacher")
    result = train(
        *("first-tier", tmp_path / "teacher", "--task", "tagging", "--train", sentences),
        *("--output", tmp_path / "out", *arguments),
    )
    assert result.status == 2
    assert message in result.output


def test_a_teacher_for_the_other_task_is_refused(sentences: Path, tmp_path: Path) -> None:
    tiny.tier2(tmp_path / "teacher")
    result = train(
        *("first-tier", tmp_path / "teacher", "--task", "tagging", "--train", sentences, "--output", tmp_path / "out")
    )
    assert result.status == 2
    assert "must hold a multi-exit model for token-classification, was for: text-classification" in result.output


def test_tags_of_the_evaluation_must_be_known(checkpoint: Path, sentences: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.jsonl", [{"tokens": ["good"], "tags": ["ADJ"]}])
    result = train(
        *("exits", checkpoint, "--task", "tagging", "--train", sentences, "--eval", other),
        *("--output", tmp_path / "out"),
    )
    assert result.status == 2
    assert "sentence 1 has the tag 'ADJ', which the model's labels do not have" in result.output


def test_entity_f1_needs_seqeval(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "seqeval.metrics", None)
    spans = write(tmp_path / "spans.jsonl", SPANS)
    result = exits(checkpoint, spans, tmp_path / "out")
    assert result.status == 2
    assert 'needs seqeval, which is not installed; pip install "cascade-encoder[train]"' in result.output


def test_self_sample_help_has_an_example() -> None:
    assert "Example:" in train("self-sample", "--help").output

"""`cascade-train --task tagging` from end to end on tiny models: it learns, refuses, and leaves plain folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForTokenClassification

from cascade.training.static_tagger import StaticForTokenClassification
from cascade.training.tagging import MultiExitTagger
from tests import tiny
from tests.test_training_commands import Done, train, write

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

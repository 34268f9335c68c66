"""From examples to rows, batches and units: label numbers, cuts, padding, one pass over all units, metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from cascade.core.rows import Units
from cascade.exceptions import DataError
from cascade.training.checkpoint import spaced
from cascade.training.data import (
    NO_LABEL,
    Examples,
    Item,
    TrainingRows,
    encode_sentences,
    encode_texts,
    grids,
    has_labels,
    rows_of,
    tokenizer_of,
)
from cascade.training.units import TOKENS, UnitMetrics, exit_grid, over_units, unit_logits
from tests.models import tiny
from tests.training.commands import Case

TOKENIZER = tokenizer_of(tiny.tokenizer().to_str(), max_length=64)
SHORT = tokenizer_of(tiny.tokenizer().to_str(), max_length=7)


def texts_of(labels: Any, ids: Any = ((2,), (2,)), types: Any = None) -> TrainingRows:
    return TrainingRows(Units.whole(rows_of(ids, types)), {"labels": np.array(labels)})


def lists(rows: TrainingRows, values: Any) -> list[list[int]]:
    return [own.tolist() for own in np.split(values, rows.units.rows.offsets[1:-1])]


def test_texts_are_one_row_each_cut_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    texts: list[Item] = ["the film is good and we laugh", "bad", ("the film is", "good and dull")]
    rows = encode_texts(SHORT, Examples(texts, ["b", "a", "a"], "here"), ["a", "b"])
    inner = tiny.tokenizer()
    inner.enable_truncation(7)
    wanted = inner.encode_batch(texts)
    assert "2 of 3 texts are cut at --max-length 7 in training" in capsys.readouterr().out
    assert lists(rows, rows.units.rows.ids) == [encoding.ids for encoding in wanted]
    assert lists(rows, rows.units.rows.types) == [encoding.type_ids for encoding in wanted]
    assert rows.targets["labels"].tolist() == [1, 0, 0]
    bare = encode_texts(SHORT, Examples(texts[:2], None, "here"), ["a", "b"])
    assert bare.targets["labels"].tolist() == [NO_LABEL, NO_LABEL]


def test_several_labels_and_numbers_for_default_names() -> None:
    several = Examples(["x", "y"], [("a", "b"), ()], "here")
    assert encode_texts(TOKENIZER, several, ["a", "b"], multi_label=True).targets["labels"].tolist() == [[1, 1], [0, 0]]
    with pytest.raises(DataError, match="here: example 1 must have one label, got 2; correct it, or train with"):
        encode_texts(TOKENIZER, several, ["a", "b"])
    numbered = Examples(["x", "y"], ["1", "LABEL_0"], "here")
    assert encode_texts(TOKENIZER, numbered, ["LABEL_0", "LABEL_1"]).targets["labels"].tolist() == [1, 0]


def test_a_0_or_1_for_each_label() -> None:
    def targets(labels: list[Any], names: list[str]) -> Any:
        return encode_texts(TOKENIZER, Examples(["x", "y"], labels, "here"), names, multi_label=True).targets["labels"]

    assert targets([("0", "1"), ("1", "1")], ["0", "1"]).tolist() == [[0, 1], [1, 1]]
    assert targets([("0", "1", "0"), ("1", "1", "0")], ["a", "b", "c"]).tolist() == [[0, 1, 0], [1, 1, 0]]
    assert targets(["0", "1"], ["LABEL_0"]).tolist() == [[0], [1]]
    assert targets([("0", "1"), ("1",)], ["LABEL_0", "LABEL_1"]).tolist() == [[1, 1], [0, 1]]  # not all: numbers
    with pytest.raises(DataError, match=r"labels once, .* or a 0 or 1 for each of the 3 labels"):
        targets([("0", "1", "0"), ("1",)], ["LABEL_0", "LABEL_1", "LABEL_2"])


def test_numbers_of_a_regression() -> None:
    found = encode_texts(TOKENIZER, Examples(["x", "y"], ["-100", ("2.5",)], "here"), ["y"]).targets["labels"]
    assert (found.dtype, found.tolist()) == (np.float32, [-100, 2.5])
    bare = encode_texts(TOKENIZER, Examples(["x"], None, "here"), ["y"]).targets["labels"]
    assert has_labels(torch.from_numpy(np.append(found, bare))).tolist() == [True, True, False]
    for bad in ("good", "nan", ("1", "2")):
        with pytest.raises(DataError, match="here: example 1 must have a number, because the model is a regression"):
            encode_texts(TOKENIZER, Examples(["x"], [bad], "here"), ["y"])
    metrics = UnitMetrics(["y"], (1, 2))
    answers = metrics.answers(torch.tensor([[[0.0], [1.0]], [[0.0], [3.0]]])).numpy()
    scores = metrics(answers, texts_of([1.0, 3.0]))
    assert scores == pytest.approx({"layer_1": -4, "layer_2": 1, "mean_of_exits": -1.5})  # 1 - (1 + 9) / 2 / 1


def test_sentences_know_where_words_begin_and_are_cut_between_them() -> None:
    words = ["the", "xyz", "film", "x" * 40, "a", "it"]
    tags = ("X", "VERB", "NOUN", "VERB", "X", "NOUN")
    rows = encode_sentences(SHORT, Examples([words], [tags], "rows"), tiny.TAGS)
    ids = lists(rows, rows.units.rows.ids)
    assert [len(row) - 2 for row in ids] == [5, 5, 2]  # 1 + 3 + 1 tokens, then 40 cut to 5, then 1 + 1
    assert all(row[0] == 2 and row[-1] == 3 for row in ids)
    assert grids(rows, padding=0)["is_first"][0].tolist() == [0, 1, 1, 0, 0, 1, 0]
    assert rows.units.counts.tolist() == [3, 1, 2]
    assert [tiny.TAGS[label] for label in rows.targets["labels"]] == list(tags)
    with pytest.raises(DataError, match=r"rows: example 1 has the label 'Y', which the model does not have \(3 labels"):
        encode_sentences(SHORT, Examples([["a"]], [("Y",)], "rows"), tiny.TAGS)


def test_byte_level_words_begin_with_a_space() -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: number for number, piece in enumerate(["<s>", "</s>", "<unk>", *alphabet])}
    inner = Tokenizer(models.BPE(vocabulary, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0), add_prefix_space=False)
    text = spaced(inner.to_str())
    rows = encode_sentences(tokenizer_of(text, max_length=9), Examples([["ab", "b"]], None, "here"), ["x"])
    assert [Tokenizer.from_str(text).id_to_token(number) for number in rows.units.rows.ids[1:-1]] == [
        "Ġ",
        "a",
        "b",
        "Ġ",
        "b",
    ]


def test_padding() -> None:
    batch = grids(texts_of([1, 0], [[5, 6, 7], [8]], [[0, 0, 1], [0]]), padding=9)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 1], [0, 0, 0]]
    assert batch["labels"].tolist() == [1, 0]
    units = Units(rows_of([[5, 6], [8]]), np.array([1, 2]), np.array([1, 1]), np.array([0, 1, 2]))
    tagged = TrainingRows(units, {"labels": np.array([2, 1])}).with_target("own", np.array([[1.0], [2.0]]))
    batch = grids(tagged.select(np.array([1, 0])), padding=9)
    assert "token_type_ids" not in batch
    assert batch["is_first"].tolist() == [[True, False], [False, True]]
    assert (batch["labels"].tolist(), batch["own"].tolist()) == ([1, 2], [[2.0], [1.0]])


def test_the_digest_tells_rows_apart() -> None:
    def rows(ids: list[list[int]], labels: list[int]) -> str:
        return texts_of(labels, ids).digest()

    same = rows([[1, 2], [3]], [0, 1])
    assert same == rows([[1, 2], [3]], [0, 1])
    assert len({same, rows([[1], [2, 3]], [0, 1]), rows([[1, 2], [3]], [1, 0]), rows([[1, 2], [4]], [0, 1])}) == 4


def test_one_pass_over_all_units_keeps_their_order(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TOKENS, "cpu", 12)
    model: Any = case.teacher(tmp_path)
    encode = encode_texts if case.name == "classification" else encode_sentences
    items: list[Item] = [row[case.item] for row in case.rows[:5]]
    items.append("good" if case.name == "classification" else ["unbright", "film"])  # another length
    rows = encode(TOKENIZER, Examples(items, None, "here"), model.labels)
    found = over_units(model, rows, read=lambda logits: logits)
    assert found.shape == (len(rows.units), 3, len(model.labels))
    for row, own in enumerate(np.split(found, rows.units.offsets[1:-1])):
        batch = grids(rows.select(np.array([row])), padding=0)
        with torch.inference_mode():
            alone = unit_logits(model(batch["input_ids"], batch["attention_mask"])["logits"], batch)
        np.testing.assert_allclose(own.reshape(alone.shape), alone.numpy(), atol=1e-5)


def test_metrics_count_units_and_entities() -> None:
    """Two sentences of three and two words; the first entity is found whole, the second missed."""
    units = Units(rows_of([[5] * 5, [5] * 3]), np.array([1, 2, 4, 6, 7]), np.ones(5, np.int64), np.array([0, 3, 5]))
    rows = TrainingRows(units, {"labels": np.array([1, 2, 0, 1, 0])})
    answers = np.array([[0, 1], [0, 2], [0, 0], [0, 0], [0, 0]])
    metrics = UnitMetrics(("O", "B-a", "I-a"), (1, 2), spans=True)
    assert metrics(answers, rows) == pytest.approx(
        {"layer_1": 2 / 5, "layer_2": 4 / 5, "mean_of_exits": 3 / 5, "entity_f1": 2 / 3}  # precision 1, recall 1/2
    )
    assert metrics.best == "entity_f1"
    logits = torch.nn.functional.one_hot(torch.from_numpy(answers), 3)
    assert metrics.answers(logits).tolist() == answers.tolist()


def test_metrics_of_texts() -> None:
    logits = torch.tensor([[[1.0, -1.0], [1.0, 2.0]], [[-1.0, -2.0], [3.0, 4.0]]])  # two texts, two exits
    single, several = UnitMetrics("ab", (1, 3)), UnitMetrics("ab", multi_label=True)  # the latter without exits
    found = single(single.answers(logits).numpy(), texts_of([0, 1]))
    assert found == {"layer_1": 0.5, "layer_3": 0.5, "mean_of_exits": 0.5}
    rows = texts_of([[1.0, 1.0], [0.0, 1.0]])
    assert several(several.answers(logits[:, 1:]).numpy(), rows) == {"accuracy": 0.5}
    assert (single.best, several.best, UnitMetrics("ab", (1, 3), frozen=True).best) == (
        "layer_3", "accuracy", "mean_of_exits",
    )  # fmt: skip


def test_pieces_stop_with_their_word_and_special_tokens_never() -> None:
    rows = rows_of([[5] * 7, [5] * 5])
    units = Units(rows, np.array([1, 3, 8, 9, 10]), np.array([2, 3, 1, 1, 1]), np.array([0, 2, 5]))
    found = exit_grid(units, np.array([0, 1, 2, 0, 1]), (1, 2, 6))
    assert found.tolist() == [[6, 1, 1, 2, 2, 2, 6], [6, 6, 1, 2, 6, 6, 6]]

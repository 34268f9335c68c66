"""The multi-exit tagger: heads are kept, tokens halt and are copied, checkpoints round-trip, data are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer as Inner
from tokenizers import models, pre_tokenizers, processors
from torch import Tensor
from transformers import AutoModel, AutoModelForTokenClassification, EvalPrediction

from cascade.exceptions import CascadeError, DataError, OptionError
from cascade.text.tokenizer import Tokenizer
from cascade.text.word_encoding import encode_words
from cascade.training import tag_data
from cascade.training.models.multi_exit import MultiExitModel
from cascade.training.models.tagging import MultiExitTagger
from cascade.training.recipes.tag_exits import tag_metrics
from cascade.training.recipes.word_pass import over_words, split_words, word_logits
from cascade.training.tag_data import Sentences, TagColumns
from cascade.training.tag_encoding import NO_LABEL, PadTags, WordTokenizer, encode
from tests.models import tiny
from tests.training.test_commands import write

IDS = torch.tensor([[2, 40, 50, 60, 61, 3], [2, 70, 71, 3, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
EXIT_LAYERS = torch.tensor([[3, 1, 2, 2, 3, 3], [3, 1, 1, 3, 3, 3]])
REAL = MASK.bool()


def logits_of(model: torch.nn.Module, exit_layers: Tensor | None = None) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = model(IDS, MASK, exit_layers=exit_layers)["logits"]
    return logits


def fine_tuned(family: str, folder: Path) -> torch.nn.Module:
    """A stock tagger of this family in `folder`."""
    torch.manual_seed(5)
    config = tiny.config(family)
    config.id2label = dict(enumerate(tiny.TAGS))
    config.label2id = {label: i for i, label in enumerate(tiny.TAGS)}
    model: Any = AutoModelForTokenClassification.from_config(config)
    tiny.spread(model)
    model.eval().save_pretrained(folder)
    return model  # type: ignore[no-any-return]  # transformers types in parts only


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_fine_tuned_head_becomes_the_last_exit(family: str, tmp_path: Path) -> None:
    stock = fine_tuned(family, tmp_path)
    # The data lack a label and have the others in another order: the checkpoint's stay.
    model = MultiExitTagger.from_checkpoint(tmp_path, labels=["X", "NOUN"]).eval()
    assert model.labels == tiny.TAGS
    with torch.inference_mode():
        wanted = stock(input_ids=IDS, attention_mask=MASK).logits
    found = logits_of(model)
    assert found.shape == (2, 3, 6, 3)
    torch.testing.assert_close(found[:, -1], wanted, atol=1e-5, rtol=1e-5)


def test_labels_that_a_checkpoint_does_not_have(tmp_path: Path) -> None:
    fine_tuned("bert", tmp_path / "stock")
    tiny.tagger(tmp_path / "multi")
    for name in ("stock", "multi"):
        with pytest.raises(DataError, match=r"must be among the checkpoint's, \['NOUN', 'VERB', 'X'\], but .*: Y; ren"):
            MultiExitTagger.from_checkpoint(tmp_path / name, labels=["X", "Y"])


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_round_trip(family: str, tmp_path: Path) -> None:
    model = tiny.tagger(tmp_path, family, layers=(1, 3))
    again = MultiExitTagger.from_pretrained(tmp_path)
    torch.testing.assert_close(logits_of(again), logits_of(model))
    assert (again.layers, again.labels) == ((1, 3), tiny.TAGS)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["cascade_exits"] == {"task": "token-classification", "layers": [1, 3]}
    on = MultiExitTagger.from_checkpoint(tmp_path, labels=tiny.TAGS, dropout=0.25)
    assert on.config.attention_dropout if family == "distilbert" else on.config.hidden_dropout_prob == 0.25


def test_the_other_task_is_refused(tmp_path: Path) -> None:
    tiny.tagger(tmp_path / "tagger")
    tiny.tier2(tmp_path / "classifier")
    with pytest.raises(OptionError, match="model for text-classification, was for: token-classification; choose its"):
        MultiExitModel.from_pretrained(tmp_path / "tagger")
    with pytest.raises(OptionError, match="make one with cascade-train exits --task tagging"):
        MultiExitTagger.from_pretrained(tmp_path / "classifier")


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_at_full_depth_halting_changes_nothing(family: str, tmp_path: Path) -> None:
    model = tiny.tagger(tmp_path, family)
    torch.testing.assert_close(logits_of(model, torch.full_like(IDS, 3)), logits_of(model), atol=0, rtol=0)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_halted_tokens_keep_their_state(family: str, tmp_path: Path) -> None:
    model = tiny.tagger(tmp_path, family)
    with torch.inference_mode():
        free = model.states(IDS, MASK, None)
        states = model.states(IDS, MASK, None, EXIT_LAYERS)
    torch.testing.assert_close(states[0], free[0])
    torch.testing.assert_close(states[1], free[1])  # everything is active in layer 1
    for layer in (2, 3):
        halted = ~(layer <= EXIT_LAYERS) & REAL
        active = (layer <= EXIT_LAYERS) & REAL
        assert torch.equal(states[layer][halted], states[layer - 1][halted])
        assert not torch.isclose(states[layer][active], states[layer - 1][active]).all(-1).any()
    # Layer 2 still sees what layer 1 made of everything; only layer 3 sees old states.
    active = (EXIT_LAYERS >= 2) & REAL
    torch.testing.assert_close(states[2][active], free[2][active])
    assert not torch.allclose(states[3][(EXIT_LAYERS == 3) & REAL], free[3][(EXIT_LAYERS == 3) & REAL], atol=1e-3)


def test_halting_by_hand(tmp_path: Path) -> None:
    """BERT's layers one by one: active tokens ask, every token's last state is asked about."""
    model = tiny.tagger(tmp_path, "bert")
    encoder: Any = model.backbone.encoder
    embeddings: Any = model.backbone.embeddings
    with torch.inference_mode():
        for row, length in enumerate((6, 4)):
            state = embeddings(input_ids=IDS[row : row + 1, :length])[0]
            for number, layer in enumerate(encoder.layer, start=1):
                active = torch.flatten((EXIT_LAYERS[row, :length] >= number).nonzero())
                attention = layer.attention.self
                heads = (-1, attention.num_attention_heads, attention.attention_head_size)
                query = attention.query(state[active]).view(heads)
                key, value = (part(state).view(heads) for part in (attention.key, attention.value))
                scores = torch.einsum("qhd,khd->hqk", query, key) / heads[2] ** 0.5
                context = torch.einsum("hqk,khd->qhd", scores.softmax(-1), value).flatten(1)
                attended = layer.attention.output(context, state[active])
                state = state.index_copy(0, active, layer.output(layer.intermediate(attended), attended))
                found = logits_of(model, EXIT_LAYERS)[row, number - 1, :length]
                torch.testing.assert_close(found, model.heads[number - 1](state), atol=1e-5, rtol=1e-5)


def test_halting_ends_with_the_call(tmp_path: Path) -> None:
    model = tiny.tagger(tmp_path)
    before = logits_of(model)
    assert not torch.allclose(logits_of(model, EXIT_LAYERS), before)
    torch.testing.assert_close(logits_of(model), before, atol=0, rtol=0)
    with pytest.raises(IndexError):
        model(IDS + 10_000, MASK, exit_layers=EXIT_LAYERS)
    torch.testing.assert_close(logits_of(model), before, atol=0, rtol=0)


def test_detached_exits_and_halting_go_together(tmp_path: Path) -> None:
    model = tiny.tagger(tmp_path, layers=(1, 3))
    table: Any = model.backbone.get_input_embeddings()
    for detach in (False, True):
        model.zero_grad()
        model.detach = detach
        model(IDS, MASK, exit_layers=EXIT_LAYERS)["logits"][:, 1].pow(2).sum().backward()
        grad = table.weight.grad
        # A token that halted at layer 1 is read by the last head as it was: the exit's own gradient stops there too.
        assert (grad is None or float(grad.abs().sum()) == 0) == detach


def text() -> str:
    return str(tiny.tokenizer().to_str())


def test_words_are_tokenized_as_in_the_engine() -> None:
    words = ["film", "unbright", "\u0301", "", "a-b", "Good", "\ud800", "\u200b", "é"]
    made = WordTokenizer(text())
    assert (made.prefix, made.suffix, made.unknown) == ([2], [3], 1)
    engine = encode_words(Tokenizer(tiny.tokenizer(), max_length=64), [words])
    found = [made.pieces(word) for word in words]
    assert [piece for pieces in found for piece in pieces] == engine.rows.ids[1:-1].tolist()
    assert [len(pieces) for pieces in found] == engine.n_tokens.tolist()
    assert found[2] == found[3] == [1]


def test_byte_level_words_begin_with_a_space() -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: number for number, piece in enumerate(["<s>", "</s>", "<unk>", *alphabet])}
    inner = Inner(models.BPE(vocabulary, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0), add_prefix_space=False)
    made = WordTokenizer(inner.to_str())
    assert [Inner.from_str(made.text).id_to_token(number) for number in made.pieces("ab")] == ["Ġ", "a", "b"]
    assert made.unknown == 2


def test_encoding_knows_where_words_begin() -> None:
    sentences = Sentences(words=[["the", "unbright", "film"]], tags=[["X", "VERB", "NOUN"]], source="rows")
    rows = encode(WordTokenizer(text()), sentences, tiny.TAGS, max_length=64)
    pieces = len(WordTokenizer(text()).pieces("unbright"))
    assert pieces > 1
    assert rows.targets["firsts"][0].tolist() == [0, 1, 1, *[0] * (pieces - 1), 1, 0]
    labels = rows.targets["labels"][0]
    assert labels[rows.targets["firsts"][0]].tolist() == [2, 1, 0]
    assert (labels[~rows.targets["firsts"][0]] == NO_LABEL).all()


def test_long_sentences_are_cut_between_words_and_long_words_to_fit() -> None:
    words = ["the", "xyz", "film", "x" * 40, "a", "it"]
    tags = ["X", "VERB", "NOUN", "VERB", "X", "NOUN"]
    sentences = Sentences(words=[words], tags=[tags], source="rows")
    rows = encode(WordTokenizer(text()), sentences, tiny.TAGS, max_length=7)
    assert [len(row) - 2 for row in rows.ids] == [5, 5, 2]  # 1 + 3 + 1 pieces, then 40 cut to 5, then 1 + 1
    assert all(row[0] == 2 and row[-1] == 3 for row in rows.ids)
    found = [int(label) for labels in rows.targets["labels"] for label in labels if label != NO_LABEL]
    assert [tiny.TAGS[label] for label in found] == tags
    with pytest.raises(OptionError, match="--max-length must leave room for a word, at least 3, was: 2"):
        encode(WordTokenizer(text()), sentences, tiny.TAGS, max_length=2)


def test_an_unknown_tag_is_named() -> None:
    sentences = Sentences(words=[["a"], ["it"]], tags=[["X"], ["Y"]], source="rows.jsonl")
    with pytest.raises(DataError, match=r"rows.jsonl: sentence 2 has the tag 'Y', which the model's labels do not"):
        encode(WordTokenizer(text()), sentences, tiny.TAGS, max_length=9)


def test_one_pass_over_all_words_keeps_their_order(tmp_path: Path) -> None:
    model = tiny.tagger(tmp_path)
    words = [["the", "unbright", "film", "is"], ["good"], ["they", "never", "laugh"]]
    tags = [["X"] * len(own) for own in words]
    rows = encode(WordTokenizer(text()), Sentences(words, tags, "rows"), tiny.TAGS, max_length=64)
    found = over_words(model, rows, read=lambda logits, _labels: logits, batch_size=2)
    assert found.shape == (8, 3, 3)
    for row, own in enumerate(split_words(found, rows)):
        batch = PadTags(0)([rows[row]])
        with torch.inference_mode():
            alone = word_logits(model(batch["input_ids"], batch["attention_mask"])["logits"], batch["firsts"])
        np.testing.assert_allclose(own, alone.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ({"VERB", "NOUN"}, ["NOUN", "VERB"]),
        ({"I-b", "B-b", "O", "B-a", "I-a"}, ["O", "B-a", "I-a", "B-b", "I-b"]),
        ({"O", "X"}, ["O", "X"]),
    ],
)
def test_order_of_labels(names: set[str], wanted: list[str]) -> None:
    assert tag_data.label_names(Sentences([["a"] * len(names)], [sorted(names)], "rows")) == wanted


def test_metrics_count_words_and_entities() -> None:
    labels = ("O", "B-a", "I-a")
    wanted = np.array([[NO_LABEL, 1, 2, NO_LABEL, 0], [NO_LABEL, 1, 0, NO_LABEL, NO_LABEL]])
    answers = np.zeros((2, 5, 2), dtype=np.int64)
    answers[0, :, 1] = [2, 1, 2, 1, 0]  # the first entity whole, the second missed
    found = tag_metrics((1, 2), labels)(EvalPrediction(predictions=answers, label_ids=wanted))
    assert found == pytest.approx(
        {"layer_1": 2 / 5, "layer_2": 4 / 5, "mean_of_exits": 3 / 5, "entity_f1": 2 / 3}  # precision 1, recall 1/2
    )


def test_reading_jsonl_parquet_and_text(tmp_path: Path) -> None:
    records: list[dict[str, Any]] = [{"tokens": ["a", "film"], "tags": ["X", "NOUN"]}, {"tokens": [], "tags": []}]
    rows = write(tmp_path / "rows.jsonl", records)
    found = tag_data.read(rows)
    assert (found.words, found.tags) == ([["a", "film"]], [["X", "NOUN"]])  # a sentence without words teaches nothing
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(records), tmp_path / "rows.parquet")
    again = tag_data.read(tmp_path / "rows.parquet")
    assert (again.words, again.tags) == (found.words, found.tags)
    (tmp_path / "rows.txt").write_text("they laugh\n\nit is\n")
    plain = tag_data.read(tmp_path / "rows.txt", require_tags=False)
    assert (plain.words, plain.tags) == ([["they", "laugh"], ["it", "is"]], None)
    renamed = write(tmp_path / "renamed.jsonl", [{"words": ["a"], "pos": ["X"]}])
    assert tag_data.read(renamed, columns=TagColumns(tokens="words", tags="pos")).words == [["a"]]
    part = tag_data.read(write(tmp_path / "part.jsonl", [{"tokens": ["a"]}]), require_tags=False)
    assert part.tags is None
    assert tag_data.joined([found, part]).tags is None
    assert tag_data.joined([found, found]).tags == [["X", "NOUN"]] * 2


GOOD = {"tokens": ["a"], "tags": ["X"]}
BAD: list[tuple[list[Any], str]] = [
    ([GOOD, {"tokens": ["a", "b"], "tags": ["X"]}], "line 2: there must be one tag per word, .* 2 words, 1 tags; corr"),
    ([GOOD, {"tokens": ["a"]}], "line 2: there must be a column 'tags' with a list of tags, there was none"),
    ([GOOD, {"tags": ["X"]}], "line 2: there must be a column 'tokens' with a list of words, there was none"),
    ([GOOD, {"tokens": "a", "tags": ["X"]}], r"line 2: column 'tokens' must be a list of words, was: str \('a'\)"),
    ([GOOD, {"tokens": ["a"], "tags": [3]}], r"line 2: column 'tags' must hold strings, held: int \(3\)"),
    ([GOOD, [1]], "line 2: a line must be a JSON object"),
    ([{"tokens": [], "tags": []}], "must hold at least one sentence with words, has none"),
]


@pytest.mark.parametrize(("records", "message"), BAD)
def test_bad_lines_are_named(records: list[Any], message: str, tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.jsonl", records)
    with pytest.raises(DataError, match=message) as raised:
        tag_data.read(rows)
    assert str(rows) in str(raised.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.jsonl", "must be a file of tagged sentences, but it is missing; check the path"),
        ("folder", "must be a file of tagged sentences, but it is a folder; check the path"),
        ("rows.csv", "suffix of a file of sentences must be one of .jsonl, .ndjson, .parquet, was: rows.csv; convert"),
        ("rows.txt", "suffix of a file of sentences must be one of .jsonl, .ndjson, .parquet, was: rows.txt; convert"),
    ],
)
def test_bad_files(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "rows.csv").write_text("a")
    (tmp_path / "rows.txt").write_text("a")
    with pytest.raises(CascadeError, match=message):
        tag_data.read(tmp_path / name)


def test_other_families_are_refused() -> None:
    from transformers import GPT2Config

    other = AutoModel.from_config(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=10))
    with pytest.raises(OptionError, match=r"model_type must be one of bert, roberta, .*, got gpt2"):
        MultiExitTagger(other)

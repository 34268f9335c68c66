"""Entities, one by one against transformers' pipeline on the same tiny random models, in several scripts."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, processors
from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerFast, pipeline

from cascade.core.rows import FloatArray, IntArray
from cascade.exceptions import OptionError
from cascade.policies import decoding
from cascade.text.entities import AggregationStrategy, PieceText, aggregate, strategy_of
from cascade.text.tokenizer import Tokenizer
from cascade.text.word_encoding import encode_texts
from tests.models.words import wordpiece

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "NOUN", "X-Y-Z", "B-O")
TEXTS = (
    "The film is good!",
    "Café goodfilm, don't cry e\u0301\u0301clair   warm",
    "",
    "  ",
    "שלום עולם film مرحبا بالعالم",
    "привет 電影院 film ქართული",
    "we\tlaugh\nat the [UNK] and [SEP] 😀 zzz\u200b.",
    "it is a long story (with brackets) and 12.5% of it was not very short, but warm",
)


def plain_wordpiece() -> tokenizers.Tokenizer:
    return wordpiece(decoder=False)


def byte_level() -> tokenizers.Tokenizer:
    alphabet = ("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]", *sorted(pre_tokenizers.ByteLevel.alphabet()))
    ids = {token: number for number, token in enumerate((*alphabet, "th", "the", "fi", "Ġfi", "il"))}
    made = tokenizers.Tokenizer(models.BPE(ids, [("t", "h"), ("th", "e"), ("f", "i"), ("Ġ", "fi")], unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.post_processor = processors.RobertaProcessing(("[SEP]", 2), ("[CLS]", 0), add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"])
    return made


MAKERS = (wordpiece, plain_wordpiece, byte_level)
Pair = tuple[Tokenizer, BertForTokenClassification, Any]


@pytest.fixture(scope="module", params=MAKERS, ids=lambda maker: maker.__name__)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Our tokenizer, a tiny random model, and transformers' pipeline of both."""
    maker: Callable[[], tokenizers.Tokenizer] = request.param
    folder = tmp_path_factory.mktemp("tokenizer")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=maker(), unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    fast.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(fast),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=512,
        id2label=dict(enumerate(LABELS)),
        label2id={label: number for number, label in enumerate(LABELS)},
    )
    torch.manual_seed(3)
    model = BertForTokenClassification(config).eval()
    with torch.no_grad():
        model.classifier.weight *= 40
    contents = (folder / "tokenizer.json").read_bytes()
    ours = Tokenizer.from_bytes(contents, name="tokenizer.json", max_length=512)
    return ours, model, pipeline("token-classification", model=model, tokenizer=fast, device="cpu")


def piece_probabilities(model: BertForTokenClassification, tokenizer: Tokenizer, texts: list[str]) -> FloatArray:
    words = encode_texts(tokenizer, texts, per_piece=True).words
    logits = []
    for begin, end in zip(words.rows.offsets[:-1], words.rows.offsets[1:], strict=True):
        with torch.no_grad():
            logits.append(model(torch.tensor(words.rows.ids[begin:end])[None]).logits[0])
    answers: FloatArray = torch.cat(logits).softmax(-1).numpy()
    return answers[words.first_token]


def found(pair: Pair, texts: list[str], strategy: AggregationStrategy) -> list[list[dict[str, Any]]]:
    tokenizer, model, _ = pair
    pieces = PieceText.of(tokenizer, texts, encode_texts(tokenizer, texts, per_piece=True))
    probabilities = piece_probabilities(model, tokenizer, texts)
    if strategy is AggregationStrategy.FIRST:
        probabilities = probabilities[pieces.new]
    return aggregate(pieces, probabilities, LABELS, strategy=strategy)


def same(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    assert [list(entity) for entity in ours] == [list(entity) for entity in theirs]  # keys, in their order
    for one, other in zip(ours, theirs, strict=True):
        assert one.pop("score") == pytest.approx(float(other.pop("score")), abs=1e-5)
        assert one == other


@pytest.mark.parametrize("strategy", AggregationStrategy, ids=lambda strategy: strategy.value)
def test_entities_equal_transformers(pair: Pair, strategy: AggregationStrategy) -> None:
    made = found(pair, list(TEXTS), strategy)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a tokenizer without marks "does not support real words"
        expected = [pair[2](text, aggregation_strategy=strategy.value) for text in TEXTS]
    assert sum(map(len, made)) > 20
    for ours, other in zip(made, expected, strict=True):
        same(ours, other)


@pytest.mark.parametrize("strategy", AggregationStrategy, ids=lambda strategy: strategy.value)
def test_lone_surrogates_are_read_as_in_texts(pair: Pair, strategy: AggregationStrategy) -> None:
    odd = ["k\udb33\u07e0 film", "\udc00", "good\ud800film is \ud83d good"]
    repaired = [re.sub("[\ud800-\udfff]", "\ufffd", text) for text in odd]
    made = found(pair, odd, strategy)
    assert any(made)
    for ours, other in zip(made, found(pair, repaired, strategy), strict=True):
        same(ours, other)


def test_nothing() -> None:
    tokenizer = Tokenizer(wordpiece(), max_length=64)
    for texts in ([], [""], ["", " "]):
        pieces = PieceText.of(tokenizer, texts, encode_texts(tokenizer, texts, per_piece=True))
        none = np.zeros((0, 2), dtype=np.float32)
        for strategy in AggregationStrategy:
            assert aggregate(pieces, none, ("O", "X"), strategy=strategy) == [[] for _ in texts]


def test_a_worked_example() -> None:
    tokenizer = Tokenizer(wordpiece(), max_length=64)
    texts = ["Warm Xa story"]
    pieces = PieceText.of(tokenizer, texts, encode_texts(tokenizer, texts, per_piece=True))
    assert pieces.strings == ["warm", "x", "##a", "story"]
    assert pieces.new.tolist() == [True, True, False, True]
    labels = ("O", "B-P", "I-P")
    answers = np.array([[0.2, 0.7, 0.1], [0.2, 0.3, 0.5], [0.8, 0.1, 0.1], [0.1, 0.6, 0.3]], dtype=np.float32)
    warm = {"entity_group": "P", "word": "warm", "start": 0, "end": 4}
    both = {"entity_group": "P", "word": "warm xa", "start": 0, "end": 7}
    story = {"entity_group": "P", "word": "story", "start": 8, "end": 13}
    for strategy, chances, expected in (
        (AggregationStrategy.FIRST, answers[[0, 1, 3]], [(both, 0.6), (story, 0.6)]),
        (AggregationStrategy.AVERAGE, answers, [(warm, 0.7), (story, 0.6)]),
        (AggregationStrategy.MAX, answers, [(warm, 0.7), (story, 0.6)]),
    ):
        made = aggregate(pieces, chances, labels, strategy=strategy)[0]
        assert [entity.pop("score") for entity in made] == pytest.approx([score for _, score in expected])
        assert made == [entity for entity, _ in expected]


def test_a_decoder_decides() -> None:
    tokenizer = Tokenizer(wordpiece(), max_length=64)
    texts = ["warm story", "good"]
    pieces = PieceText.of(tokenizer, texts, encode_texts(tokenizer, texts, per_piece=True))
    chances = np.array([[0.1, 0.4, 0.5], [0.1, 0.2, 0.7], [0.6, 0.4, 0]], dtype=np.float32)
    labels = ("O", "B-P", "I-P")
    viterbi = decoding.Viterbi(labels=labels)
    most_likely = aggregate(pieces, chances, labels, strategy=AggregationStrategy.NONE, decoder=viterbi)
    assert [[entity["entity"] for entity in text] for text in most_likely] == [["B-P", "I-P"], []]
    assert [entity["score"] for entity in most_likely[0]] == pytest.approx([0.4, 0.7])

    def begins(log_probabilities: FloatArray, offsets: IntArray) -> IntArray:
        return np.ones(len(log_probabilities), dtype=np.int64)

    everywhere = aggregate(pieces, chances, labels, strategy=AggregationStrategy.SIMPLE, decoder=begins)
    assert [len(text) for text in everywhere] == [2, 1]


def test_names_of_strategies() -> None:
    assert strategy_of("first") is AggregationStrategy.FIRST
    assert strategy_of("SIMPLE") is AggregationStrategy.SIMPLE
    assert strategy_of(AggregationStrategy.MAX) is AggregationStrategy.MAX
    for wrong in ("words", None, 3):
        with pytest.raises(OptionError, match="strategy must be one of none, simple, first, average, max, got"):
            strategy_of(wrong)


@pytest.mark.parametrize(("single", "end"), [("S", "E"), ("U", "L")])
def test_bioes_and_bilou_do_not_fall_apart(single: str, end: str) -> None:
    tokenizer = Tokenizer(wordpiece(), max_length=64)
    texts = ["a b c . a b . a"]
    pieces = PieceText.of(tokenizer, texts, encode_texts(tokenizer, texts, per_piece=True))
    labels = ("O", "B-X", "I-X", f"{end}-X", f"{single}-X", f"{single}-Y", f"{end}-Z")
    numbers = [1, 2, 3, 4, 1, 3, 5, 6]  # one of three pieces, a whole one at once, one of two; types without a B or I
    answers = np.eye(len(labels), dtype=np.float32)[numbers]
    made = aggregate(pieces, answers, labels, strategy=AggregationStrategy.SIMPLE)[0]
    assert [(entity["entity_group"], entity["start"], entity["end"]) for entity in made] == [
        ("X", 0, 5),
        ("X", 6, 7),
        ("X", 8, 11),
        ("Y", 12, 13),
        ("Z", 14, 15),
    ]

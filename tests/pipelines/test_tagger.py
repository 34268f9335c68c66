"""The tagger's face: words and texts in, tags, dicts and routes out."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cascade.engine.streaming import StreamOptions
from cascade.exceptions import InputError, OptionError
from cascade.pipelines.tagger import Tagger
from cascade.policies.decoding import Viterbi, argmax
from cascade.policies.exits import AtExit, MaxProbability, never
from cascade.policies.routing import Budget, Threshold, defer_all, defer_none
from cascade.policies.unit_exits import SentenceExit, TokenExit
from cascade.policies.windows import Windows, whole_sentences
from cascade.runtime.backend import Array, FunctionBackend
from cascade.text.entities import AggregationStrategy
from cascade.text.word_encoding import encode_words
from tests.models.toy_tags import LAYERS, TAGS, tag_bundle
from tests.text import test_entities as theirs
from tests.text.test_entities import MAKERS, Pair, pair, same  # noqa: F401  # a fixture is found by its name
from tests.text.test_word_encoding import ODD

SENTENCES = [
    ["the", "film", "is", "good", "but", "long", "and", "we", "cry"],
    [],
    ["warm"],
    ["a", "goodfilm", ",", "don't", "laugh"],
    ["film"] * 60,
    ["it", "was", "never", "dull"],
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tag_bundle(tmp_path_factory.mktemp("bundles") / "entities").folder


@pytest.fixture(scope="module")
def tagger(folder: Path) -> Tagger:
    return Tagger.from_pretrained(folder, threads=1)


def test_predict(tagger: Tagger) -> None:
    answers = tagger.predict(SENTENCES)
    assert [len(tags) for tags in answers.tags] == [9, 0, 1, 5, 60, 4]
    assert answers.probabilities.shape == (79, 5)
    np.testing.assert_allclose(answers.probabilities.sum(axis=1), np.ones(79), rtol=1e-5)
    flat = [tag for tags in answers.tags for tag in tags]
    assert flat == [tagger.labels[best] for best in answers.probabilities.argmax(axis=1)]
    assert {route.tier for route in answers.routes.words} == {1, 2}
    assert set(answers.stats.exits) <= set(LAYERS)
    assert answers.stats.texts == 6
    assert list(answers.stats.seconds) == ["tokenize", "tier1", "route", "tier2", "merge", "decode"]
    assert answers.spans is None


def test_predictions_read_like_a_list(tagger: Tagger) -> None:
    answers = tagger.predict(SENTENCES)
    assert len(answers) == len(list(answers)) == 6
    assert [one.tags for one in answers] == answers.tags
    assert answers[3].probabilities.shape == (5, 5)
    assert len(answers[3].routes) == len(answers.routes[3]) == 5
    assert answers[-1].tags == answers[5].tags
    np.testing.assert_array_equal(answers[5].probabilities, answers.probabilities[-4:])
    assert answers.routes[-1] == answers.routes.words[75:]
    assert [one.tags for one in answers[2:4]] == answers.tags[2:4]
    assert [len(one) for one in answers.routes[:3]] == [9, 0, 1]
    assert answers.offsets.tolist() == [0, 9, 9, 10, 15, 75, 79]
    assert repr(answers).startswith("TagPredictions(6: [[")
    assert repr(answers.routes).startswith("SentenceRoutes(6 sentences, Routes(79: ")
    with pytest.raises(IndexError):
        answers.routes[6]
    with pytest.raises(IndexError):
        answers[6]


def test_the_whole_of_tier_2(tagger: Tagger) -> None:
    full = tagger.with_router(defer_all).with_exit_policy(never)
    answers = full.predict(SENTENCES[:3])
    words = encode_words(full.tokenizer, SENTENCES[:3])
    np.testing.assert_allclose(answers.probabilities, full.tier2.all_exits(words)[:, -1], atol=1e-5)
    assert answers.stats.exits == {3: 10}
    assert tagger.with_router(defer_all).with_exit_policy(AtExit(2)).predict(SENTENCES).stats.exits == {2: 79}


@pytest.mark.parametrize("policy", [TokenExit(0.3), TokenExit(0.3, window=3), SentenceExit(0.5), MaxProbability(0.8)])
def test_policies_for_words(tagger: Tagger, policy: Any) -> None:
    answers = tagger.with_router(defer_all).with_exit_policy(policy).predict(SENTENCES)
    assert len(answers.stats.exits) > 1
    assert sum(answers.stats.exits.values()) == 79


@pytest.mark.parametrize("strategy", AggregationStrategy, ids=lambda strategy: strategy.value)
def test_texts_equal_transformers(strategy: AggregationStrategy, pair: Pair, folder: Path) -> None:  # noqa: F811
    """The whole way: words and pieces, the engine, dicts; tier 1 is the model that the pipeline has."""
    tokenizer, model, pipeline = pair

    def run(feeds: Any) -> dict[str, Array]:
        with torch.no_grad():
            given = {name: torch.tensor(feeds[name]) for name in ("input_ids", "attention_mask")}
            return {"logits": model(**given).logits.numpy()}

    backend = FunctionBackend(run, ("input_ids", "attention_mask"), ("logits",))
    loaded = Tagger.from_pretrained(folder, threads=1).with_router(defer_none)
    manifest = replace(loaded.bundle.manifest, labels=theirs.LABELS)
    ours = replace(
        loaded,
        bundle=replace(loaded.bundle, manifest=manifest),
        tokenizer=tokenizer,
        tiers=(replace(loaded.tier1, backend=backend, labels=len(theirs.LABELS), max_length=512), loaded.tier2),
    )
    texts = list(theirs.TEXTS)
    found = ours(texts, aggregation_strategy=strategy.value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = [pipeline(text, aggregation_strategy=strategy.value) for text in texts]
    json.dumps(found)
    assert ours([texts[0]]) == [ours(texts[0])]
    assert len(ours(texts[0], aggregation_strategy=strategy)) == len(found[0])
    for one, other in zip(found, expected, strict=True):
        same(one, other)


def test_forms_of_a_call(tagger: Tagger) -> None:
    assert tagger([]) == []
    assert tagger("") == []
    assert tagger(["", " "]) == [[], []]
    assert tagger(("film", "warm")) == tagger(["film", "warm"])
    long = tagger("the film is good " * 200)
    assert max(entity["start"] for entity in long) > 3000
    with pytest.raises(OptionError, match="aggregation_strategy must be one of none, simple, first, average, max, got"):
        tagger("film", aggregation_strategy="words")
    for wrong in (None, 3, b"film", {"text": "film"}, {"film"}):
        with pytest.raises(InputError, match=r"texts must be a list of texts, got "):
            tagger(wrong)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(InputError, match=r"a text must be a string, got list as text 1; give words that are split"):
        tagger(["film", ["the", "film"]])  # type: ignore[list-item]  # wrong on purpose


def test_words_of_texts(tagger: Tagger) -> None:
    texts = ["the  goodfilm,\tשלום", "", "\u200b", "\ud83d café \ud83d\ude00 e\u0301!"]
    answers = tagger.predict_texts(texts)
    assert answers.spans is not None
    words = [[text[begin:end] for begin, end in one.spans] for text, one in zip(texts, answers, strict=True)]  # type: ignore[union-attr]  # texts have spans
    assert words == [["the", "goodfilm", ",", "שלום"], [], [], ["café", "\ud83d\ude00", "e", "!"]]
    assert [len(tags) for tags in answers.tags] == [4, 0, 0, 4]
    split = tagger.predict([["the", "goodfilm", ",", "שלום"]])
    np.testing.assert_allclose(answers[0].probabilities, split.probabilities, atol=1e-6)
    assert len(tagger.predict_texts([])) == 0


@pytest.mark.filterwarnings("ignore:pairs and words must fit")
def test_every_word_has_exactly_one_tag(tagger: Tagger) -> None:
    sentences = [ODD, [], ["!" * 5000], ["z" * 5000], ["the", *ODD, "film"], [""]]
    for router in (Threshold(0.9), Threshold(0.6), defer_all, defer_none, Budget(0.5)):
        answers = tagger.with_router(router).predict(sentences)
        assert [len(tags) for tags in answers.tags] == [len(sentence) for sentence in sentences]
        assert np.isfinite(answers.probabilities).all()
        assert (answers.probabilities.max(axis=1) > 0).all()


def test_nothing(tagger: Tagger) -> None:
    for router in (Threshold(0.9), defer_all, defer_none, Budget(0.5)):
        for count in (0, 2):
            sentences: list[list[str]] = [[] for _ in range(count)]
            answers = tagger.with_router(router).with_decoding(Viterbi(TAGS)).predict(sentences)
            assert answers.tags == sentences
            assert answers.probabilities.shape == (0, 5)
    assert list(tagger.stream([])) == []


def test_stream_reads_a_buffer_at_a_time(tagger: Tagger) -> None:
    read = 0

    def sentences() -> Iterator[list[str]]:
        nonlocal read
        for _ in range(100):
            read += 1
            yield ["film"]

    answers = tagger.stream(sentences(), options=StreamOptions(buffer_size=10, max_age=None))
    assert next(answers).tags
    assert read == 10
    assert len(list(answers)) == 99


def test_what_is_no_sentence(tagger: Tagger) -> None:
    wrong: Any
    for wrong in ("the film", 3, None, {"tokens": ["a"]}):
        for method in (tagger.predict, tagger.stream):
            with pytest.raises(InputError, match=r"sentences must be a list of lists of words, got .*; give lists"):
                method(wrong)
    for wrong in ("film", 3, None, ["a", 3]):
        with pytest.raises(InputError, match="sentence 1"):
            tagger.predict([["the"], wrong])
        with pytest.raises(InputError, match=r"sentence 1 of the stream, alone as sentence 0: a (sentence|word) must"):
            list(tagger.stream([["the"], wrong]))


def test_decoding(tagger: Tagger) -> None:
    valid = tagger.with_decoding(Viterbi(TAGS)).predict(SENTENCES * 3)
    before = {"B-PER": {"B-PER", "I-PER"}, "I-PER": {"B-PER", "I-PER"}, "B-LOC": {"B-LOC", "I-LOC"}}
    before["I-LOC"] = before["B-LOC"]
    broken = 0
    for found in (valid, tagger.predict(SENTENCES * 3)):
        for tags in found.tags:
            pairs = zip(["O", *tags], tags, strict=False)
            broken += sum(tag.startswith("I-") and last not in before[tag] for last, tag in pairs) * (found is valid)
    assert broken == 0
    assert valid.tags != tagger.predict(SENTENCES * 3).tags
    entities = tagger.with_decoding(lambda p, offsets: np.ones(len(p), dtype=np.int64))("the film")
    assert [entity["entity"] for entity in entities] == ["B-PER", "B-PER"]


def test_copies_leave_the_original_alone(tagger: Tagger) -> None:
    other = tagger.with_windows(Windows(margin=1)).with_decoding(Viterbi(TAGS))
    assert (tagger.policies.windows, tagger.decoding) == (Windows(), argmax)
    assert (other.policies.windows, other.decoding) == (Windows(margin=1), Viterbi(TAGS))
    assert tagger.with_router(Budget(0.2)).predict(SENTENCES).stats.deferred <= 16


def test_windows_decide_what_tier_2_reads(tagger: Tagger) -> None:
    whole = tagger.with_windows(whole_sentences).predict(SENTENCES)
    none = tagger.with_windows(Windows(margin=0, whole=1)).predict(SENTENCES)
    assert (whole.routes.words.tier == none.routes.words.tier).all()
    assert not np.allclose(whole.probabilities, none.probabilities)

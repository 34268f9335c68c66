"""Any texts and words are answered, all of them, in their order, and as they are alone."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import strategies as st

from cascade import Classifier, Tagger
from cascade.text.entities import AggregationStrategy
from tests.fuzz import fuzzed
from tests.fuzz.texts import text, words

pytestmark = pytest.mark.filterwarnings("ignore:pairs and words must fit:cascade.exceptions.CascadeWarning")


@pytest.fixture(scope="module", autouse=True)
def pipelines(clf: Classifier, tagger: Tagger) -> None:
    LOADED[:] = [clf, tagger]


LOADED: list[Classifier | Tagger] = []  # hypothesis takes no fixtures beside what it draws


@fuzzed(5)
def test_texts_and_pairs(rng: Random) -> None:
    classifier = LOADED[0]
    assert isinstance(classifier, Classifier)
    texts = [text(rng) if rng.randrange(4) else (text(rng), text(rng)) for _ in range(rng.randrange(1, 6))]
    found = classifier.predict(texts)
    streamed = list(classifier.stream(texts))
    assert len(found) == len(streamed) == len(texts)
    for one, answer, flowing in zip(texts, found, streamed, strict=True):
        (alone,) = classifier.predict([one])
        assert answer.label == alone.label == flowing.label
        np.testing.assert_allclose(answer.probabilities, alone.probabilities, atol=1e-5)


@fuzzed(4)
def test_words(rng: Random) -> None:
    tagger = LOADED[1]
    assert isinstance(tagger, Tagger)
    sentences = [words(rng) for _ in range(rng.randrange(1, 5))]
    found = tagger.predict(sentences)
    assert len(found) == len(sentences)
    assert [len(answer.tags) for answer in found] == [*map(len, sentences)]
    assert [answer.tags for answer in found] == [tagger.predict([one])[0].tags for one in sentences]


@fuzzed(4, st.sampled_from(AggregationStrategy))
def test_running_text(rng: Random, strategy: AggregationStrategy) -> None:
    tagger = LOADED[1]
    assert isinstance(tagger, Tagger)
    texts = [text(rng) for _ in range(rng.randrange(1, 5))]
    found = tagger.predict_texts(texts)
    streamed = list(tagger.stream_texts(texts))
    assert [answer.tags for answer in found] == [answer.tags for answer in streamed]
    for one, answer in zip(texts, found, strict=True):
        assert answer.tags == tagger.predict_texts([one])[0].tags
        assert answer.spans is not None
        assert ((answer.spans >= 0) & (answer.spans <= len(one))).all()
        assert (np.diff(answer.spans.ravel()) >= 0).all()
    for one, entities in zip(texts, tagger(texts, aggregation_strategy=strategy), strict=True):
        places = [(int(entity["start"]), int(entity["end"])) for entity in entities]
        assert all(0 <= start <= end <= len(one) for start, end in places)

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cascade.engine.streaming import StreamOptions
from cascade.pipelines.classifier import Classifier
from cascade.policies.batching import FixedSize, SortedByLength, TokenBudget
from cascade.policies.exits import AtExit, never
from cascade.policies.routing import Threshold, defer_all, defer_none
from cascade.text.texts import Text
from tests.models.toy import toy_bundle

TEXTS: list[Text] = [
    "good film",
    "bad",
    "",
    "a very dull plot it was",
    "we laugh",
    "not good not bad",
    "unheard of",
    "bright",
]
LONG = "the film was not very good " * 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_bundle(tmp_path_factory.mktemp("bundles") / "sentiment").folder


@pytest.fixture(scope="module")
def clf(folder: Path) -> Classifier:
    return Classifier.from_pretrained(folder, threads=1)


@pytest.fixture(scope="module")
def multi(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    bundle = toy_bundle(tmp_path_factory.mktemp("bundles") / "topics", labels=["a", "b", "c", "d"], multi_label=True)
    return Classifier.from_pretrained(bundle.folder, threads=1)


def test_predict(clf: Classifier) -> None:
    answers = clf.predict(TEXTS)
    assert answers.probabilities.shape == (8, 3)
    np.testing.assert_allclose(answers.probabilities.sum(axis=1), np.ones(8), rtol=1e-5)
    assert answers.labels == [clf.labels[best] for best in answers.probabilities.argmax(axis=1)]
    assert {route.tier for route in answers.routes} == {1, 2}
    assert list(answers.stats.seconds) == ["tokenize", "tier1", "route", "tier2", "merge"]
    assert (answers.stats.texts, answers.stats.units) == (8, 8)


def test_alone_or_together_in_any_batches(clf: Classifier) -> None:
    texts: list[Text] = [*TEXTS, LONG, ("good film", "bad plot")]
    expected = clf.predict(texts)
    for batching in (FixedSize(1), FixedSize(3), SortedByLength(4), TokenBudget(20), TokenBudget(9999)):
        answers = clf.with_batching(batching).predict(texts)
        np.testing.assert_allclose(answers.probabilities, expected.probabilities, atol=1e-5)
        assert answers.labels == expected.labels
    for row, text in enumerate(texts):
        np.testing.assert_allclose(clf.predict([text]).probabilities[0], expected.probabilities[row], atol=1e-5)


def test_the_forms_of_transformers(clf: Classifier) -> None:
    """As `transformers.pipeline("text-classification")` 4.57 answers."""
    best = clf.predict(["good film"])
    label, score = best.labels[0], float(best.probabilities[0].max())
    plain = {"label": label, "score": score}
    assert clf("good film") == [plain]
    assert clf(["good film"]) == [plain]
    assert clf(["good film", "good film"]) == [plain, plain]
    assert clf({"text": "good film"}) == plain
    assert clf([{"text": "good film"}]) == [plain]
    assert clf("good film", top_k=1) == [plain]
    assert clf(["good film"], top_k=1) == [[plain]]
    assert clf([]) == []
    every = clf("good film", top_k=None)
    assert sorted(row["label"] for row in every) == sorted(clf.labels)
    assert clf({"text": "good film"}, top_k=None) == every
    assert clf(["good film"], top_k=None) == [every]
    assert clf(["good film"], top_k=2) == [every[:2]]
    assert clf("good film", top_k=99) == every
    scores = [row["score"] for row in every]
    assert scores == sorted(scores, reverse=True)
    assert all(type(row["score"]) is float and type(row["label"]) is str for row in every)
    json.dumps(every)


def test_pairs(clf: Classifier) -> None:
    as_dict, as_tuple, single = clf.predict([{"text": "good", "text_pair": "bad"}, ("good", "bad"), "good bad"])
    np.testing.assert_array_equal(as_dict.probabilities, as_tuple.probabilities)
    assert not np.allclose(as_dict.probabilities, single.probabilities)
    assert clf({"text": "good", "text_pair": "bad"}) == clf([("good", "bad")])[0]


def test_long_documents_are_averaged_over_windows(clf: Classifier) -> None:
    alone = clf.with_router(defer_all).with_exit_policy(never)
    answers = alone.predict(["bad", LONG, "good"])
    encoded = alone.tokenizer.encode(["bad", LONG, "good"])
    windows = alone.cascade.score(encoded.units).probabilities
    assert len(windows) > 4
    np.testing.assert_allclose(answers.probabilities[1], windows[1:-1].mean(axis=0), rtol=1e-5)
    assert (answers.stats.texts, answers.stats.units) == (3, 3)
    assert len(answers) == 3
    assert answers.routes[1].confidence == pytest.approx(answers.probabilities[1].max())


@pytest.mark.parametrize("router", [Threshold(0.9), defer_all, defer_none])
def test_stream_equals_predict(clf: Classifier, router: Any) -> None:
    texts = [*TEXTS, LONG, *TEXTS]
    chosen = clf.with_router(router)
    expected = list(chosen.predict(texts))
    options = StreamOptions(buffer_size=3, look_ahead=5, pool_tokens=10)
    for answers in (list(chosen.stream(iter(texts))), list(chosen.stream(iter(texts), options=options))):
        assert [answer.label for answer in answers] == [answer.label for answer in expected]
        for answer, other in zip(answers, expected, strict=True):
            np.testing.assert_allclose(answer.probabilities, other.probabilities, atol=1e-5)
            assert (answer.route.tier, answer.route.exit_layer) == (other.route.tier, other.route.exit_layer)


def test_multi_label(multi: Classifier) -> None:
    answers = multi.predict(TEXTS)
    assert answers.labels == [
        tuple(label for label, p in zip("abcd", row, strict=True) if p >= 0.5) for row in answers.probabilities
    ]
    assert any(len(labels) != 1 for labels in answers.labels)
    scores = multi("good film", top_k=None)
    assert len(scores) == 4
    assert all(0 <= row["score"] <= 1 for row in scores)
    assert multi.predict([LONG]).labels[0] == next(iter(multi.stream([LONG]))).label


def test_truncation(clf: Classifier) -> None:
    answers = clf.with_router(defer_all).with_exit_policy(AtExit(2)).predict(TEXTS)
    assert answers.stats.exits == {2: 8}


def test_progress(clf: Classifier, capsys: pytest.CaptureFixture[str]) -> None:
    clf.predict(TEXTS, show_progress=True)
    assert "tier 1: 100%" in capsys.readouterr().err
    clf.predict(TEXTS)
    assert capsys.readouterr().err == ""

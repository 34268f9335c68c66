from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cascade.pipelines.classifier import Classifier
from cascade.policies.exits import AtExit, never
from cascade.policies.reading import InOrder
from cascade.policies.routing import defer_all
from cascade.text.texts import Text
from tests.models.toy import toy_bundle
from tests.pipelines.conftest import LONG

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


def test_of_long_documents_no_more_is_read_than_is_enough(clf: Classifier) -> None:
    whole = clf.with_router(defer_all).with_exit_policy(never)
    texts = ["bad", LONG, "good", f"{LONG} good"]
    some = whole.with_reading(InOrder(1e-6))
    encoded = whole.tokenizer.encode(texts)
    windows, owners = whole.cascade.score(encoded.units).probabilities, encoded.numbers
    firsts = np.searchsorted(owners, np.arange(4))
    np.testing.assert_allclose(some.predict(texts).probabilities, windows[firsts], rtol=1e-5)
    np.testing.assert_array_equal(
        whole.with_reading(InOrder(1e9)).predict(texts).probabilities, whole.predict(texts).probabilities
    )
    half = whole.with_reading(InOrder(0.5))
    answers = half.predict(texts).probabilities
    for number, text in enumerate(texts):
        np.testing.assert_allclose(half.predict([text]).probabilities[0], answers[number], rtol=1e-5)
    assert [answer.probabilities.tolist() for answer in half.stream(texts)] == answers.tolist()


def test_a_reading_policy_is_kept(clf: Classifier, tmp_path: Path) -> None:
    clf.with_reading(InOrder(0.6)).save_pretrained(tmp_path / "saved")
    with Classifier.from_pretrained(tmp_path / "saved", threads=1) as again:
        assert again.policies == clf.with_reading(InOrder(0.6)).policies
        assert again.policies.full_depth().reading is None


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

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cascade import Classifier, Tagger
from cascade.serving import tokens
from tests.serving.http import Client, near, serving

TEXTS = ["the good story", "İ \U0001f600 not bad, unbelievable film!", "", "a \ud800 film"]
STRATEGIES = ["none", "simple", "first", "average", "max"]


@pytest.fixture(scope="module")
def client(tagger: Tagger) -> Iterator[Client]:
    with serving(tagger) as made:
        yield made


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("large", [False, True])
def test_entities_are_those_of_the_pipeline(
    client: Client, tagger: Tagger, strategy: str, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "LARGE", 0 if large else 10_000)
    wanted = tagger(TEXTS, aggregation_strategy=strategy)
    body: dict[str, Any] = {"inputs": TEXTS, "aggregation_strategy": strategy}
    assert near(client.post("/predict_tokens", json=body).json(), wanted)
    assert near(client.post("/predict_tokens", json={**body, "inputs": TEXTS[0]}).json(), wanted[0])
    assert near(client.post("/", json={**body, "inputs": TEXTS[0]}).json(), wanted[0])


@pytest.mark.parametrize("strategy", ["none", "first"])
def test_routes_have_the_characters_of_each_unit(client: Client, strategy: str) -> None:
    body = {"inputs": TEXTS[:2], "aggregation_strategy": strategy, "routes": True}
    found = client.post("/predict_tokens", json=body).json()
    assert len(found["predictions"]) == len(found["routes"]) == 2
    for text, routes in zip(TEXTS, found["routes"], strict=False):
        assert set(routes[0]) == {"tier", "exit_layer", "confidence", "start", "end"}
        shown = [text[route["start"] : route["end"]] for route in routes]
        assert "".join(shown) == "".join(text.split())  # every character that is not blank, once, in order
    one = client.post("/predict_tokens", json={**body, "inputs": TEXTS[0]}).json()
    assert near(one["routes"], found["routes"][0])


def test_words_that_are_given_have_a_tag_each(client: Client, tagger: Tagger) -> None:
    sentences = [["the", "good", "story"], [], ["unbelievable"]]
    wanted = tagger.predict(sentences)
    found = client.post("/predict_tokens", json={"inputs": sentences, "routes": True}).json()
    assert [[one["entity"] for one in own] for own in found["predictions"]] == [list(own) for own in wanted.tags]
    assert [[one["word"] for one in own] for own in found["predictions"]] == sentences
    assert [one["index"] for one in found["predictions"][0]] == [0, 1, 2]
    assert list(map(len, found["routes"])) == [3, 0, 1]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"inputs": 3},
        {"inputs": [3]},
        {"inputs": ["a", ["b"]]},
        {"inputs": [["a"], "b"]},
        {"inputs": [["a", 3]]},
        {"inputs": "a", "aggregation_strategy": "best"},
        {"inputs": "a", "aggregation_strategy": 3},
        {"inputs": "a", "routes": "yes"},
    ],
)
def test_other_shapes_are_422(client: Client, body: dict[str, Any]) -> None:
    assert client.post("/predict_tokens", json=body).status_code == 422


def test_long_texts_are_cut_or_refused_as_asked(client: Client, tagger: Tagger) -> None:
    text = "the good story " * 20
    wanted = tagger(text, truncation=True)
    assert near(client.post("/predict_tokens", json={"inputs": text}).json(), wanted)
    assert client.post("/predict_tokens", json={"inputs": text, "truncate": False}).status_code == 422


def test_a_detector_of_fms_finds_what_is_above_the_threshold(clf: Classifier, tagger: Tagger) -> None:
    text = "the good story"
    with serving(tagger) as client:
        body = {"contents": [text, ""], "detector_params": {"threshold": 0.0}}
        found = client.post("/api/v1/text/contents", json=body).json()
        wanted = tagger(text, aggregation_strategy="simple")
        assert [(one["detection_type"], one["start"], one["end"]) for one in found[0]] == [
            (one["entity_group"], one["start"], one["end"]) for one in wanted
        ]
        assert [one["text"] for one in found[0]] == [text[one["start"] : one["end"]] for one in found[0]]
        assert found[1] == []
        for given in ({"threshold": "a"}, {"threshold": None}):
            assert client.post("/api/v1/text/contents", json={**body, "detector_params": given}).status_code == 422
    with serving(clf) as client:
        found = client.post("/api/v1/text/contents", json={"contents": text}).json()
        scores = dict(zip(clf.labels, clf.predict([text]).probabilities[0].tolist(), strict=True))
        assert {one["detection"] for one in found[0]} == {name for name, score in scores.items() if score >= 0.5}

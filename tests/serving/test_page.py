"""The page: its files, previews against `predict`, what it refuses; contrast of its colours."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, TypeAlias

import httpx
import numpy as np
import pytest

from cascade import Classifier, Tagger
from cascade.core.limits import Limits
from cascade.policies import AtExit, Budget, MaxProbability, Threshold, TokenExit, any_of, defer_all, never
from cascade.serving import page as module
from cascade.serving.app import App
from cascade.serving.errors import Refused
from cascade.serving.metrics import Metrics
from cascade.serving.page import FILES, knobs, tuned
from cascade.serving.served import Served
from tests.serving.http import serving
from tests.test_floors import ENGINE

FOLDER = ENGINE / "serving" / "page"
TEXTS = ["good film", "bad", "a very dull plot it was", "we laugh", "not good not bad", ""]

Ask: TypeAlias = Callable[..., httpx.Response]


class Models:
    """What the page asks of a server's models."""

    def __init__(self, **pipelines: Classifier | Tagger) -> None:
        self.limits, self.metrics, self.healthy, self.overloaded = Limits(), Metrics(), True, False
        self.batchers = {name: SimpleNamespace(served=SimpleNamespace(pipeline=own)) for name, own in pipelines.items()}

    def of(self, name: str | None) -> Any:
        if name and name not in self.batchers:
            raise Refused("no such model", 404, "Validation")
        return self.batchers[name or next(iter(self.batchers))]


def run(models: Any, *requests: Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]) -> list[httpx.Response]:
    """The responses to requests, all at once."""
    app = App([Served("texts", models.of("texts").served.pipeline)])
    app.models = models

    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://page") as client:
            return await asyncio.gather(*(request(client) for request in requests))

    return asyncio.run(ask())


@pytest.fixture(scope="module")
def served(clf: Classifier, tagger: Tagger) -> Models:
    return Models(
        texts=clf.with_router(Threshold(0.9)).with_exit_policy(MaxProbability((0.9, 0.8))),
        words=tagger.with_router(Threshold(0.9)).with_exit_policy(any_of(TokenExit(0.1), AtExit(2))),
    )


@pytest.fixture
def ask(served: Models) -> Ask:
    def ask(path: str, body: Any = None, **headers: str) -> httpx.Response:
        def request(client: httpx.AsyncClient) -> Awaitable[httpx.Response]:
            return client.get(path, headers=headers) if body is None else client.post(path, json=body)

        return run(served, request)[0]

    return ask


def test_browsers_get_the_page_and_probes_health(ask: Ask, served: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    for accept in ("*/*", "application/json", ""):
        probe = ask("/", accept=accept)
        assert (probe.status_code, probe.content) == (200, b"")
    with monkeypatch.context() as patched:
        patched.setattr(served, "healthy", False)
        assert ask("/").status_code == 503
    shown = ask("/", accept="text/html,application/xhtml+xml,*/*;q=0.8")
    assert shown.content == (FOLDER / "index.html").read_bytes()
    assert shown.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in shown.headers["content-security-policy"]
    for name, kind in (("page.js", "text/javascript"), ("page.css", "text/css")):
        found = ask(f"/page/{name}")
        assert found.content == (FOLDER / name).read_bytes()
        assert found.headers["content-type"] == f"{kind}; charset=utf-8"
        assert found.headers["x-content-type-options"] == "nosniff"
    assert ask("/page/client.py").status_code == 404


def test_nothing_in_the_page_needs_more_than_its_policy_gives() -> None:
    html = (FOLDER / "index.html").read_text(encoding="utf-8")
    assert (
        re.findall(r"<script(?! type=\"module\" src=\"page/page\.js\">)|<style|\sstyle=|\son\w+=|https?://", html) == []
    )
    script = (FOLDER / "page.js").read_text(encoding="utf-8")
    assert re.findall(r"innerHTML|eval\(|localStorage|sessionStorage|cookie", script) == []
    named = set(re.findall(r"\$\(\"(\w+)\"\)", script))
    assert named - set(re.findall(r"\bid=\"(\w[\w-]*)\"", html)) == set()
    assert len(named) > 15


def luminance(colour: str) -> float:
    """Of WCAG 2.2, of `#rgb` or `#rrggbb`."""
    digits = colour.strip("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    parts = np.array([int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_colours_are_far_enough_apart_in_light_and_in_the_dark() -> None:
    light, dark = (
        dict(re.findall(r"--(\w+): (#\w+);", block))
        for block in re.findall(r":root \{(.*?)\}", (FOLDER / "page.css").read_text(encoding="utf-8"), flags=re.DOTALL)
    )
    assert light.keys() == dark.keys()
    for colours in (light, dark):
        grounds = ["paper", "card", *(f"p{place}" for place in range(7))]
        pairs = [(text, ground) for text in ("ink", "quiet") for ground in grounds]
        pairs += [(text, ground) for text in ("accent", "bad") for ground in ("paper", "card")] + [("on", "accent")]
        for pair in pairs:
            low, high = sorted(luminance(colours[name]) for name in pair)
            assert (high + 0.05) / (low + 0.05) >= 4.5, pair


def test_what_is_served(ask: Ask) -> None:
    told = ask("/page/models").json()
    assert told["texts"] == 64
    assert [model["name"] for model in told["models"]] == ["texts", "words"]
    assert [model["tiers"] for model in told["models"]] == [[[], [1, 2, 3]]] * 2
    assert told["models"][0]["knobs"] == [
        {"kind": "defer", "tier": 1, "threshold": 0.9},
        {"kind": "exit", "tier": 2, "threshold": [0.9, 0.8]},
    ]
    assert told["models"][1]["knobs"][1] == {"kind": "exit", "tier": 2, "threshold": 0.9}


def test_counters(ask: Ask, served: Models) -> None:
    served.metrics.request("/predict", 200, 0.003)
    counters = ask("/page/live").json()["counters"]
    assert [{"method": "/predict", "code": "200"}, 1.0] in counters["cascade_requests_total"]
    assert any(labels["le"] == "+Inf" for labels, _ in counters["cascade_request_duration_seconds_bucket"])


@pytest.mark.parametrize("thresholds", [None, [None, None], [0.0, None], [1.0, None], [1.0, 0.0], [1.0, 1.0]])
def test_a_preview_answers_texts_as_predict_does(ask: Ask, served: Models, thresholds: Any) -> None:
    clf = served.of("texts").served.pipeline
    told = ask("/page/preview", {"inputs": TEXTS, "thresholds": thresholds}).json()
    answers: Any = tuned(clf, thresholds).predict(TEXTS)
    assert [[scores[0][0], *route] for scores, *route in told["answers"]] == [
        [one.label, one.route.tier, one.route.exit_layer, pytest.approx(one.route.confidence)] for one in answers
    ]
    assert told["tokens"] == answers.stats.tokens
    assert told["milliseconds"] > 0
    if thresholds == [0.0, None]:
        assert {tier for _, tier, _, _ in told["answers"]} == {1}
    if thresholds == [1.0, 0.0]:
        assert {(tier, layer) for _, tier, layer, _ in told["answers"]} == {(2, 1)}


def test_a_preview_answers_words_as_predict_texts_does(ask: Ask, served: Models) -> None:
    tagger = served.of("words").served.pipeline
    texts = ["we laugh 😀 good", "", "bad film"]
    told = ask("/page/preview", {"model": "words", "inputs": texts, "thresholds": [1, 1]}).json()
    answers = tagger.with_router(Threshold(1)).with_exit_policy(any_of(TokenExit(0), AtExit(2))).predict_texts(texts)
    for words, one in zip(told["answers"], answers, strict=True):
        assert [(span, tag) for span, tag, *_ in words] == list(zip(one.spans.tolist(), one.tags, strict=True))
        assert [layer for _, _, _, layer, _ in words] == one.routes.exit_layer.tolist()
    assert {layer for words in told["answers"] for _, _, _, layer, _ in words} == {2}


def test_pairs_and_few_labels(ask: Ask, served: Models) -> None:
    told = ask("/page/preview", {"inputs": [["good film", "bad"], "bad"]}).json()
    answers = served.of("texts").served.pipeline.predict([("good film", "bad"), "bad"])
    for (scores, *_), one in zip(told["answers"], answers, strict=True):
        assert [score for _, score in scores] == pytest.approx(sorted(one.probabilities.tolist(), reverse=True))


def test_policies_without_a_threshold_are_given_one(clf: Classifier, tagger: Tagger) -> None:
    for pipeline in (clf, tagger):
        for router in (defer_all, Budget(0.5)):
            full = pipeline.with_router(router).with_exit_policy(never)
            assert [knob["threshold"] for knob in knobs(full)] == [None, None]
            assert tuned(full, None).policies == full.policies
            other = tuned(full, [0.3, 0.4]).policies
            assert (other.routers, other.exits[1]) == ((Threshold(0.3),), MaxProbability(0.4))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "missing field `inputs`"),
        ({"inputs": "good"}, "inputs: expected a list of texts or lists of two texts"),
        ({"inputs": [3]}, "expected a list of texts"),
        ({"inputs": [["a", "b", "c"]]}, "expected a list of texts"),
        ({"inputs": [["a", None]]}, "expected a list of texts"),
        ({"model": "words", "inputs": [["a", "b"]]}, "inputs: expected a list of texts"),
        ({"inputs": ["a"] * 65}, "at most 64 texts and 50000 characters, got 65 and 65"),
        ({"inputs": ["a" * 50_001]}, "got 1 and 50001"),
        ({"inputs": ["a"], "thresholds": [0.5]}, "thresholds: expected 2 numbers in"),
        ({"inputs": ["a"], "thresholds": [0.5, 1.1]}, "expected 2 numbers"),
        ({"inputs": ["a"], "thresholds": [True, None]}, "expected 2 numbers"),
        ({"inputs": ["a"], "thresholds": {"0": 1}}, "expected 2 numbers"),
        ({"inputs": ["a"], "model": 3}, "model: expected a string"),
    ],
)
def test_what_a_preview_refuses(ask: Ask, body: Any, message: str) -> None:
    refused = ask("/page/preview", body)
    assert refused.status_code == 422
    assert message in refused.text


def test_no_texts_and_an_unknown_model(ask: Ask) -> None:
    assert ask("/page/preview", {"inputs": []}).json()["answers"] == []
    assert ask("/page/preview", {"inputs": ["a"], "model": "other"}).status_code == 404


def test_files_need_no_key_and_what_the_page_asks_is_no_traffic(clf: Classifier) -> None:
    body, key = {"inputs": ["good"]}, {"authorization": "Bearer key"}
    with serving(clf, api_key="key") as client:
        for path in ("/", *FILES):
            assert client.get(path, headers={"accept": "text/html"}).status_code == 200
        for path in ("/page/models", "/page/live"):
            assert [client.get(path, headers=given).status_code for given in ({}, key)] == [401, 200]
        assert client.post("/page/preview", json=body).status_code == 401
        assert client.post("/page/preview", json=body, headers=key).status_code == 200
        assert client.post("/predict", json={"inputs": "good"}, headers=key).status_code == 200
        counters = client.get("/page/live", headers=key).json()["counters"]
        told = {(labels["method"], labels["code"]): count for labels, count in counters["cascade_requests_total"]}
        assert told == {("/predict", "200"): 1, ("other", "401"): 3}


def test_previews_take_turns_and_too_many_are_refused(served: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, most = threading.Lock(), 0
    plain = module.answered

    def answered(*given: Any) -> dict[str, Any]:
        nonlocal most
        free = lock.acquire(blocking=False)
        most += not free
        made = plain(*given)
        if free:
            lock.release()
        return made

    monkeypatch.setattr(module, "answered", answered)
    body = {"inputs": ["good"]}
    done = run(served, *[lambda client: client.post("/page/preview", json=body)] * (module.WAITING + 2))
    assert most == 0
    assert sorted(one.status_code for one in done) == [200] * module.WAITING + [429] * 2
    assert all(one.headers["retry-after"] == "1" for one in done if one.status_code == 429)

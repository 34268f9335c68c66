from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cascade import Classifier, Tagger
from cascade.core.limits import Limits
from cascade.serving import app
from cascade.serving.batcher import Batcher
from cascade.serving.wire import Call
from tests.models.toy import toy_bundle
from tests.serving.http import TEXT, Client, full, near, serving

LONG = " ".join(["good"] * 40)  # the toy reads 16 tokens


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    bundle = toy_bundle(tmp_path_factory.mktemp("tei") / "toy", router={"policy": "Threshold", "threshold": 0.6})
    return Classifier.from_pretrained(bundle.folder, threads=1)


@pytest.fixture(scope="module")
def client(toys: Classifier) -> Iterator[Client]:
    with serving(toys) as made:
        yield made


SHAPE = "Failed to deserialize the JSON body into the target type: inputs"
TABLE: list[tuple[Any, int, str | None, str]] = [
    ({"inputs": ["a", "b", "c"]}, 422, None, f"{SHAPE}: invalid length 3"),
    ({"inputs": []}, 422, None, f"{SHAPE}: invalid length 0"),
    ({"inputs": [[]]}, 422, None, f"{SHAPE}: invalid length 0"),
    ({"inputs": [["a", "b", "c"]]}, 422, None, f"{SHAPE}: invalid length 3"),
    ({"inputs": ["a", ["b"]]}, 422, None, f"{SHAPE}: expected a string, got a list"),
    ({"inputs": [["a"], "b"]}, 422, None, f"{SHAPE}: expected a list of one or two strings, got a string"),
    ({"inputs": 3}, 422, None, f"{SHAPE}: expected a string, a pair of strings or a list of such, got a number"),
    ({"inputs": None}, 422, None, f"{SHAPE}: expected"),
    ({"inputs": {"text": "a"}}, 422, None, f"{SHAPE}: expected"),
    ({"inputs": [[1.5]]}, 422, None, f"{SHAPE}: expected a string, got a number"),
    ({}, 422, None, "Failed to deserialize the JSON body into the target type: body: missing field `inputs`"),
    ([TEXT], 422, None, "Failed to deserialize the JSON body into the target type: body: expected an object"),
    ({"inputs": TEXT, "truncate": "yes"}, 422, None, "Failed to deserialize"),
    ({"inputs": TEXT, "raw_scores": 1}, 422, None, "Failed to deserialize"),
    ({"inputs": TEXT, "truncation_direction": "up"}, 422, None, "Failed to deserialize"),
    ({"inputs": [["a"]] * 33}, 422, "Validation", "batch size 33 > maximum allowed batch size 32"),
    (
        {"inputs": LONG, "truncate": False},
        422,
        "Validation",
        "Input validation error: `inputs` must have less than 16 tokens. Given: 42",
    ),
    ({"inputs": LONG, "truncate": False, "truncation_direction": "Left"}, 422, "Validation", "Input validation error"),
    ({"inputs": "a" * 5000, "truncate": False}, 422, "Validation", "Input validation error"),
    ({"inputs": TEXT, "model": "none"}, 404, "Validation", "model must be one of toy, got 'none'"),
]


@pytest.mark.parametrize(("body", "status", "kind", "message"), TABLE, ids=lambda value: str(value)[:40])
def test_errors_are_teis(client: Client, body: Any, status: int, kind: str | None, message: str) -> None:
    answer = client.post("/predict", json=body)
    assert answer.status_code == status
    if kind is None:
        assert answer.headers["content-type"].startswith("text/plain")
        assert answer.text.startswith(message)
    else:
        assert answer.json()["error_type"] == kind
        assert answer.json()["error"].startswith(message)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"inputs": NaN}',
        b"\xff\xfe{}",
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        b"[" * 100_000,
        b"1" * 9999,
    ],
)
def test_what_is_no_json_is_400_in_plain_text(client: Client, body: bytes) -> None:
    answer = client.post("/predict", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.text.startswith("Failed to parse the request body as JSON: ")


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonx", "json"])
def test_what_is_not_announced_as_json_is_415(client: Client, kind: str | None) -> None:
    answer = client.post("/predict", content=b"{}", headers={} if kind is None else {"content-type": kind})
    assert (answer.status_code, answer.headers["content-type"]) == (415, "text/plain; charset=utf-8")


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", "application/problem+json"])
def test_other_spellings_of_json_are_read(client: Client, kind: str) -> None:
    assert client.post("/predict", content=b'{"inputs": "good"}', headers={"content-type": kind}).status_code == 200


def test_unknown_paths_and_methods_have_empty_bodies(client: Client) -> None:
    assert [(one.status_code, one.content) for one in (client.get("/nope"), client.get("/predict"))] == [
        (404, b""),
        (405, b""),
    ]
    assert client.post("/predict/", json={"inputs": TEXT}).status_code == 404


def test_bodies_above_the_limit_are_413(toys: Classifier) -> None:
    with serving(toys, limits=Limits(payload_limit=100)) as client:
        chunks = iter([b'{"inputs": "', b"a" * 200, b'"}'])
        answers = [
            client.post("/predict", json={"inputs": "a" * 101}),
            client.post("/predict", content=chunks, headers={"content-type": "application/json"}),
        ]
        assert [one.status_code for one in answers] == [413, 413]
        assert answers[0].text == "Failed to buffer the request body: length limit exceeded"
        assert client.post("/predict", json={"inputs": "a" * 80}).status_code == 200


def test_a_body_that_does_not_come_is_408(toys: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "BODY_SECONDS", 0.02)
    sent: list[dict[str, Any]] = []

    async def receive() -> Any:
        return await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json"), (b"content-length", b"9")]
    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": headers, "query_string": b""}
    with serving(toys) as client:
        client.run(client.app(scope, receive, send))
    assert sent[0]["status"] == 408


def test_a_client_that_leaves_takes_its_work_along(toys: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "WATCH_AFTER", 0.0)
    ended: list[type[BaseException] | None] = []

    async def answer(*_: Any, **__: Any) -> Any:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append(asyncio.CancelledError)
            raise

    monkeypatch.setattr(Batcher, "answer", answer)
    messages = [{"type": "http.request", "body": b'{"inputs": "a"}'}, {"type": "http.disconnect"}]
    calls: list[Call] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        raise AssertionError(message)

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": headers, "query_string": b""}
    with serving(toys, log=[calls.append]) as client:
        client.run(client.app(scope, receive, send))
    assert ended == [asyncio.CancelledError]
    assert [call.status for call in calls] == [499]


def test_more_than_fits_is_429_with_retry_after(toys: Classifier) -> None:
    with serving(toys, limits=Limits(max_concurrent_requests=1)) as client:
        answer = client.post("/predict", json={"inputs": [["a"], ["b"]]})
        assert answer.status_code == 429
        assert answer.json() == {"error": "Model is overloaded", "error_type": "Overloaded"}
        assert int(answer.headers["retry-after"]) >= 1
        assert client.post("/predict", json={"inputs": "a"}).status_code == 200


def test_what_comes_too_late_is_refused_before_it_is_read(toys: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(toys) as client:
        monkeypatch.setattr(Batcher, "overloaded", True)
        for path, kind in (("/predict", "error_type"), ("/classify", "error")):
            answer = client.post(path, content=b"no JSON")
            assert (answer.status_code, int(answer.headers["retry-after"])) == (429, 1)
            assert kind in answer.json()
        assert client.get("/health").status_code == 200
        told = client.get("/metrics").text
    assert 'cascade_requests_total{code="429",method="/predict"} 1.0' in told


def test_answers_are_those_of_the_pipeline(client: Client, toys: Classifier) -> None:
    texts: list[Any] = ["good", "a bad film", ("good film", "dull plot"), ""]
    bodies = [[text] if isinstance(text, str) else list(text) for text in texts]
    wanted = full(toys, texts)
    assert near(client.post("/predict", json={"inputs": bodies}).json(), wanted)
    assert near(client.post("/predict", json={"inputs": "good"}).json(), wanted[0])
    assert near(client.post("/predict", json={"inputs": ["good"]}).json(), wanted[0])
    assert near(client.post("/predict", json={"inputs": ["good film", "dull plot"]}).json(), wanted[2])
    assert near(client.post("/predict", json={"inputs": [["good"]]}).json(), wanted[:1])


def test_the_bodies_of_teis_own_tests(client: Client) -> None:
    single = client.post("/predict", json={"inputs": "test"}).json()
    batch = client.post("/predict", json={"inputs": [["test"]] * 5}).json()
    assert len(batch) == 5
    for one in batch:
        assert [label["label"] for label in one] == [label["label"] for label in single]
        assert all(abs(a["score"] - b["score"]) < 4e-3 for a, b in zip(one, single, strict=True))
    load = client.post("/", json={"inputs": LONG, "truncate": True})
    assert load.status_code == 200
    for name in ("X-Total-Time", "X-Tokenization-Time", "X-Queue-Time", "X-Inference-Time", "X-Compute-Time"):
        assert int(load.headers[name]) >= 0


ENDS: list[Any] = [
    "good " * 20 + "bad " * 20,
    "good " * 1000 + "bad " * 1000,
    ["good bad " * 9, "bad film " * 9],
    "good",
]


def test_a_long_text_is_cut_as_the_limits_say_and_read_in_windows_if_asked(toys: Classifier) -> None:
    varied = "good bad " * 30
    cut, whole = full(toys.with_truncation(), [varied])[0], full(toys, [varied])[0]
    assert not near(cut, whole)
    with serving(toys) as client:
        assert near(client.post("/predict", json={"inputs": varied}).json(), cut)
        assert near(client.post("/predict", json={"inputs": varied, "truncate": True}).json(), cut)
        assert near(client.post("/predict", json={"inputs": varied, "windows": True}).json(), whole)
        end = toys.with_tokenizers(lambda own: own.with_truncation("left"))
        for inputs, text in ((given, given if isinstance(given, str) else tuple(given)) for given in ENDS):
            asked = {"inputs": inputs, "truncation_direction": "left"}
            assert near(client.post("/predict", json=asked).json(), full(end, [text])[0])
        assert not near(full(end, ENDS[:1])[0], full(toys.with_truncation(), ENDS[:1])[0])
    with serving(toys, limits=Limits(auto_truncate=False)) as client:
        assert client.post("/predict", json={"inputs": varied}).status_code == 422


def test_a_softmax_of_raw_scores_gives_the_scores(client: Client) -> None:
    plain, raw = (
        client.post("/predict", json={"inputs": TEXT, "raw_scores": wanted}).json() for wanted in (False, True)
    )
    scores = np.exp([one["score"] for one in raw])
    assert np.allclose(scores / scores.sum(), [one["score"] for one in plain], atol=1e-5)


def test_labels_of_a_multi_label_model_are_sigmoid(tmp_path: Path) -> None:
    toys = Classifier.from_pretrained(toy_bundle(tmp_path / "toy", multi_label=True).folder, threads=1)
    with serving(toys) as client:
        plain, raw = (client.post("/predict", json={"inputs": TEXT, "raw_scores": w}).json() for w in (False, True))
    assert near(plain, full(toys, [TEXT])[0])
    assert sum(one["score"] for one in plain) != pytest.approx(1)
    assert np.allclose([1 / (1 + np.exp(-one["score"])) for one in raw], [one["score"] for one in plain], atol=1e-5)


def test_headers_and_routes_say_what_an_answer_cost(client: Client, toys: Classifier) -> None:
    body = {"inputs": [["good"], ["dull dull plot"], ["bad film"]], "routes": True}
    answer = client.post("/predict", json=body)
    routes = toys.predict(["good", "dull dull plot", "bad film"]).routes
    found = answer.json()
    assert [one["tier"] for one in found["routes"]] == routes.tier.tolist()
    assert [one["exit_layer"] for one in found["routes"]] == routes.exit_layer.tolist()
    assert found["degraded"] is False
    assert set(found["milliseconds"]) == {"tokenize", "queue", "inference", "total"}
    assert near(found["predictions"], client.post("/predict", json={**body, "routes": False}).json())
    assert answer.headers["x-cascade-tier"] == str(routes.tier.max())
    assert answer.headers["x-cascade-degraded"] == "false"
    assert answer.headers["x-compute-characters"] == "26"
    assert int(answer.headers["x-compute-tokens"]) == 6 + 6  # words, and two special tokens for each


def test_a_key_is_asked_for_where_something_is_answered(toys: Classifier) -> None:
    with serving(toys, api_key="sécret") as client:
        for headers in ({}, {"authorization": "Bearer no"}, {"authorization": "sécret".encode()}):
            answer = client.post("/predict", json={"inputs": TEXT}, headers=headers)
            assert (answer.status_code, answer.content) == (401, b"")
        assert client.get("/info").status_code == 401
        right = {"authorization": "Bearer sécret".encode()}
        assert client.post("/predict", json={"inputs": TEXT}, headers=right).status_code == 200
        for path in ("/health", "/", "/ping", "/metrics", "/docs", "/openapi.json", "/v2/health/live"):
            assert client.get(path).status_code == 200
        assert client.get("/openapi.json").json()["security"] == [{"key": []}]


def test_pages_of_any_origin_may_ask_unless_some_are_named(toys: Classifier) -> None:
    asks = {"origin": "https://a.example", "access-control-request-method": "POST"}
    asks["access-control-request-headers"] = "content-type,authorization"
    with serving(toys, api_key="key") as client:
        assert client.options("/predict", headers=asks).headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-origin" in client.get("/health", headers={"origin": "https://a.example"}).headers
        assert "access-control-allow-origin" not in client.get("/health").headers
    with serving(toys, origins=["https://b.example"]) as client:
        assert client.options("/predict", headers=asks).status_code == 400
        assert client.options("/predict", headers={**asks, "origin": "https://b.example"}).status_code == 200


def test_info_is_teis(client: Client, toys: Classifier) -> None:
    info = client.get("/info").json()
    assert info["model_type"]["classifier"]["id2label"] == {str(i): label for i, label in enumerate(toys.labels)}
    assert info["model_type"]["classifier"]["label2id"] == {label: i for i, label in enumerate(toys.labels)}
    required = "model_id model_dtype model_type max_concurrent_requests max_input_length max_batch_tokens"
    required += " max_client_batch_size auto_truncate tokenization_workers version served_model_name"
    assert set(required.split()) <= set(info)
    assert info["max_input_length"] == 16
    assert client.get("/info?model=none").status_code == 404


def test_health_is_empty_until_the_engine_is_gone(toys: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(toys) as client:
        for path in ("/health", "/ping", "/"):
            assert (client.get(path).status_code, client.get(path).content) == (200, b"")
        monkeypatch.setattr("cascade.serving.models.Models.healthy", False)
        assert client.get("/health").status_code == 503
        assert client.get("/health").json() == {"error": "unhealthy", "error_type": "Unhealthy"}
        assert client.get("/v2/health/ready").status_code == 503


def test_other_names_of_predict(client: Client) -> None:
    wanted = client.post("/predict", json={"inputs": TEXT}).json()
    for path in ("/", "/invocations"):
        assert near(client.post(path, json={"inputs": TEXT}).json(), wanted)
    found = client.post("/vertex", json={"instances": [{"inputs": TEXT}, {"inputs": [[TEXT]]}]}).json()
    assert near(found, {"predictions": [wanted, [wanted]]})
    for instances in (None, [1], "a"):
        assert client.post("/vertex", json={"instances": instances}).status_code == 422
    assert client.post("/vertex", json={"instances": [{"inputs": "a"}] * 33}).status_code == 422


def test_tokens_have_their_characters(client: Client) -> None:
    text = "good film"
    first, second = client.post("/tokenize", json={"inputs": [text, "\ud800 bad"]}).json()
    assert [one["text"] for one in first] == ["[CLS]", "good", "film", "[SEP]"]
    assert [(one["start"], one["stop"]) for one in first] == [(None, None), (0, 4), (5, 9), (None, None)]
    assert [one["special"] for one in first] == [True, False, False, True]
    assert second[-2]["text"] == "bad"
    bare = client.post("/tokenize", json={"inputs": text, "add_special_tokens": False}).json()
    assert [one["id"] for one in bare[0]] == [one["id"] for one in first[1:-1]]
    assert client.post("/tokenize", json={"inputs": []}).json()["error_type"] == "Empty"
    assert client.post("/tokenize", json={"inputs": []}).status_code == 400
    assert client.post("/tokenize", json={"inputs": ["a"] * 33}).status_code == 422
    assert client.post("/tokenize", json={"inputs": [3]}).status_code == 422


def test_what_a_model_is_not_for_is_424(toys: Classifier, tagger: Tagger) -> None:
    with serving(toys, tagger) as client:
        asked = [("/predict", {"inputs": "a", "model": "toy1"}), ("/predict_tokens", {"inputs": "a"}), ("/embed", {})]
        for path, body in asked:
            answer = client.post(path, json=body)
            assert answer.status_code == 424
            assert answer.json()["error_type"] == "Backend"
            assert answer.json()["error"].startswith("Backend error: Model is not a")


def test_requests_are_counted_by_route_and_status(toys: Classifier) -> None:
    with serving(toys, tei=True) as client:
        client.post("/predict", json={"inputs": "a"})
        client.post("/predict", json={"inputs": 3})
        client.post(f"/{'x' * 50}", json={})
        client.get("/health")
        answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    lines = [line for line in answer.text.splitlines() if line.startswith("cascade_requests_total")]
    assert lines == [
        'cascade_requests_total{code="200",method="/predict"} 1.0',
        'cascade_requests_total{code="422",method="/predict"} 1.0',
        'cascade_requests_total{code="404",method="other"} 1.0',
    ]
    assert 'te_request_success{method="single"} 1.0' in answer.text


def test_json_is_ascii_and_lone_surrogates_are_read(client: Client) -> None:
    answer = client.post("/predict", json={"inputs": "\ud800", "model": "\udfff"})
    assert answer.status_code == 404
    assert answer.content.isascii()
    assert client.post("/predict", json={"inputs": "\ud800"}).status_code == 200

"""The client against a small server that answers what it is told to: bodies on the wire, retries, errors."""

from __future__ import annotations

import asyncio
import json
import runpy
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import pytest

from cascade.serving import client as module
from cascade.serving.client import AsyncClient, Client, ServeError

GOOD = [{"score": 0.9, "label": "positive"}, {"score": 0.1, "label": "negative"}]


class Stub(ThreadingHTTPServer):
    """Answers with the replies of `script`, in order, and by echo when there are no more; `seen` is what was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[tuple[int, dict[str, str], bytes] | Literal["drop"]] = []
        self.seen: list[tuple[str, str, Any, dict[str, str]]] = []
        self.ports: set[int] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Stub

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        told = json.loads(body) if body else None
        self.server.seen.append((self.command, self.path, told, {k.lower(): v for k, v in self.headers.items()}))
        self.server.ports.add(self.client_address[1])
        reply = self.server.script.pop(0) if self.server.script else (200, {}, json.dumps(echo(told)).encode())
        if reply == "drop":
            self.close_connection = True
            return
        status, headers, content = reply
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = answer  # noqa: N815  # the names that http.server calls

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def echo(told: Any) -> Any:
    """An answer per item, made of the item itself."""
    if told is None:
        return {"model_id": "stub"}
    items = told["inputs"]
    answers = [[{"score": 1.0, "label": str(item)}] for item in items] if isinstance(items, list) else GOOD
    return {"predictions": answers, "routes": [{"tier": 1}] * len(answers)} if told.get("routes") else answers


@pytest.fixture
def stub() -> Iterator[Stub]:
    server = Stub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What was waited, without the wait; jitter takes its largest value."""
    found: list[float] = []

    monkeypatch.setattr("cascade.serving.client.time.sleep", found.append)
    monkeypatch.setattr("cascade.serving.client.random.uniform", lambda low, high: high)
    return found


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest, stub: Stub) -> Any:
    """A function that calls a method of either client."""

    def call(method: str, *given: Any, options: dict[str, Any] | None = None, **told: Any) -> Any:
        if request.param == "sync":
            with Client(stub.url, **(options or {})) as client:
                return getattr(client, method)(*given, **told)

        async def run() -> Any:
            async with AsyncClient(stub.url, **(options or {})) as client:
                return await getattr(client, method)(*given, **told)

        return asyncio.run(run())

    return call


@pytest.mark.parametrize(
    ("inputs", "wire"),
    [
        ("a", "a"),
        (("a", "b"), ["a", "b"]),
        ({"text": "a", "text_pair": "b"}, ["a", "b"]),
        (["a"], [["a"]]),
        (["a", ("b", "c"), {"text": "d", "text_pair": ""}], [["a"], ["b", "c"], ["d", ""]]),
        ("lone \ud800", "lone \ud800"),
    ],
)
def test_texts_and_pairs_are_what_tei_reads(call: Any, stub: Stub, inputs: Any, wire: Any) -> None:
    call("predict", inputs)
    ((method, path, told, headers),) = stub.seen
    assert (method, path, told) == ("POST", "/predict", {"inputs": wire})
    assert headers["content-type"] == "application/json"
    assert "authorization" not in headers


def test_options_are_sent_where_they_say_something(call: Any, stub: Stub) -> None:
    told = call("predict", "a", truncate=False, routes=True, model="m", options={"api_key": "sécret ✓"})
    assert told == {"predictions": GOOD, "routes": [{"tier": 1}] * 2}
    assert stub.seen[0][2] == {"inputs": "a", "truncate": False, "routes": True, "model": "m"}
    assert stub.seen[0][3]["authorization"].encode("latin-1").decode() == "Bearer sécret ✓"
    call("predict_tokens", ["a", "b"], aggregation_strategy="simple")
    assert stub.seen[1][1:3] == ("/predict_tokens", {"inputs": ["a", "b"], "aggregation_strategy": "simple"})


def test_long_lists_go_in_parts_and_come_back_whole(call: Any, stub: Stub) -> None:
    texts = [str(number) for number in range(7)]
    answers = call("predict", texts, options={"batch_size": 3})
    assert [answer[0]["label"] for answer in answers] == [str([text]) for text in texts]
    assert [len(told["inputs"]) for _, _, told, _ in stub.seen] == [3, 3, 1]
    whole = call("predict", texts, routes=True, options={"batch_size": 3})
    assert whole == {"predictions": answers, "routes": [{"tier": 1}] * 7}
    assert call("predict", []) == []
    assert call("predict_tokens", [], routes=True) == {"predictions": [], "routes": []}
    assert len(stub.seen) == 6


def test_info_and_health(call: Any, stub: Stub) -> None:
    assert call("info") == {"model_id": "stub"}
    stub.script = [(200, {}, b""), (503, {}, b""), "drop"]
    assert [call("health") for _ in range(3)] == [True, False, False]
    assert [(method, path) for method, path, _, _ in stub.seen] == [("GET", "/info")] + [("GET", "/health")] * 3


def test_what_may_pass_is_tried_again_with_longer_waits(call: Any, stub: Stub, waits: list[float]) -> None:
    stub.script = ["drop", (429, {"Retry-After": "2"}, b"{}"), (503, {"Retry-After": "Sun, 29 Nov 2026"}, b"")]
    assert call("predict", "a") == GOOD
    assert waits == [0.2, 2.4, 0.8]
    assert len(stub.seen) == 4


def test_retries_end(call: Any, stub: Stub, waits: list[float]) -> None:
    full = b'{"error": "Model is overloaded", "error_type": "Overloaded"}'
    stub.script = [(429, {"Retry-After": "100"}, full)] * 3
    with pytest.raises(ServeError, match="got 429: Model is overloaded") as caught:
        call("predict", "a", options={"retries": 2})
    assert (caught.value.status, caught.value.error_type, caught.value.retry_after) == (429, "Overloaded", 30.0)
    assert waits == [30.2, 30.4]


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (422, b'{"error": "too long", "error_type": "Validation"}', "Validation", "got 422: too long"),
        (413, b"Failed to buffer the request body", "Http", "413: Failed to buffer"),
        (401, b"", "Http", "401: Unauthorized"),
        (500, b"[1]", "Http", "500: "),
        (200, b"<html>", "Http", "must answer, got 200: <html>"),
    ],
)
def test_refusals_are_told_at_once(
    call: Any, stub: Stub, waits: list[float], status: int, body: bytes, kind: str, message: str
) -> None:
    stub.script = [(status, {}, body)]
    with pytest.raises(ServeError, match=message) as caught:
        call("predict", "a")
    assert (caught.value.status, caught.value.error_type, caught.value.retry_after) == (status, kind, None)
    assert len(stub.seen) == 1


def test_no_server(call: Any, stub: Stub, waits: list[float]) -> None:
    stub.script = ["drop"] * 2
    with pytest.raises(ServeError, match="the server must answer, got") as caught:
        call("predict", "a", options={"retries": 1})
    assert (caught.value.status, caught.value.error_type) == (0, "Connection")
    assert len(stub.seen) == 2


def test_what_is_late_is_not_sent_again(call: Any, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()

    def slow(handler: Handler) -> None:
        stub.seen.append(("", "", None, {}))
        gate.wait(60)

    monkeypatch.setattr(Handler, "do_POST", slow)
    with pytest.raises(ServeError, match=r"the server must answer, got .*[Tt]ime") as caught:
        call("predict", "a", options={"timeout": 0.05})
    gate.set()
    assert caught.value.error_type == "Timeout"
    assert len(stub.seen) == 1


def test_connections_are_kept_and_replaced_when_the_server_closed_them(stub: Stub, waits: list[float]) -> None:
    with Client(stub.url, retries=0) as client:
        assert client.predict("a") == client.predict("b") == GOOD
        assert len(stub.ports) == 1
        stub.script = ["drop"]
        assert client.predict("c") == GOOD
    assert len(stub.ports) == 2
    assert [told["inputs"] for _, _, told, _ in stub.seen] == ["a", "b", "c", "c"]


def test_calls_of_an_asynchronous_client_are_under_way_together(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(8)

    def slow(handler: Handler) -> None:
        together.wait(60)
        handler.answer()

    monkeypatch.setattr(Handler, "do_POST", slow)

    async def run() -> list[Any]:
        async with AsyncClient(stub.url, timeout=60) as client:
            return list(await asyncio.gather(*(client.predict("a") for _ in range(8))))

    assert asyncio.run(run()) == [GOOD] * 8
    outside = AsyncClient(stub.url)
    assert asyncio.run(outside.info()) == {"model_id": "stub"}
    asyncio.run(outside.close())


def test_a_path_before_the_routes(stub: Stub) -> None:
    with Client(f"{stub.url}/behind/") as client:
        client.predict("a")
    assert stub.seen[0][1] == "/behind/predict"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "localhost:3000"}, "url must be http://HOST:PORT or https://HOST:PORT, got 'localhost:3000'"),
        ({"url": "http://"}, "write the scheme"),
        ({"timeout": 0}, "timeout must be at least 0.001, got 0"),
        ({"retries": -1}, "retries must be at least 0, got -1"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ],
)
def test_impossible_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Client(**({"url": "http://localhost"} | options))


def test_the_file_stands_alone(stub: Stub, tmp_path: Path) -> None:
    copy = tmp_path / "client.py"
    source = Path(module.__file__).read_text(encoding="utf-8")
    copy.write_text(source, encoding="utf-8")
    assert "import cascade" not in source
    assert "from cascade" not in source
    with runpy.run_path(str(copy))["Client"](stub.url) as client:
        assert client.predict("a") == GOOD

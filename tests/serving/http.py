"""An application around toy models, and a client that asks it in this process."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

from cascade import Classifier, Tagger
from cascade.core.limits import Limits
from cascade.serving.app import App
from cascade.serving.metrics import Metrics
from cascade.serving.served import Served
from cascade.serving.wire import Scope

TEXT = "a very good film"


class Headers(dict[str, str]):
    """Names in lower case, asked for in any."""

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())


class Answer:
    """What came back."""

    def __init__(self, messages: list[dict[str, Any]]) -> None:
        start, *bodies = messages
        assert [start["type"], *{one["type"] for one in bodies}] == ["http.response.start", "http.response.body"]
        self.status_code: int = start["status"]
        self.headers = Headers({name.decode(): value.decode("latin-1") for name, value in start["headers"]})
        self.content: bytes = b"".join(one.get("body", b"") for one in bodies)

    @property
    def text(self) -> str:
        return self.content.decode()

    def json(self) -> Any:
        return json.loads(self.content)


class Client:
    """Asks an application on an event loop in a thread, without sockets. A fault of the server fails the test."""

    def __init__(self, app: App) -> None:
        self.app, self._loop = app, asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.run(self._started())

    async def _started(self) -> None:
        self._asked = asyncio.Queue[Scope]()
        told = asyncio.Queue[Scope]()
        self._lifespan = asyncio.ensure_future(self.app({"type": "lifespan"}, self._asked.get, told.put))
        self._asked.put_nowait({"type": "lifespan.startup"})
        assert await told.get() == {"type": "lifespan.startup.complete"}

    async def _ended(self) -> None:
        self._asked.put_nowait({"type": "lifespan.shutdown"})
        await self._lifespan

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """What a coroutine gives on that loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    def close(self) -> None:
        self.run(self._ended())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def send(
        self, method: str, path: str, headers: list[tuple[bytes, bytes]], *parts: bytes, query: bytes = b""
    ) -> Answer:
        """Ask with these headers and a body in these parts. A client that waits: it is there until the answer is."""
        messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts or (b"",)]
        messages[-1]["more_body"] = False
        sent: list[dict[str, Any]] = []
        scope = {"type": "http", "method": method, "path": path, "headers": headers, "query_string": query}

        async def receive() -> Any:
            return messages.pop(0) if messages else await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)

        self.run(self.app(scope, receive, send))
        assert sent[0]["status"] != 500
        return Answer(sent)

    def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: Any = None,
        headers: Mapping[str, str | bytes] | None = None,
    ) -> Answer:
        own = [
            (name.encode(), value.encode() if isinstance(value, str) else value)
            for name, value in (headers or {}).items()
        ]
        if json is not None:
            content, own = dumped(json), [(b"content-type", b"application/json"), *own]
        parts = [content or b""] if isinstance(content, bytes | None) else list(content)
        where, _, query = path.partition("?")
        return self.send(method, unquote(where), own, *parts, query=query.encode())

    def get(self, path: str, **options: Any) -> Answer:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> Answer:
        return self.request("POST", path, **options)

    def options(self, path: str, **options: Any) -> Answer:
        return self.request("OPTIONS", path, **options)


def dumped(value: Any) -> bytes:
    """JSON in ASCII, in which lone surrogates can be sent."""
    return json.dumps(value).encode()


@contextmanager
def serving(
    *pipelines: Classifier | Tagger, limits: Limits | None = None, tei: bool = False, **options: Any
) -> Iterator[Client]:
    """Models named toy, toy1, ..."""
    named = [Served(f"toy{number or ''}", pipeline) for number, pipeline in enumerate(pipelines)]
    client = Client(App(named, limits, metrics=Metrics(tei=tei), **options))
    try:
        yield client
    finally:
        client.close()


def full(classifier: Classifier, texts: list[Any]) -> list[list[dict[str, Any]]]:
    """All labels of each text, the most probable first."""
    found: list[list[dict[str, Any]]] = classifier(texts, top_k=None)
    return found


def near(found: Any, wanted: Any) -> bool:
    """Whether two values of JSON are the same but for rounding."""
    if isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(near(found[name], wanted[name]) for name in wanted)
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(near(one, other) for one, other in zip(found, wanted, strict=True))
    if isinstance(wanted, float):
        return bool(abs(found - wanted) < 1e-5)
    return bool(found == wanted)

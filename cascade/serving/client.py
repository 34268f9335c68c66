"""A client of `cascade serve`, whole in this one file: it may be copied to where the package is not installed.

It needs the standard library alone; `AsyncClient` asks on threads.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection, responses
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

A = TypeVar("A", bound="AsyncClient")
C = TypeVar("C", bound="Client")

Text: TypeAlias = str | tuple[str, str] | Mapping[str, str]
"""A text, or a pair: a tuple of two texts, or `{"text": ..., "text_pair": ...}`."""

Texts: TypeAlias = Text | Sequence[Text]

FIRST_WAIT, LONGEST_WAIT = 0.2, 30.0
"""Seconds: the most that is waited before the first retry, and before any."""
TOGETHER = 64
"""Calls of an `AsyncClient` that are under way at once; more wait for them."""


class ServeError(Exception):
    """The server refused, or gave no answer.

    `status`: of HTTP, 0 where there was no answer; `error_type`: the server's word, such as `Validation`, `Connection`
    or `Timeout` where there was no answer; `retry_after`: seconds that it asked to wait, at most 30, if it did.
    """

    def __init__(self, message: str, *, status: int, error_type: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status, self.error_type, self.retry_after = status, error_type, retry_after


class Client:
    """Talks to `cascade serve`, or to TEI. Safe in threads; connections are kept until `close`, or the end of a `with`.

    Args:
        url: `http://HOST:PORT`, with a path where a proxy has one.
        api_key: the server's, if it has one.
        timeout: seconds that the server may be silent; what is late is not sent again.
        retries: how often a request is sent again after 429, 503 or a lost connection; 0: never.
        batch_size: items of one request, at most the server's `--max-client-batch-size`; longer lists go in parts.

    Every method but `health` raises `ServeError` where the server refuses or gives no answer.
    """

    def __init__(
        self, url: str, *, api_key: str | None = None, timeout: float = 10.0, retries: int = 3, batch_size: int = 32
    ) -> None:
        self._parts = urlsplit(url)
        if self._parts.scheme not in {"http", "https"} or not self._parts.hostname:
            raise ValueError(f"url must be http://HOST:PORT or https://HOST:PORT, got {url!r}; write the scheme, too")
        for name, value, least in (("timeout", timeout, 0.001), ("retries", retries, 0), ("batch_size", batch_size, 1)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value!r}; leave it out")
        self.url, self.timeout, self.retries, self.batch_size = url.rstrip("/"), timeout, retries, batch_size
        self._headers = {"Content-Type": b"application/json", "User-Agent": b"cascade-client"}
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {api_key}".encode()  # the server compares UTF-8
        self._idle: list[HTTPConnection] = []

    def predict(
        self, inputs: Texts, *, truncate: bool | None = None, routes: bool = False, model: str | None = None
    ) -> Any:
        """Classify.

        Args:
            inputs: a text or a pair, or a list of them.
            truncate: whether only the first tokens of a long text are read; as the server is set if left out.
            routes: whether to be told which tier and exit answered; servers other than `cascade serve` do not know.
            model: the name of one of several models of the server.

        Returns:
            `[{"score", "label"}, ...]` with all labels, most probable first; for a list one such list per text. With
            `routes` that as `{"predictions": ..., "routes": [...]}`.
        """
        one = isinstance(inputs, str | tuple | Mapping)
        items = [_wire(item, one=one) for item in ([inputs] if one else inputs)]
        return self._call(self._asked, "/predict", items, one, routes, {"truncate": truncate, "model": model})

    def predict_tokens(
        self,
        inputs: str | Sequence[str],
        *,
        aggregation_strategy: str = "none",
        truncate: bool | None = None,
        routes: bool = False,
        model: str | None = None,
    ) -> Any:
        """Tag a text or a list of texts; `truncate`, `routes` and `model` are as in `predict`.

        The answer: transformers' dicts by its `aggregation_strategy` (`none`, `simple`, `first`, `average`, `max`):
        `entity` or `entity_group`, `score`, `word`, `start`, `end` (characters); for a list one such list per text.
        """
        one = isinstance(inputs, str)
        options = {"aggregation_strategy": aggregation_strategy, "truncate": truncate, "model": model}
        return self._call(self._asked, "/predict_tokens", [inputs] if one else list(inputs), one, routes, options)

    def info(self) -> Any:
        """What the server says of itself: model, labels, limits."""
        return self._call(self._ask, "/info")

    def health(self) -> Any:
        """Whether the server says that it is well: a bool. It is asked once, and no answer is no error."""
        return self._call(self._well)

    def __enter__(self: C) -> C:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> Any:
        """Close the connections that are kept."""
        while self._idle:
            self._idle.pop().close()

    def _call(self, function: Callable[..., Any], *given: Any) -> Any:
        return function(*given)

    def _well(self) -> bool:
        answer = self._send("/health", None)
        return not isinstance(answer, ServeError) or answer.status == 200

    def _ask(self, path: str, body: bytes | None = None) -> Any:
        """One request, and again where it may pass: answering has no effect, so that to ask twice does no harm.

        Before each retry there is a random wait of at most 0.2 s, 0.4 s, 0.8 s, ..., beside the server's `Retry-After`.
        """
        answer = self._send(path, body)
        for attempt in range(self.retries):
            if not isinstance(answer, ServeError) or answer.error_type == "Timeout":
                break
            if answer.status not in {0, 429, 503}:
                break
            wait = random.uniform(0, min(FIRST_WAIT * 2**attempt, LONGEST_WAIT))  # noqa: S311  # no secret
            time.sleep(wait + (answer.retry_after or 0.0))
            answer = self._send(path, body)
        if isinstance(answer, ServeError):
            raise answer
        return answer

    def _asked(self, path: str, items: list[Any], one: bool, routes: bool, options: Mapping[str, Any]) -> Any:
        """The answer for the only item, or for all, `batch_size` to a request."""
        told = {name: value for name, value in {**options, "routes": routes or None}.items() if value is not None}
        parts = []
        for start in range(0, len(items), self.batch_size):
            body = {"inputs": items[0] if one else items[start : start + self.batch_size], **told}
            parts.append(self._ask(path, json.dumps(body).encode()))
        if one:
            return parts[0]
        if not routes:
            return [answer for part in parts for answer in part]
        return {name: [answer for part in parts for answer in part[name]] for name in ("predictions", "routes")}

    def _send(self, path: str, body: bytes | None) -> Any:
        """By a connection that was kept, or by a new one where it fails: the server may have closed it."""
        kept = self._idle.pop() if self._idle else None
        kind = HTTPSConnection if self._parts.scheme == "https" else HTTPConnection
        connection = kept or kind(self._parts.hostname or "", self._parts.port, timeout=self.timeout)
        try:
            connection.request("POST" if body else "GET", self._parts.path.rstrip("/") + path, body, self._headers)
            answer = connection.getresponse()
            found = _read(answer.status, answer.read(), answer.headers.get("Retry-After"))
        except (OSError, HTTPException) as error:
            connection.close()
            late = isinstance(error, TimeoutError)
            if kept and not late:
                return self._send(path, body)
            why = "Timeout" if late else "Connection"
            return ServeError(f"the server must answer, got {error!r}", status=0, error_type=why)
        if not answer.will_close:
            self._idle.append(connection)
        return found


class AsyncClient(Client):
    """`Client` for asyncio: its methods are awaited and run on threads; `async with` closes it."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._threads = ThreadPoolExecutor(TOGETHER, "cascade-client")

    async def __aenter__(self: A) -> A:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections that are kept."""
        super().close()
        self._threads.shutdown(wait=False)

    async def _call(self, function: Callable[..., Any], *given: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *given)


def _wire(text: Any, *, one: bool) -> Any:
    """A text or a pair as TEI reads it; in a list a text is a list of one."""
    if isinstance(text, str):
        return text if one else [text]
    return [text["text"], text["text_pair"]] if isinstance(text, Mapping) else list(text)


def _read(status: int, body: bytes, wait: str | None) -> Any:
    """The answer, or a `ServeError`. `wait`: seconds; a date, which only proxies write, is not read."""
    text, told, after = body.decode("utf-8", "replace").strip(), None, None
    with suppress(ValueError):  # some faults are told in plain text, as TEI does
        told = json.loads(text)
    if status == 200 and told is not None:
        return told
    with suppress(ValueError):
        after = min(max(0.0, float(wait or "")), LONGEST_WAIT)
    fault = told if isinstance(told, dict) else {}
    message = f"the server must answer, got {status}: {fault.get('error', text or responses.get(status))}"
    return ServeError(message, status=status, error_type=str(fault.get("error_type", "Http")), retry_after=after)

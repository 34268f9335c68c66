"""One request and one answer, as they come and go: headers, bodies, JSON.

Handlers get a `Call` and give a `Reply`. No framework's objects are made on the way: they cost more than parsing does.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from typing import Any, Final, NoReturn, TypeAlias

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from cascade.exceptions import CascadeError
from cascade.serving.errors import Dialect, Failed, Overloaded, Refused, misshapen
from cascade.serving.models import Models
from cascade.serving.work import Answers

BODY_SECONDS: Final = 30.0
"""A body must be whole after so long."""
WATCH_AFTER: Final = 0.05
"""After so many seconds it is watched whether the client is still there: most answers are there before."""
JSON: Final = (b"content-type", b"application/json")
PLAIN: Final = (b"content-type", b"text/plain; charset=utf-8")
LATE: Final = Refused(f"the request body must come within {BODY_SECONDS:g} seconds; send it at once", 408)


class Reply:
    """An answer: `body` whole, `headers` without its length."""

    __slots__ = ("body", "headers", "status")

    def __init__(
        self, body: bytes = b"", *, status: int = 200, headers: Sequence[tuple[bytes, bytes]] = (JSON,)
    ) -> None:
        self.body, self.status, self.headers = body, status, headers

    @classmethod
    def of(cls, value: object, *, status: int = 200, headers: Sequence[tuple[bytes, bytes]] = ()) -> Reply:
        """A string as plain text, another value as JSON, in ASCII: any string has such a form."""
        if isinstance(value, str):
            return cls(value.encode(errors="backslashreplace"), status=status, headers=(PLAIN, *headers))
        return cls(json.dumps(value, separators=(",", ":")).encode(), status=status, headers=(JSON, *headers))

    @classmethod
    def refusal(cls, error: Refused, dialect: Dialect) -> Reply:
        """An error in the form that the clients of a route read."""
        status, body = dialect(error)
        return cls.of(body, status=status, headers=error.headers if isinstance(error, Overloaded) else ())

    async def send(self, send: Send) -> None:
        """Send it."""
        headers = [*self.headers, (b"content-length", b"%d" % len(self.body))]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


class Call:
    """A request under way, and what the log and the counters will say of it.

    Attributes:
        headers: the last of each name.
        json: the body, once it is read: an object.
        route, path: the path of its route, and what stood in the place of names there.
        status: of the answer; 499 where the client was gone before.
        model, items, characters, answers: of the last question that was asked of the engine.
    """

    __slots__ = (
        *("answers", "begin", "characters", "headers", "items", "json"),
        *("model", "models", "path", "route", "scope", "status"),
    )

    def __init__(self, scope: Scope, models: Models) -> None:
        self.scope, self.models, self.begin = scope, models, perf_counter()
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.json: Any = None
        self.path: dict[str, str] = {}
        self.status, self.route, self.model, self.items, self.characters = 499, "other", "", 0, 0
        self.answers: Answers | None = None

    async def read(self, receive: Receive) -> None:
        """Read the body, an object; a `Refused` with 415, 413, 400 or 422, in this order, which is TEI's."""
        kind = self.headers.get(b"content-type", b"")
        if kind != b"application/json":
            kind = kind.partition(b";")[0].strip().lower()
            if kind != b"application/json" and not (kind.startswith(b"application/") and kind.endswith(b"+json")):
                raise Refused("Expected request with `Content-Type: application/json`", 415)
        limit, told = self.models.limits.payload_limit, self.headers.get(b"content-length", b"0")
        large = Refused("Failed to buffer the request body: length limit exceeded", 413)
        if told.isdigit() and int(told[:19]) > limit:
            raise large
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionResetError
            parts.append(message.get("body", b""))
            size, more = size + len(parts[-1]), message.get("more_body", False)
            if size > limit:
                raise large
        self.json = parsed(b"".join(parts))
        if not isinstance(self.json, dict):
            raise misshapen("body", f"expected an object, got {kind_of(self.json)}")


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"expected a value, got {name}")


_decode: Final = json.JSONDecoder(parse_constant=_refuse).decode


def parsed(body: bytes) -> Any:
    """A body in UTF-8 as JSON, without NaN and the infinities, which JSON does not have; a 400 for another."""
    try:
        return _decode(body.decode())
    except (ValueError, RecursionError) as error:
        raise Refused(f"Failed to parse the request body as JSON: {error}", 400) from None


def kind_of(value: object) -> str:
    """What JSON calls a value."""
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")


def field(body: dict[str, Any], name: str, kind: type, default: Any = None) -> Any:
    """A value of this kind, `bool` or `str`; the default where it is missing or null; a 422 for another kind."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, kind):
        raise misshapen(name, f"expected {'a boolean' if kind is bool else 'a string'}, got {kind_of(value)}")
    return value


def required(body: dict[str, Any], name: str) -> Any:
    """What stands under a name; a 422 where there is nothing."""
    if name not in body:
        raise misshapen("body", f"missing field `{name}`")
    return body[name]


def strings(body: dict[str, Any], name: str) -> tuple[list[str], bool]:
    """Strings, or one, and whether it is one; a 422 for something else."""
    value = required(body, name)
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise misshapen(name, "expected a string or a list of strings")
    return found, found is not value


Handler: TypeAlias = Callable[[Call], Awaitable[Reply]]


def route(path: str, handler: Handler, dialect: Dialect, method: str = "POST") -> Route:
    """A handler under a path. The handler of a POST finds the body read."""
    return Route(path, Endpoint(path, handler, dialect, reads=method == "POST"), methods=[method])


class Endpoint:
    """A handler as an ASGI application; what it raises is answered in `dialect`.

    A client that goes away cancels the handler, and with it the work that waits.
    """

    def __init__(self, path: str, handler: Handler, dialect: Dialect, *, reads: bool) -> None:
        self.path, self.handler, self.dialect, self.reads = path, handler, dialect, reads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call: Call = scope["cascade"]
        call.route, call.path = self.path, scope.get("path_params", call.path)
        watch = _Watch(receive)
        try:
            if self.reads:
                await call.read(receive)
                watch.answering()
            reply = await self.handler(call)
        except Refused as error:
            reply = Reply.refusal(error, self.dialect)
        except CascadeError as error:
            reply = Reply.refusal(Failed(str(error)), self.dialect)
        except ConnectionResetError:
            return
        except asyncio.CancelledError:
            if watch.gone:
                return
            if not watch.late:
                raise
            reply = Reply.refusal(LATE, self.dialect)
        finally:
            watch.end()
        await reply.send(send)


class _Watch:
    """Cancels the task that makes it: where a body is late, and, once an answer is made, where its client is gone."""

    __slots__ = ("gone", "late", "loop", "receive", "task", "timer", "watcher")

    def __init__(self, receive: Receive) -> None:
        self.loop = asyncio.get_running_loop()
        self.receive, self.task = receive, asyncio.current_task(self.loop)
        self.watcher: asyncio.Task[None] | None = None
        self.gone = self.late = False
        self.timer = self.loop.call_later(BODY_SECONDS, self._cancel, "late")

    def answering(self) -> None:
        """The body is here; what comes next is the client's leaving."""
        self.timer.cancel()
        self.timer = self.loop.call_later(WATCH_AFTER, self._begin)

    def end(self) -> None:
        """Watch no longer."""
        self.timer.cancel()
        if self.watcher is not None:
            self.watcher.cancel()

    def _begin(self) -> None:
        self.watcher = self.loop.create_task(self._look())

    async def _look(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self._cancel("gone")

    def _cancel(self, why: str) -> None:
        setattr(self, why, True)
        if self.task is not None:
            self.task.cancel()

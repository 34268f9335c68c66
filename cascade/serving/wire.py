"""One request and one answer, as they come and go: headers, bodies, JSON.

Handlers get a `Call` and give a `Reply`. No framework's objects are made on the way: they cost more than parsing does.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final, NoReturn, TypeAlias

from cascade.serving.errors import Dialect, Refused, misshapen
from cascade.serving.models import Models
from cascade.serving.work import Answers

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Scope]]
Send: TypeAlias = Callable[[Scope], Awaitable[None]]
Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

JSON: Final = (b"content-type", b"application/json")
PLAIN: Final = (b"content-type", b"text/plain; charset=utf-8")


@dataclass(eq=False, slots=True)
class Reply:
    """An answer: `body` whole, `headers` without its length."""

    body: bytes = b""
    status: int = 200
    headers: Headers = (JSON,)

    @classmethod
    def of(cls, value: object, status: int = 200, headers: Headers = ()) -> Reply:
        """A string as plain text, another value as JSON, in ASCII: any string has such a form."""
        if isinstance(value, str):
            return cls(value.encode(errors="backslashreplace"), status, (PLAIN, *headers))
        return cls(json.dumps(value, separators=(",", ":")).encode(), status, (JSON, *headers))

    @classmethod
    def refusal(cls, error: Refused, dialect: Dialect) -> Reply:
        """An error in the form that the clients of a route read."""
        status, body = dialect(error)
        return cls.of(body, status, error.headers)


class Call:
    """A request under way, and what the log and the counters will say of it.

    `headers`: the last of each name; `json`: the body, once it is read: an object; `route`: the path of its route;
    `named`: what stood in the place of `{model}` there; `status`: of the answer; 499 where the client was gone before;
    `model`, `items`, `characters`, `answers`: of the last question that was asked of the engine.
    """

    __slots__ = (
        *("answers", "begin", "characters", "headers", "items", "json"),
        *("model", "models", "named", "route", "scope", "status"),
    )

    def __init__(self, scope: Scope, models: Models) -> None:
        self.scope, self.models, self.begin = scope, models, perf_counter()
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.json: Any = None
        self.named: str | None = None
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
        size, more = int(told[:19]) if told.isdigit() else 0, True
        parts: list[bytes] = []
        while more and size <= limit:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionResetError
            parts.append(message.get("body", b""))
            size, more = sum(map(len, parts)), message.get("more_body", False)
        if size > limit:
            raise Refused("Failed to buffer the request body: length limit exceeded", 413)
        self.json = parsed(b"".join(parts))
        if not isinstance(self.json, dict):
            raise misshapen("body", f"expected an object, got {kind_of(self.json)}")


Handler: TypeAlias = Callable[[Call], Awaitable[Reply]]


@dataclass(frozen=True)
class Route:
    """A handler under a path, in which `{model}` stands for a name; what it raises is answered in `dialect`.

    The handler of a POST finds the body read. A client that goes away cancels it, and with it the work that waits.
    """

    path: str
    handler: Handler
    dialect: Dialect
    method: str = "POST"


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


def are_strings(value: object) -> bool:
    """Whether it is a list of strings."""
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def strings(body: dict[str, Any], name: str) -> tuple[list[str], bool]:
    """Strings, or one, and whether it is one; a 422 for something else."""
    value = required(body, name)
    found = [value] if isinstance(value, str) else value
    if not are_strings(found):
        raise misshapen(name, "expected a string or a list of strings")
    return found, found is not value

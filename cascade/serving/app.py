"""`App`: all routes as one ASGI application, behind a door where keys, origins and counters are."""

from __future__ import annotations

import asyncio
import gc
import hmac
import re
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import perf_counter
from typing import Final

from cascade.core.limits import Limits
from cascade.exceptions import CascadeError
from cascade.serving import kserve, openapi, tei, tokens, vllm
from cascade.serving.errors import Failed, Overloaded, Refused
from cascade.serving.metrics import Metrics
from cascade.serving.models import Models
from cascade.serving.page import FILES, Page
from cascade.serving.served import Served
from cascade.serving.wire import Call, Headers, Receive, Reply, Route, Scope, Send

PROBES: Final = ("/", "/health", "/ping", "/metrics", "/v2", "/v2/health/live", "/v2/health/ready")
PUBLIC: Final = {*PROBES, *openapi.PATHS, *FILES}
"""What needs no key to be read."""
BODY_SECONDS: Final = 30.0
"""A body must be whole after so long."""
WATCH_AFTER: Final = 0.05
"""After so many seconds it is watched whether the client is still there: most answers are there before."""
LATE: Final = Refused(f"the request body must come within {BODY_SECONDS:g} seconds; send it at once", 408)
ROUTES: Final = (*tei.ROUTES, *vllm.ROUTES, *kserve.ROUTES, *tokens.ROUTES)
PREFLIGHT: Final = (
    (b"access-control-allow-methods", b"GET, POST"),
    (b"access-control-allow-headers", b"Authorization, Content-Type"),
    (b"access-control-max-age", b"600"),
)


class App:
    """The server as an ASGI application. Its lifespan starts the engine, and ends when what was accepted is answered.

    Where the process has SIGHUP, that reloads all bundles from where they lie, all or none.

    Args:
        served: the models; the first one answers where a request names none.
        limits: of each model; the defaults if left out.
        metrics: what is counted in.
        api_key: without `Authorization: Bearer` and this key, requests are refused, but for probes and documents.
        origins: web pages that may ask; `*` is any.
        log: told of each request that has ended, one after the other.

    Two models of one name, or one that does not fit the limits, are an `OptionError`.
    """

    def __init__(
        self,
        served: Sequence[Served],
        limits: Limits | None = None,
        *,
        metrics: Metrics | None = None,
        api_key: str | None = None,
        origins: Sequence[str] = ("*",),
        log: Sequence[Callable[[Call], None]] = (),
    ) -> None:
        self.models = Models(served, limits or Limits(), metrics or Metrics())
        self.routes = (*Page().routes, *ROUTES, *openapi.routes(ROUTES, keyed=api_key is not None))
        self._key = None if api_key is None else f"Bearer {api_key}".encode()
        self._origins, self._log = {origin.encode() for origin in origins}, log
        self._paths: dict[str, dict[str, Route]] = {}
        for route in self.routes:
            self._paths.setdefault(route.path, {}).setdefault(route.method, route)
        named = [path for path in self._paths if "{model}" in path]
        self._named = [(re.compile(re.escape(path).replace(r"\{model\}", "([^/]+)")), path) for path in named]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "lifespan":
            await receive()
            self.start()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await self.models.stop()
            await send({"type": "lifespan.shutdown.complete"})
            return
        call = Call(scope, self.models)
        try:
            reply = await self._reply(call, receive)
            if reply is not None:
                call.status = reply.status
                headers = [*reply.headers, *self._allowed(call), (b"content-length", b"%d" % len(reply.body))]
                await send({"type": "http.response.start", "status": reply.status, "headers": headers})
                await send({"type": "http.response.body", "body": reply.body})
        finally:
            self._count(call)

    def start(self) -> None:
        """Start the engine, in the event loop that will ask it."""
        self.models.start()
        if hasattr(signal, "SIGHUP"):
            loop = asyncio.get_running_loop()
            with suppress(RuntimeError, ValueError):  # only the main thread has signals
                loop.add_signal_handler(signal.SIGHUP, lambda: loop.create_task(self._reload()))
        gc.collect()
        gc.freeze()  # what is loaded stays, and need not be looked through again

    async def _reload(self) -> None:
        try:
            await self.models.reload()
        except CascadeError as error:
            print(f"Nothing was reloaded: {error}", file=sys.stderr)
        else:
            print(f"Reloaded {', '.join(self.models.batchers)}", file=sys.stderr)

    async def _reply(self, call: Call, receive: Receive) -> Reply | None:
        """What a request gets; `None` where its client has gone. No such path, or another method: an empty body."""
        method, path = call.scope["method"], call.scope["path"]
        if method == "OPTIONS" and b"origin" in call.headers and b"access-control-request-method" in call.headers:
            return Reply(status=200 if len(self._allowed(call)) > 1 else 400, headers=PREFLIGHT)
        method = "GET" if method == "HEAD" else method
        shut = self._key is not None and not (method == "GET" and path in PUBLIC)
        if shut and not hmac.compare_digest(call.headers.get(b"authorization", b""), self._key or b""):
            return Reply(status=401, headers=((b"www-authenticate", b"Bearer"),))
        if path not in self._paths:
            matches = ((pattern.fullmatch(path), template) for pattern, template in self._named)
            match, path = next(((match, template) for match, template in matches if match), (None, ""))
            call.named = match[1] if match else None
        methods = self._paths.get(path, {})
        if method == "POST" and method in methods and self.models.overloaded:  # before anything is done for it
            call.route = path
            return Reply.refusal(Overloaded(1.0), methods[method].dialect)
        if method in methods:
            return await self._handled(methods[method], call, receive)
        return Reply(status=405, headers=((b"allow", ", ".join(methods).encode()),)) if methods else Reply(b"", 404, ())

    async def _handled(self, route: Route, call: Call, receive: Receive) -> Reply | None:
        """What a route's handler says, which ends where the body is late or its client leaves."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        ended: list[bool] = []

        def end(late: bool) -> None:
            ended.append(late)
            if task is not None:
                task.cancel()

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            end(False)

        call.route = route.path
        watching: list[asyncio.Handle | asyncio.Task[None]] = [loop.call_later(BODY_SECONDS, end, True)]
        try:
            if route.method == "POST":
                await call.read(receive)
                watching.pop().cancel()  # the body is here; what comes next is the client's leaving
                watching.append(loop.call_later(WATCH_AFTER, lambda: watching.append(loop.create_task(watch()))))
            return await route.handler(call)
        except CascadeError as error:
            return Reply.refusal(error if isinstance(error, Refused) else Failed(str(error)), route.dialect)
        except ConnectionResetError:
            return None
        except asyncio.CancelledError:
            if not ended:
                raise
            return Reply.refusal(LATE, route.dialect) if ended[0] else None
        except Exception as error:  # noqa: BLE001  # a fault of ours: told to the operator, not to the client
            traceback.print_exception(error)
            return Reply.of({"error": "internal error", "error_type": "Backend"}, 500)
        finally:
            for one in watching:
                one.cancel()

    def _allowed(self, call: Call) -> Headers:
        """What web pages of a request's origin may do."""
        origin = call.headers.get(b"origin")
        if origin is None:
            return ()
        if b"*" in self._origins:
            return ((b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", b"*"))
        more = ((b"access-control-allow-origin", origin), (b"access-control-expose-headers", b"*"))
        return ((b"vary", b"Origin"), *(more if origin in self._origins else ()))

    def _count(self, call: Call) -> None:
        shown = call.route.startswith("/page/")  # what the page itself asks is no traffic
        if not shown and (call.scope["method"] == "POST" or call.status >= 400):
            seconds, metrics = perf_counter() - call.begin, self.models.metrics
            metrics.request(call.route, call.status, seconds, batch=call.items > 1, answers=call.answers)
        for tell in self._log:
            tell(call)

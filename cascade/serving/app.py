"""`create_app`: all routes as one ASGI application, behind a door where keys, origins and counters are."""

from __future__ import annotations

import asyncio
import gc
import hmac
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from time import perf_counter
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cascade.exceptions import CascadeError
from cascade.serving import kserve, openapi, tei, tokens, vllm
from cascade.serving.limits import Limits
from cascade.serving.metrics import Metrics
from cascade.serving.models import Models
from cascade.serving.page import Page
from cascade.serving.served import Served
from cascade.serving.wire import Call

PUBLIC: Final = ("/", "/health", "/ping", "/metrics", *openapi.PATHS, "/v2", "/v2/health/live", "/v2/health/ready")
"""What needs no key to be read, beside the files of the page."""
STOP_SECONDS: Final = 30.0
ERRORS: Final = {424: "inference", 429: "overloaded", 499: "dropped"}
ROUTES: Final = (*tei.ROUTES, *vllm.ROUTES, *kserve.ROUTES, *tokens.ROUTES)


def create_app(
    served: Sequence[Served],
    limits: Limits | None = None,
    *,
    metrics: Metrics | None = None,
    api_key: str | None = None,
    origins: Sequence[str] = ("*",),
    log: Sequence[Callable[[Call], None]] = (),
) -> Starlette:
    """The server as an ASGI application. Its lifespan starts the engine, and ends when what was accepted is answered.

    Where the process has SIGHUP, that reloads all bundles from where they lie, all or none.

    Args:
        served: the models; the first one answers where a request names none.
        limits: of each model; the defaults if left out.
        metrics: what is counted in.
        api_key: without `Authorization: Bearer` and this key, requests are refused, but for probes and documents.
        origins: web pages that may ask; `*` is any.
        log: told of each request that has ended, one after the other.

    Raises:
        OptionError: two models have one name, or one does not fit the limits.
    """
    models = Models(served, limits or Limits(), metrics or Metrics())

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        for batcher in models.batchers.values():
            batcher.start()
        if hasattr(signal, "SIGHUP"):
            with suppress(RuntimeError, ValueError):  # only the main thread has signals
                loop.add_signal_handler(signal.SIGHUP, lambda: loop.create_task(_reloaded(models)))
        gc.collect()
        gc.freeze()  # what is loaded stays, and need not be looked through again
        yield
        await asyncio.gather(
            *(asyncio.to_thread(batcher.stop, seconds=STOP_SECONDS) for batcher in models.batchers.values())
        )

    app = Starlette(
        routes=[*Page().routes, *ROUTES, *openapi.routes(ROUTES, keyed=api_key is not None)],
        middleware=[Middleware(Door, models=models, api_key=api_key, origins=origins, log=log)],
        exception_handlers={HTTPException: _empty, Exception: _broken},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


async def _reloaded(models: Models) -> None:
    try:
        await models.reload()
    except CascadeError as error:
        print(f"Nothing was reloaded: {error}", file=sys.stderr)
    else:
        print(f"Reloaded {', '.join(models.batchers)}", file=sys.stderr)


async def _empty(_: Request, error: Exception) -> Response:
    """No such path, or another method: an empty body."""
    found = error if isinstance(error, HTTPException) else HTTPException(500)
    return Response(status_code=found.status_code, headers=found.headers)


async def _broken(_: Request, error: Exception) -> Response:
    """A fault of ours: told to the operator, not to the client."""
    traceback.print_exception(error)
    return JSONResponse({"error": "internal error", "error_type": "Backend"}, 500)


class Door:
    """What all requests pass: origins, the key, and after the answer the counters and the log."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        models: Models,
        api_key: str | None,
        origins: Sequence[str],
        log: Sequence[Callable[[Call], None]],
    ) -> None:
        self._app, self._models, self._log = app, models, log
        self._key = None if api_key is None else f"Bearer {api_key}".encode()
        headers = ("Authorization", "Content-Type")
        self._cors = CORSMiddleware(self._passed, origins, ("GET", "POST"), headers, expose_headers=("*",))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        call = scope["cascade"] = Call(scope, self._models)

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                call.status = message["status"]
            await send(message)

        try:
            await (self._cors if b"origin" in call.headers else self._passed)(scope, receive, noted)
        except Exception:
            call.status = 500
            raise
        finally:
            self._count(call)
            del scope["cascade"]  # a circle, which only the garbage collector would find

    async def _passed(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._key is not None and not self._open(scope):
            given = scope["cascade"].headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, self._key):
                await Response(status_code=401, headers={"WWW-Authenticate": "Bearer"})(scope, receive, send)
                return
        await self._app(scope, receive, send)

    @staticmethod
    def _open(scope: Scope) -> bool:
        path = scope["path"]
        return scope["method"] in ("GET", "HEAD") and (path in PUBLIC or path in Page.FILES)

    def _count(self, call: Call) -> None:
        shown = call.route.startswith("/page/")  # what the page itself asks is no traffic
        if not shown and (call.scope["method"] == "POST" or call.status >= 400):
            self._models.metrics.request(
                call.route,
                call.status,
                perf_counter() - call.begin,
                batch=call.items > 1,
                answers=call.answers,
                error=ERRORS.get(call.status, "validation"),
            )
        for tell in self._log:
            tell(call)

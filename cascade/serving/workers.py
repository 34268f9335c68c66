"""`serve`: one process, or several by spawn that share a socket under uvicorn's supervisor, which replaces the dead."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait
from typing import Any, Final

import uvicorn
from prometheus_client.multiprocess import mark_process_dead
from uvicorn.config import STARTUP_FAILURE
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from cascade.core.limits import Limits
from cascade.exceptions import CascadeError, OptionError
from cascade.serving.app import App
from cascade.serving.logs import Log, spans
from cascade.serving.metrics import Metrics
from cascade.serving.served import Served
from cascade.serving.wire import Call

START_SECONDS: Final = 60
"""A worker must be ready after so long, and must answer its supervisor within it."""
IDLE_SECONDS: Final = 75
"""Connections may be idle for longer than proxies keep them, which would otherwise lose requests."""
HEAD_SECONDS: Final = 30.0
"""The head of a request must be whole so long after its first byte, or the connection is closed."""
SWITCH_SECONDS: Final = 0.00005
"""For so long the event loop and the engine's threads wait for each other at most; Python's default is 5 ms.

The loop asks for the interpreter anew for each socket: with 0.5 ms answers lay for 50 ms under load before they left.
"""
LISTENING: Final = 16
"""Sockets of one address: libuv takes one connection from each in a turn, and others would wait for seconds."""
SHARED: Final = "PROMETHEUS_MULTIPROC_DIR"


@dataclass(frozen=True, kw_only=True)
class Setup:
    """All that a process needs to serve; it is pickled for workers. Called, it loads the bundles and gives the server.

    Attributes:
        models: names, and where the bundle of each lies; the first is the default.
        limits: of each model.
        threads: of each model in each process; what the process may use if left out.
        monitor: share of the answers that are compared with full depth; `log_share`: of the requests that are logged.
        tei_metrics: whether to count under TEI's names as well.
        api_key, origins: see `App`.
        otlp: where spans go, and the name of the service; `None`: nowhere.
    """

    models: tuple[tuple[str, str], ...]
    limits: Limits
    threads: int | None = None
    monitor: float = 0.0
    tei_metrics: bool = False
    api_key: str | None = None
    origins: tuple[str, ...] = ("*",)
    log_share: float = 0.0
    otlp: tuple[str, str] | None = None
    revision: str | None = None

    def __call__(self) -> App:
        sys.setswitchinterval(SWITCH_SECONDS)
        options: dict[str, Any] = {"threads": self.threads, "share": self.monitor, "revision": self.revision}
        return self.app([Served.load(name, path, **options) for name, path in self.models])

    def app(self, served: Sequence[Served]) -> App:
        """The server of models that are loaded."""
        log: list[Callable[[Call], None]] = [Log(self.log_share), *([] if self.otlp is None else [spans(*self.otlp)])]
        metrics = Metrics(tei=self.tei_metrics)
        return App(served, self.limits, metrics=metrics, api_key=self.api_key, origins=self.origins, log=log)

    def worker(self, *, status: int = STARTUP_FAILURE) -> App:
        """The same in a worker, which ends with its parent. A fault is one line and this status; uvicorn's ends all."""
        parent = multiprocessing.parent_process()

        def follow() -> None:
            if parent is not None:
                parent.join()
                os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=follow, daemon=True).start()
        try:
            return self()
        except CascadeError as error:
            print(f"Error: {error}", file=sys.stderr)
            sys.exit(status)


class _Protocol(HttpToolsProtocol):
    """A connection that is closed where nothing comes, or where the head of a request comes too slowly."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        self._timer = self.loop.call_later(IDLE_SECONDS, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._timer.cancel()
        self._timer = self.loop.call_later(HEAD_SECONDS, self._late)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._timer.cancel()
        super().on_headers_complete()

    def _late(self) -> None:
        if self.cycle is None or self.cycle.response_complete:  # type: ignore[redundant-expr]  # uvicorn says never None
            self.transport.close()
        else:  # the answer to a request before goes out first
            self._timer = self.loop.call_later(HEAD_SECONDS, self._late)


class _Server(uvicorn.Server):
    """A server that tells when it is ready."""

    def __init__(self, config: uvicorn.Config, tell: Callable[[], None]) -> None:
        super().__init__(config)
        self._tell = tell

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._tell()


class _Supervisor(Multiprocess):
    """Workers that share a socket. It tells when all are ready, and hands SIGHUP on to them, which reload."""

    def __init__(
        self, setup: Setup, config: uvicorn.Config, shared: list[socket.socket], tell: Callable[[], None]
    ) -> None:
        super().__init__(config, shared)
        self._setup, self._tell = setup, tell

    def init_processes(self) -> None:
        super().init_processes()
        self._watch(self.processes)
        if all(process.wait_until_ready(START_SECONDS, self.should_exit) for process in self.processes):
            self._tell()
            # From now on a worker that cannot start is no reason to end those that answer: it is tried again.
            self.config.app = partial(self._setup.worker, status=1)

    def keep_subprocess_alive(self) -> None:
        before = {process.pid for process in self.processes}
        super().keep_subprocess_alive()
        for pid in before - {process.pid for process in self.processes}:
            mark_process_dead(pid)  # type: ignore[no-untyped-call]
        self._watch([process for process in self.processes if process.pid not in before])

    def _watch(self, processes: Sequence[Process]) -> None:
        for process in processes:
            threading.Thread(target=_answer_for, args=(process,), daemon=True).start()

    def handle_hup(self) -> None:
        for process in self.processes:
            if process.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGHUP)


def _answer_for(process: Process) -> None:
    """Answer the ping that a worker had when it died, on whose answer the supervisor would wait `START_SECONDS`."""
    wait([process.process.sentinel])
    with suppress(OSError):  # the supervisor was faster
        process.child_conn.send(False)


def serve(setup: Setup, *, hostname: str, port: int, workers: int = 1) -> int:
    """Serve until SIGTERM or Ctrl-C, then answer what was accepted; the status of the process.

    `port`: 0 takes a free one, which the line on standard error names. `workers`: processes, each with all models. An
    address that cannot be had is an `OptionError`, a bundle that cannot be loaded a `BundleError` (of workers: they say
    so, and the status is 2).
    """
    with suppress(ImportError, OSError, ValueError):  # as many open connections as this process may have
        import resource

        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    first = bound(hostname, port)
    shared = [first, *(first.dup() for _ in range(LISTENING - 1))]
    address = f"http://{f'[{hostname}]' if ':' in hostname else hostname}:{first.getsockname()[1]}"
    names = ", ".join(f"{name} ({path})" for name, path in setup.models)

    def tell() -> None:
        count = f", {workers} workers" if workers > 1 else ""
        print(f"Serving {names} on {address}, process {os.getpid()}{count}", file=sys.stderr, flush=True)

    config = partial(
        uvicorn.Config,
        workers=workers,
        interface="asgi3",
        lifespan="on",
        ws="none",
        log_config=None,
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        http=_Protocol,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=30,
        timeout_worker_healthcheck=START_SECONDS,
    )
    if workers == 1:
        server = _Server(config(setup()), tell)
        for number in (signal.SIGINT, signal.SIGTERM):  # what uvicorn raises again in the end
            signal.signal(number, lambda *_: setattr(server, "should_exit", True))
        server.run(shared)
        return 0 if server.started else 2
    with tempfile.TemporaryDirectory(prefix="cascade-serve-") as counts:
        os.environ.setdefault(SHARED, counts)
        supervisor = _Supervisor(setup, config(setup.worker, factory=True), shared, tell)
        supervisor.run()
    return 2 if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes) else 0


def bound(hostname: str, port: int) -> socket.socket:
    """A socket at an address, on which nobody listens yet; an `OptionError` where it cannot be had."""
    made = socket.socket(socket.AF_INET6 if ":" in hostname else socket.AF_INET)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((hostname, port))
    except OSError as error:
        made.close()
        raise OptionError(f"--port must be free on --hostname, got {hostname}:{port} ({error.strerror})") from None
    made.set_inheritable(True)
    return made

"""What is told of requests: a line of JSON each at most, of a share of them; spans for OpenTelemetry if asked for."""

from __future__ import annotations

import json
import queue
import random
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from importlib import import_module
from typing import Any, Final, TextIO

from cascade.exceptions import MissingExtraError, printable
from cascade.serving.wire import Call

KEPT: Final = 1000
"""Lines that wait at most: what reads them may be slow, and the event loop does not wait for it."""


class Log:
    """Lines of JSON about requests, written by a thread of its own. Lines for which there is no room are left out.

    `share`: of the requests that are told; of what failed here (5xx) all are. `stream`: standard output if left out.
    """

    def __init__(self, share: float, stream: TextIO | None = None) -> None:
        self._share, self._stream = share, stream
        self._lines: queue.Queue[str] = queue.Queue(KEPT)
        threading.Thread(target=self._write, name="cascade-log", daemon=True).start()

    def __call__(self, call: Call) -> None:
        """Tell of a request that has ended."""
        if call.status >= 500 or random.random() < self._share:  # noqa: S311  # a sample, no secret
            self.tell("request", **facts(call))

    def tell(self, event: str, **told: object) -> None:
        """A line about something else."""
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        with suppress(queue.Full):
            self._lines.put_nowait(json.dumps({"time": now, "event": event, **told}))

    def _write(self) -> None:
        while True:
            line = self._lines.get()
            with suppress(OSError, ValueError):  # nobody reads it any more
                print(line, file=self._stream or sys.stdout, flush=True)
            self._lines.task_done()


def facts(call: Call) -> dict[str, object]:
    """What is known of a request."""
    milliseconds = round(1000 * (time.perf_counter() - call.begin), 3)
    told = {"method": call.scope["method"], "path": printable(call.scope["path"])[:200]}
    told |= {"status": call.status, "ms": milliseconds}
    answers = call.answers
    if answers is not None:
        told |= {"model": call.model, "items": call.items, "characters": call.characters, "tokens": answers.tokens}
        told |= {"tier": int(answers.tier.max(initial=0)), "degraded": answers.degraded}
    return told


def spans(endpoint: str, service: str) -> Callable[[Call], None]:
    """What sends a span for each request, a child of its `traceparent`, with one for each part of the answer.

    `endpoint`: of a collector that takes OTLP over gRPC; a `MissingExtraError` without OpenTelemetry's packages.
    """
    try:
        api, sdk = import_module("opentelemetry.trace"), import_module("opentelemetry.sdk.trace")
        exporter = import_module("opentelemetry.exporter.otlp.proto.grpc.trace_exporter")
        export, propagate = import_module("opentelemetry.sdk.trace.export"), import_module("opentelemetry.propagate")
        resources = import_module("opentelemetry.sdk.resources")
    except ImportError as error:
        raise MissingExtraError(
            f"--otlp-endpoint needs OpenTelemetry, but {error.name} is missing; "
            "pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-grpc"
        ) from error
    provider: Any = sdk.TracerProvider(resource=resources.Resource.create({"service.name": service}))
    provider.add_span_processor(export.BatchSpanProcessor(exporter.OTLPSpanExporter(endpoint=endpoint)))
    tracer = provider.get_tracer("cascade")

    def send(call: Call) -> None:
        end = time.time_ns()
        begin = end - int(1e9 * (time.perf_counter() - call.begin))
        context = propagate.extract({"traceparent": call.headers.get(b"traceparent", b"").decode("latin-1")})
        name = f"{call.scope['method']} {call.scope['path'][:200]}"
        span = tracer.start_span(name, context, attributes=facts(call), start_time=begin)
        inside, at = api.set_span_in_context(span), begin
        for part, seconds in ({} if call.answers is None else call.answers.seconds).items():
            child, at = tracer.start_span(part, inside, start_time=at), at + int(1e9 * seconds)
            child.end(at)
        span.end(end)

    return send

from __future__ import annotations

import io
import json
import sys
import types
from typing import Any

import pytest

from cascade import Classifier
from cascade.exceptions import MissingExtraError
from cascade.serving import logs
from cascade.serving.logs import Log, spans
from cascade.serving.wire import Call
from tests.serving.http import TEXT, serving


def lines(log: Log, stream: io.StringIO) -> list[dict[str, Any]]:
    log._lines.join()
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_request_is_a_line_of_json(clf: Classifier) -> None:
    stream = io.StringIO()
    log = Log(1.0, stream)
    with serving(clf, log=[log]) as client:
        client.post("/predict", json={"inputs": [[TEXT], ["a"]]})
        client.get("/x%1b%0ay")
    first, second = lines(log, stream)
    assert (first["method"], first["path"], first["status"], first["model"]) == ("POST", "/predict", 200, "toy")
    assert (first["items"], first["characters"], first["degraded"]) == (2, len(TEXT) + 1, False)
    assert first["tokens"] == clf.predict([TEXT, "a"]).stats.tokens
    assert first["ms"] > 0
    assert (second["status"], second["path"]) == (404, "/x\\x1b\\ny")


def test_a_share_is_told_and_all_that_failed_here(clf: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    log = Log(0.0, stream)
    with serving(clf, log=[log]) as client:
        client.post("/predict", json={"inputs": TEXT})
        monkeypatch.setattr("cascade.serving.models.Models.healthy", False)
        client.get("/health")
    assert [line["status"] for line in lines(log, stream)] == [503]


def test_what_cannot_be_kept_up_with_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs.Log, "_write", lambda log: None)
    log = Log(1.0)
    for number in range(2 * logs.KEPT):
        log.tell("x", number=number)
    assert log._lines.qsize() == logs.KEPT


def test_spans_need_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(MissingExtraError, match="pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-grpc"):
        spans("http://localhost:4317", "cascade")


def test_a_request_is_a_span_with_its_parts(clf: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []

    class Span:
        def __init__(self, name: str, context: Any = None, attributes: Any = None, start_time: int = 0) -> None:
            self.told = {"name": name, "context": context, "attributes": attributes, "begin": start_time}

        def end(self, at: int) -> None:
            made.append({**self.told, "end": at})

    class Provider:
        def __init__(self, resource: Any) -> None:
            assert resource == {"service.name": "mine"}

        def add_span_processor(self, processor: Any) -> None:
            assert processor == ("batch", "http://localhost:4317")

        def get_tracer(self, name: str) -> Any:
            return types.SimpleNamespace(start_span=Span)

    def module(name: str, **members: Any) -> None:
        fake = types.ModuleType(name)
        vars(fake).update(members)
        monkeypatch.setitem(sys.modules, name, fake)

    for name in ("opentelemetry", "opentelemetry.exporter", "opentelemetry.exporter.otlp"):
        module(name)
    module("opentelemetry.exporter.otlp.proto")
    module("opentelemetry.exporter.otlp.proto.grpc")
    module("opentelemetry.trace", set_span_in_context=lambda span: span.told["name"])
    module("opentelemetry.sdk")
    module("opentelemetry.sdk.trace", TracerProvider=Provider)
    module("opentelemetry.sdk.trace.export", BatchSpanProcessor=lambda exporter: ("batch", exporter))
    module("opentelemetry.exporter.otlp.proto.grpc.trace_exporter", OTLPSpanExporter=lambda endpoint: endpoint)
    module("opentelemetry.propagate", extract=lambda carrier: carrier["traceparent"])
    module("opentelemetry.sdk.resources", Resource=types.SimpleNamespace(create=lambda attributes: attributes))
    calls: list[Call] = []
    with serving(clf, log=[spans("http://localhost:4317", "mine"), calls.append]) as client:
        client.post("/predict", json={"inputs": TEXT}, headers={"traceparent": "00-ab-cd-01"})
    *parts, whole = made
    assert (whole["name"], whole["context"]) == ("POST /predict", "00-ab-cd-01")
    assert whole["attributes"]["status"] == 200
    assert [part["name"] for part in parts] == ["tokenize", "queue", "inference"]
    assert all(part["context"] == "POST /predict" for part in parts)
    assert whole["begin"] <= parts[0]["begin"] <= parts[0]["end"] == parts[1]["begin"]
    assert len(calls) == 1

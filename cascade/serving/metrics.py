"""Counters and histograms of a server for Prometheus, under our names, and under those of text-embeddings-inference.

Several processes share them where PROMETHEUS_MULTIPROC_DIR names a folder before this module is imported.
"""

from __future__ import annotations

import os
from collections import Counter as Counts
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from cascade.core.rows import FloatArray, IntArray
from cascade.monitoring.state import MonitorState

if TYPE_CHECKING:
    from cascade.serving.work import Answers

SECONDS: Final = (0.001, 0.002, 0.004, 0.007, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 3.0, 10.0)
TOKENS: Final = tuple(float(1 << power) for power in range(4, 16))
SURE: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
FEW: Final = 64  # numpy counts more faster
TEI_SECONDS: Final = tuple(1e-5 * 1.5**power for power in range(35))
TEI_PARTS: Final = {"tokenization": "tokenize", "queue": "queue", "inference": "inference"}


class _Histogram(Histogram):
    """A histogram that takes many values at once."""

    def observe_each(self, values: FloatArray | list[float]) -> None:
        """Count values of shape `(n,)`."""
        if len(values) == 1:
            self.observe(float(values[0]))
            return
        self._sum.inc(float(np.sum(values)))
        places = np.searchsorted(self._upper_bounds, values)
        for place, count in enumerate(np.bincount(places, minlength=1).tolist()):
            if count:
                self._buckets[place].inc(count)


def _counted(codes: IntArray) -> dict[int, int]:
    known, counts = np.unique(codes, return_counts=True)
    return dict(zip(known.tolist(), counts.tolist(), strict=True))


class ModelMetrics:
    """What is counted of one model."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._metrics, self._model = metrics, model
        self._routed: dict[int, Any] = {}
        self._tiers: dict[str, tuple[Any, Any]] = {}
        self._queued, self._sure = metrics.queued.labels(model), metrics.sure.labels(model)
        self._waiting, self._level = metrics.waiting.labels(model), metrics.level.labels(model)
        self._degraded = metrics.degraded.labels(model)

    def ran(self, seconds: dict[str, float], tokens: int, items: int = 0) -> None:
        """A batch of so many tokens went through tiers. `seconds`: by part (`Meter`); `items`: of the first tier."""
        for part, took in seconds.items():
            if part.startswith("tier"):
                known = self._tiers.get(part)
                if known is None:
                    labels = self._model, part.removeprefix("tier")
                    known = self._tiers[part] = (
                        self._metrics.inference.labels(*labels),
                        self._metrics.batch.labels(*labels),
                    )
                known[0].observe(took)
                known[1].observe(tokens)
        if self._metrics.tei is not None and items:
            self._metrics.tei["te_batch_next_size"].observe(items)
            self._metrics.tei["te_batch_next_tokens"].observe(tokens)

    def answered(self, tier: IntArray, exit_layer: IntArray, confidence: FloatArray) -> None:
        """So many units were answered. Shapes `(units,)`."""
        codes = Counts((tier << 8 | exit_layer).tolist()) if len(tier) < FEW else _counted(tier << 8 | exit_layer)
        for code, count in codes.items():
            if code not in self._routed:
                self._routed[code] = self._metrics.routed.labels(self._model, str(code >> 8), str(code & 255))
            self._routed[code].inc(count)
        self._sure.observe_each(confidence)

    def requests(self, queued: list[float], degraded: int) -> None:
        """Some requests were answered, which waited for so many seconds."""
        self._queued.observe_each(queued)
        if degraded:
            self._degraded.inc(degraded)

    def state(self, tokens: int, level: int, watched: MonitorState | None) -> None:
        """What waits, at which level, and what a monitor knows."""
        self._waiting.set(tokens)
        self._level.set(level)
        if self._metrics.tei is not None:
            self._metrics.tei["te_queue_size"].set(tokens)
        if watched is not None:
            lower, upper = watched.interval
            found = {"shadowed": watched.shadowed, "disagreements": watched.disagreements, "lower": lower}
            found |= {"upper": upper, "alarm": watched.alarm_at is not None, "shifted": watched.shifted_at is not None}
            for name, value in found.items():
                self._metrics.watched.labels(self._model, name).set(float(value))


class Metrics:
    """All that a server counts. `tei`: under the names of text-embeddings-inference as well."""

    content_type: Final = CONTENT_TYPE_LATEST

    def __init__(self, *, tei: bool = False) -> None:
        own = self._registry = CollectorRegistry()
        self._shared = bool(os.environ.get("PROMETHEUS_MULTIPROC_DIR"))
        self._models: dict[str, ModelMetrics] = {}
        self.refresh: dict[str, Callable[[], object]] = {}  # by model: sets the gauges before they are read

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"cascade_{name}", text, labels, registry=own)

        def gauge(name: str, text: str, *labels: str, mode: Any = "livesum") -> Gauge:
            return Gauge(f"cascade_{name}", text, labels, registry=own, multiprocess_mode=mode)

        def histogram(name: str, text: str, buckets: Iterable[float], *labels: str) -> _Histogram:
            return _Histogram(f"cascade_{name}", text, labels, registry=own, buckets=tuple(buckets))

        self._requests = counter("requests", "Requests by route and status.", "method", "code")
        self._seconds = histogram("request_duration_seconds", "From a request's arrival to its answer.", SECONDS)
        self.queued = histogram("queue_duration_seconds", "For how long an answered request waited.", SECONDS, "model")
        self.inference = histogram("inference_duration_seconds", "A tier with a batch.", SECONDS, "model", "tier")
        self.batch = histogram("batch_tokens", "Tokens of a batch of a tier.", TOKENS, "model", "tier")
        self.routed = counter("routed", "Units by the tier and exit that answered.", "model", "tier", "exit")
        self.sure = histogram("confidence", "Largest probability of a unit's answer.", SURE, "model")
        self.degraded = counter("degraded", "Requests that a cheaper level answered.", "model")
        self.waiting = gauge("queue_size", "Tokens that wait.", "model")
        self.level = gauge("level", "Level that answers, 0 as certified.", "model", mode="livemax")
        self.watched = gauge("monitor", "Answers against full depth.", "model", "what", mode="livemax")
        self.tei = _tei(own) if tei else None

    def of(self, model: str) -> ModelMetrics:
        """What is counted of a model."""
        if model not in self._models:
            self._models[model] = ModelMetrics(self, model)
        return self._models[model]

    def request(
        self,
        method: str,
        code: int,
        seconds: float,
        *,
        batch: bool = False,
        answers: Answers | None = None,
        error: str = "validation",
    ) -> None:
        """A request ended. `method`: its route; `batch`: of several items; `error`: TEI's word for one that failed."""
        self._requests.labels(method, str(code)).inc()
        self._seconds.observe(seconds)
        if self.tei is None or (answers is None and code < 400):
            return
        kind = "batch" if batch else "single"
        self.tei["te_request_count"].labels(kind).inc()
        self.tei["te_predict_count"].inc()
        if answers is None:
            self.tei["te_request_failure"].labels(error).inc()
            return
        self.tei["te_request_success"].labels(kind).inc()
        self.tei["te_predict_success"].inc()
        self.tei["te_request_input_length"].observe(answers.tokens)
        for prefix in ("te_request", "te_predict"):
            self.tei[f"{prefix}_duration"].observe(seconds)
            for name, part in TEI_PARTS.items():
                self.tei[f"{prefix}_{name}_duration"].observe(answers.seconds[part])

    def render(self) -> bytes:
        """All of it in Prometheus' text format (`content_type`); of all processes, where they share it."""
        return generate_latest(self._current())

    def live(self) -> dict[str, Any]:
        """What a page shows: names with `[labels, value]` pairs; of histograms their sums, counts and buckets."""
        found: dict[str, Any] = {}
        for family in self._current().collect():
            for sample in family.samples:
                if sample.name.startswith("cascade_") and not sample.name.endswith("_created"):
                    found.setdefault(sample.name, []).append([sample.labels, sample.value])
        return found

    def _current(self) -> CollectorRegistry:
        for refresh in list(self.refresh.values()):
            refresh()
        if not self._shared:
            return self._registry
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return registry


def _tei(registry: CollectorRegistry) -> dict[str, Any]:
    """Metrics of text-embeddings-inference. Its counters lack the `_total` that this library adds: gauges have none."""
    made: dict[str, Any] = {}
    for name, labels in (
        ("request_count", ["method"]),
        ("request_success", ["method"]),
        ("request_failure", ["err"]),
        ("predict_count", []),
        ("predict_success", []),
        ("queue_size", []),
    ):
        mode: Any = "livesum" if name == "queue_size" else "sum"
        made[f"te_{name}"] = Gauge(f"te_{name}", "As in TEI.", labels, registry=registry, multiprocess_mode=mode)
    buckets = {f"{one}{part}_duration": TEI_SECONDS for one in ("request", "predict") for part in ("", *_PARTS)}
    buckets |= {"request_input_length": TOKENS, "batch_next_tokens": TOKENS, "batch_next_size": TOKENS}
    for name, bounds in buckets.items():
        made[f"te_{name}"] = Histogram(f"te_{name}", "As in TEI.", registry=registry, buckets=bounds)
    return made


_PARTS = tuple(f"_{name}" for name in TEI_PARTS)

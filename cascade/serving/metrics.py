"""Counters and histograms of a server for Prometheus, under our names, and under those of text-embeddings-inference.

Several processes share them where PROMETHEUS_MULTIPROC_DIR names a folder before this module is imported.
"""

from __future__ import annotations

import os
from collections import Counter as Counts
from collections.abc import Callable, Mapping
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from cascade.core.rows import FloatArray, IntArray

if TYPE_CHECKING:
    from cascade.serving.work import Answers

SECONDS: Final = (0.001, 0.002, 0.004, 0.007, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 3.0, 10.0)
TOKENS: Final = tuple(float(1 << power) for power in range(4, 16))
SURE: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
TEI_SECONDS: Final = tuple(1e-5 * 1.5**power for power in range(35))
TEI_ERRORS: Final = {424: "inference", 429: "overloaded", 499: "dropped"}
TEI_PARTS: Final = {"tokenization": "tokenize", "queue": "queue", "inference": "inference"}


class _Histogram(Histogram):
    """A histogram that takes many values at once."""

    def observe_each(self, values: FloatArray) -> None:
        """Count values of shape `(n,)`."""
        self._sum.inc(float(np.sum(values)))
        places = np.bincount(np.searchsorted(self._upper_bounds, values), minlength=1).tolist()
        for place in np.flatnonzero(places).tolist():
            self._buckets[place].inc(places[place])


class Metrics:
    """All that a server counts, by model. `tei`: under the names of text-embeddings-inference as well.

    `refresh`: by model, what sets its gauges before they are read; `content_type`: of `render`.
    """

    content_type: Final = CONTENT_TYPE_LATEST

    def __init__(self, *, tei: bool = False) -> None:
        own = self._registry = CollectorRegistry()
        self._shared = bool(os.environ.get("PROMETHEUS_MULTIPROC_DIR"))
        self.refresh: dict[str, Callable[[], object]] = {}

        def made(kind: Callable[..., Any], name: str, text: str, *labels: str, **more: Any) -> Any:
            return kind(f"cascade_{name}", text, labels, registry=own, **more)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Any:
            return made(_Histogram, name, text, *labels, buckets=buckets)

        self._requests = made(Counter, "requests", "Requests by route and status.", "method", "code")
        self._seconds = histogram("request_duration_seconds", "From a request's arrival to its answer.", SECONDS)
        self._queued = histogram("queue_duration_seconds", "For how long an answered request waited.", SECONDS, "model")
        self._inference = histogram("inference_duration_seconds", "A tier with a batch.", SECONDS, "model", "tier")
        self._batch = histogram("batch_tokens", "Tokens of a batch of a tier.", TOKENS, "model", "tier")
        self._routed = made(Counter, "routed", "Units by the tier and exit that answered.", "model", "tier", "exit")
        self._sure = histogram("confidence", "Largest probability of a unit's answer.", SURE, "model")
        self._degraded = made(Counter, "degraded", "Requests that a cheaper level answered.", "model")
        live: Any = {"multiprocess_mode": "livemax"}
        self._waiting = made(Gauge, "queue_size", "Tokens that wait.", "model", multiprocess_mode="livesum")
        self._level = made(Gauge, "level", "Level that answers, 0 as certified.", "model", **live)
        self._watched = made(Gauge, "monitor", "Answers against full depth.", "model", "what", **live)
        self._tei = _tei(own) if tei else None

    def ran(self, model: str, seconds: Mapping[str, float], tokens: int, items: int = 0) -> None:
        """A batch of so many tokens went through tiers. `seconds`: by part (`Meter`); `items`: of the first tier."""
        for part, took in seconds.items():
            if part.startswith("tier"):
                tier = part.removeprefix("tier")
                self._inference.labels(model, tier).observe(took)
                self._batch.labels(model, tier).observe(tokens)
        if self._tei is not None and items:
            self._tei["te_batch_next_size"].observe(items)
            self._tei["te_batch_next_tokens"].observe(tokens)

    def answered(self, model: str, tier: IntArray, exit_layer: IntArray, confidence: FloatArray) -> None:
        """So many units were answered. Shapes `(units,)`."""
        for code, count in Counts((tier << 8 | exit_layer).tolist()).items():
            self._routed.labels(model, code >> 8, code & 255).inc(count)
        self._sure.labels(model).observe_each(confidence)

    def answer(self, model: str, queued: float, degraded: bool) -> None:
        """A request was answered, which waited for so many seconds."""
        self._queued.labels(model).observe(queued)
        if degraded:
            self._degraded.labels(model).inc()

    def state(self, model: str, tokens: int, level: int, watched: Mapping[str, Any] | None) -> None:
        """What waits, at which level, and what a monitor knows (`Watch.told`)."""
        self._waiting.labels(model).set(tokens)
        self._level.labels(model).set(level)
        if self._tei is not None:
            self._tei["te_queue_size"].set(tokens)
        if watched is not None:
            lower, upper = watched["interval"]
            names = ("shadowed", "disagreements", "alarm", "shifted")
            for name, value in {**{name: watched[name] for name in names}, "lower": lower, "upper": upper}.items():
                self._watched.labels(model, name).set(float(value))

    def request(
        self, method: str, code: int, seconds: float, *, batch: bool = False, answers: Answers | None = None
    ) -> None:
        """A request ended. `method`: its route; `batch`: of several items; `answers`: `None` where it failed."""
        self._requests.labels(method, code).inc()
        self._seconds.observe(seconds)
        if self._tei is None or (answers is None and code < 400):
            return
        kind = "batch" if batch else "single"
        self._tei["te_request_count"].labels(kind).inc()
        self._tei["te_predict_count"].inc()
        if answers is None:
            self._tei["te_request_failure"].labels(TEI_ERRORS.get(code, "validation")).inc()
            return
        self._tei["te_request_success"].labels(kind).inc()
        self._tei["te_predict_success"].inc()
        self._tei["te_request_input_length"].observe(answers.tokens)
        for prefix in ("te_request", "te_predict"):
            self._tei[f"{prefix}_duration"].observe(seconds)
            for name, part in TEI_PARTS.items():
                self._tei[f"{prefix}_{name}_duration"].observe(answers.seconds[part])

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


def _tei(own: CollectorRegistry) -> dict[str, Any]:
    """Metrics of text-embeddings-inference. Its counters lack the `_total` that this library adds: gauges have none."""
    counts: dict[str, tuple[str, ...]] = {f"request_{what}": ("method",) for what in ("count", "success")}
    counts |= {"request_failure": ("err",), "predict_count": (), "predict_success": (), "queue_size": ()}
    buckets = dict.fromkeys(("request_input_length", "batch_next_tokens", "batch_next_size"), TOKENS)
    parts = product(("request", "predict"), ("", *(f"_{name}" for name in TEI_PARTS)))
    buckets |= {f"{one}{part}_duration": TEI_SECONDS for one, part in parts}
    made: dict[str, Any] = {}
    for name, labels in counts.items():
        mode: Any = "livesum" if name == "queue_size" else "sum"
        made[f"te_{name}"] = Gauge(f"te_{name}", "As in TEI.", labels, registry=own, multiprocess_mode=mode)
    for name, bounds in buckets.items():
        made[f"te_{name}"] = Histogram(f"te_{name}", "As in TEI.", registry=own, buckets=bounds)
    return made

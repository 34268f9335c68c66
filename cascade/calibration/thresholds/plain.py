"""Deferral within a budget or a latency, without any guarantee: a quantile of confidence, and a measurement."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cascade.calibration.induction import between
from cascade.core.checks import check_inside
from cascade.core.results import SentenceRoutes
from cascade.core.rows import FloatArray
from cascade.exceptions import OptionError
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger
from cascade.policies.routing import Threshold, defer_none

TIMED = 500  # items that a setting is timed on, at most
HALVINGS = 7  # of the share to defer, while a latency is looked for
REPEATS = 2  # of each timing; the faster one counts


@dataclass(frozen=True)
class Plain:
    """A threshold, the share of the units that it defers of these examples, and seconds per item, measured."""

    router: Threshold
    deferred: float
    seconds: float


def within_budget(pipeline: Classifier | Tagger, items: Sequence[Any], share: float) -> Plain:
    """The threshold that defers this share, in (0, 1), of the units of texts or sentences; else an `OptionError`."""
    check_inside("the share to defer", share, "0.2 is a fifth")
    return _tried(pipeline, items, _confidence(pipeline, items), share)


def within_latency(pipeline: Classifier | Tagger, items: Sequence[Any], seconds: float) -> Plain:
    """The threshold that defers most while an item costs at most so many seconds on average, measured here.

    A time that is none, or one that even the first tier alone exceeds, is an `OptionError`.
    """
    if not 0 < seconds < math.inf:
        raise OptionError(f"the latency must be above 0 seconds and finite, got {seconds!r}; 0.005 is 5 ms")
    sure = _confidence(pipeline, items)
    best, low, high = _tried(pipeline, items, sure, 0.0), 0.0, 1.0
    if best.seconds > seconds:
        raise OptionError(
            f"the latency must be one that tier 1 alone keeps, got {seconds * 1000:.3g} ms, and tier 1 takes "
            f"{best.seconds * 1000:.3g} ms per item here; allow more"
        )
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        tried = _tried(pipeline, items, sure, middle)
        if tried.seconds <= seconds:
            low, best = middle, tried
        else:
            high = middle
    return best


def _confidence(pipeline: Classifier | Tagger, items: Sequence[Any]) -> FloatArray:
    """Of tier 1 about each unit, rising."""
    routes = pipeline.with_router(defer_none).predict(items).routes
    return np.sort((routes.words if isinstance(routes, SentenceRoutes) else routes).confidence)


def _tried(pipeline: Classifier | Tagger, items: Sequence[Any], sure: FloatArray, share: float) -> Plain:
    """Defer this share of the units, whose confidences rise, and measure."""
    count = math.floor(share * len(sure) + 1e-9)
    threshold = between(float(sure[count - 1]), float(sure[min(count, len(sure) - 1)])) if count else 0.0
    router = Threshold(threshold)
    return Plain(router, float((sure < np.float32(threshold)).mean()), _seconds(pipeline.with_router(router), items))


def _seconds(pipeline: Classifier | Tagger, items: Sequence[Any]) -> float:
    some, taken = items[:TIMED], []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        pipeline.predict(some)
        taken.append(time.perf_counter() - begin)
    return min(taken) / max(len(some), 1)

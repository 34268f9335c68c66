"""The page at `/`: its files, answers under other thresholds, and the counters that its live view is drawn from."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from cascade.core.checks import is_number
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger
from cascade.policies.exits import MaxProbability, each
from cascade.policies.registry import tunable
from cascade.policies.routing import Threshold
from cascade.serving.errors import Failed, Invalid, Overloaded, as_tei, misshapen
from cascade.serving.levels import scores_of
from cascade.serving.tei import health
from cascade.serving.wire import Call, Reply, Route, field, required

TEXTS, CHARACTERS, WAITING, SHOWN = 64, 50_000, 8, 5
"""Of a preview at most: texts, characters of all of them, previews that wait, labels per text."""
RUNS, SECONDS = 5, 0.05
"""A preview is timed twice, and up to so often while that has taken less than this; the shortest time is told."""

_KINDS: Final = {"index.html": b"text/html", "page.js": b"text/javascript", "page.css": b"text/css"}
FILES: Final = tuple(f"/page/{name}" for name in _KINDS)
"""What anybody may read, beside the page itself; the other routes are for those who may ask the models."""
_POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SAFE: Final = (
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-cache"),
)


class Page:
    """`routes`: those of the page."""

    def __init__(self) -> None:
        self._turn, self._waiting = asyncio.Semaphore(1), 0
        read = {"/page/models": models, "/page/live": live, **dict.fromkeys(("/", *FILES), file)}
        self.routes = [Route(path, handler, as_tei, "GET") for path, handler in read.items()]
        self.routes.append(Route("/page/preview", self.preview, as_tei))

    async def preview(self, call: Call) -> Reply:
        """`POST /page/preview {"model", "inputs", "thresholds"}`: answers under other thresholds, with milliseconds.

        One at a time is answered, beside the batcher: traffic keeps its CPUs.
        """
        pipeline = call.models.of(field(call.json, "model", str)).served.pipeline
        items = _items(required(call.json, "inputs"), pairs=isinstance(pipeline, Classifier))
        tried = tuned(pipeline, call.json.get("thresholds"))
        if self._waiting >= WAITING:
            raise Overloaded(1.0)
        self._waiting += 1
        try:
            async with self._turn:
                return Reply.of(await asyncio.to_thread(answered, tried, items))
        finally:
            self._waiting -= 1


async def file(call: Call) -> Reply:
    """A file of the page; `GET /`: the page itself for browsers, and for probes health, as of TEI."""
    name = call.route.rpartition("/")[2]
    if not name and b"text/html" not in call.headers.get(b"accept", b""):
        return await health(call)
    content = Path(__file__).with_name("page").joinpath(name or "index.html").read_bytes()
    return Reply(content, headers=((b"content-type", _KINDS[name or "index.html"] + b"; charset=utf-8"), *_SAFE))


async def models(call: Call) -> Reply:
    """`GET /page/models`: what is served, and the thresholds that a preview can set."""
    told = list[dict[str, Any]]()
    for name, batcher in call.models.batchers.items():
        own = batcher.served.pipeline
        tiers, certified = [info.layers for info in own.infos], own.certificate is not None
        about = {"name": name, "task": own.task, "labels": len(own.labels), "regression": own.regression}
        told.append({**about, "tiers": tiers, "knobs": knobs(own), "certified": certified})
    return Reply.of({"models": told, "texts": TEXTS})


async def live(call: Call) -> Reply:
    """`GET /page/live`: the counters of all workers, see `Metrics.live`."""
    return Reply.of({"counters": await asyncio.to_thread(call.models.metrics.live)})


def knobs(pipeline: Classifier | Tagger) -> list[dict[str, Any]]:
    """What can be set: below which confidence each tier defers, then from which on units leave it.

    `threshold` is the bundle's: a number, one per exit, or `None` where its policy has none. Regressions have no knobs.
    """
    own = pipeline.policies
    found: list[tuple[str, int, Any]] = [("defer", tier, router) for tier, router in enumerate(own.routers, 1)]
    exits = enumerate(zip(own.exits, pipeline.infos, strict=True), 1)
    found += [("exit", tier, policy) for tier, (policy, info) in exits if len(info.layers) > 1]
    told = [{"kind": kind, "tier": tier, "threshold": _shown(policy)} for kind, tier, policy in found]
    return [] if pipeline.regression else told


def tuned(pipeline: Classifier | Tagger, thresholds: Any) -> Classifier | Tagger:
    """A copy with these thresholds, one per knob; `None`: as it is. A 422 for something else."""
    known = knobs(pipeline)
    given = [None] * len(known) if thresholds is None else thresholds
    numbers = [one for one in given if one is not None] if isinstance(given, list) else []
    fits = all(is_number(one) and 0 <= one <= 1 for one in numbers)
    if not isinstance(given, list) or len(given) != len(known) or not fits:
        raise misshapen("thresholds", f"expected {len(known)} numbers in [0, 1], or null for the bundle's own")
    own: dict[str, list[Any]] = {"defer": [*pipeline.policies.routers], "exit": [*pipeline.policies.exits]}
    defaults = {"defer": Threshold(0.0), "exit": MaxProbability(0.0)}  # where a policy has no threshold
    for knob, threshold in zip(known, given, strict=True):
        if threshold is not None:
            policies, place = own[knob["kind"]], knob["tier"] - 1
            policies[place] = _at(policies[place], threshold, defaults[knob["kind"]])
    return pipeline.with_policies(replace(pipeline.policies, routers=tuple(own["defer"]), exits=tuple(own["exit"])))


def answered(pipeline: Classifier | Tagger, items: list[Any]) -> dict[str, Any]:
    """Answers with routes, and what they took.

    Of a classifier each is `[[[label, score], ...], tier, exit_layer, confidence]`, of a tagger a list of words,
    `[[begin, end], tag, tier, exit_layer, confidence]`.
    """
    runs: list[float] = []
    while len(runs) < 2 or (len(runs) < RUNS and sum(runs) < SECONDS):
        begin = time.perf_counter()
        found: Any = pipeline.predict_texts(items) if isinstance(pipeline, Tagger) else pipeline.predict(items)
        runs.append(time.perf_counter() - begin)
    if not np.isfinite(found.probabilities).all():
        raise Failed("score is NaN")
    if isinstance(pipeline, Tagger):
        answers: list[Any] = [_rows([one.spans.tolist(), one.tags], one.routes) for one in found]
    else:
        order = np.argsort(-found.probabilities, axis=1, kind="stable")[:, :SHOWN]
        scores = np.take_along_axis(found.probabilities, order, axis=1).tolist()
        names = np.array(pipeline.labels, dtype=object)[order].tolist()
        answers = _rows([[list(zip(*row, strict=True)) for row in zip(names, scores, strict=True)]], found.routes)
    return {"milliseconds": 1000 * min(runs), "tokens": found.stats.tokens, "answers": answers}


def _rows(columns: Sequence[Any], routes: Any) -> list[Any]:
    told = (routes.tier.tolist(), routes.exit_layer.tolist(), routes.confidence.tolist())
    return list(zip(*columns, *told, strict=True))


def _items(inputs: object, *, pairs: bool) -> list[Any]:
    """Texts, and pairs, lists of two, where they may be read."""
    given = inputs if isinstance(inputs, list) else [None]
    items = [tuple(item) if pairs and isinstance(item, list) and len(item) == 2 else (item,) for item in given]
    if not all(isinstance(text, str) for item in items for text in item):
        raise misshapen("inputs", f"expected a list of texts{' or lists of two texts' * pairs}")
    size = sum(len(text) for item in items for text in item)
    if len(items) > TEXTS or size > CHARACTERS:
        raise Invalid(f"a preview has at most {TEXTS} texts and {CHARACTERS} characters, got {len(items)} and {size}")
    return [item if len(item) > 1 else item[0] for item in items]


def _shown(policy: Any) -> Any:
    scores = scores_of(tunable(policy, None))
    return None if scores is None else each(scores, lambda score: round(score, 4))


def _at(policy: Any, threshold: float, default: Any) -> Any:
    part = tunable(policy, default)
    made = part.at(threshold)
    if part is policy or part is default:
        return made
    return replace(policy, policies=tuple(made if one is part else one for one in policy.policies))

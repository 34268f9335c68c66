"""Hostile texts: answered together, from the other end, as a stream and some alone; what differs is judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import numpy as np

import cascade
from cascade import Classifier, Tagger
from cascade.core.rows import FloatArray
from cascade.engine.streaming import StreamOptions
from cascade.policies import (
    AtExit,
    MaxProbability,
    Patience,
    SentenceExit,
    Threshold,
    TokenBudget,
    TokenExit,
    Viterbi,
    defer_all,
    defer_none,
    never,
)
from cascade.text.entities import AggregationStrategy
from tests.fuzz.texts import long_text, text, words

ROOT = Path(__file__).parents[2]
CLOSE = 5e-3  # int8: scales are fixed, so only the order of float additions differs from batch to batch
SHIPPED = 16  # one job in so many asks a shipped bundle, the others tiny ones
LONG = 8  # one job of texts in so many has a long one
ALONE = 8  # texts of a job that are also asked alone
WAYS = {"texts": Classifier, "pairs": Classifier, "words": Tagger, "running": Tagger, "entities": Tagger}
BUNDLES = ("sentiment", "intents", "pos")
# Buffers and pools that end inside a job.
STREAMS = (None, StreamOptions(buffer_size=37, pool_tokens=200, look_ahead=100), StreamOptions(buffer_size=200))
ROUTERS = (None, defer_all, defer_none, Threshold(0.6))
EXITS = (None, never, MaxProbability(0.6), Patience(1), AtExit(2))
EXITS_OF_WORDS = (*EXITS, TokenExit(0.4, window=3), SentenceExit(0.4))
Pipelines: TypeAlias = Mapping[type, Sequence[Any]]


@dataclass(frozen=True)
class Answer:
    """Labels, tags or entities, and their scores. `route`: nothing where none is told, as of entities."""

    names: list[str]
    scores: FloatArray
    spans: bytes = b""
    route: object = None


@dataclass(frozen=True)
class Asked:
    """A pipeline and a way to ask it."""

    pipeline: Any
    way: str
    strategy: AggregationStrategy = AggregationStrategy.NONE
    options: StreamOptions | None = None

    def together(self, items: list[Any]) -> list[Answer]:
        """The answers for a batch."""
        if self.way == "entities":
            return [*map(_entities, self.pipeline(items, aggregation_strategy=self.strategy))]
        predict = self.pipeline.predict_texts if self.way == "running" else self.pipeline.predict
        return [*map(_answer, predict(items))]

    def backwards(self, items: list[Any]) -> list[Answer]:
        """From the other end."""
        return self.together(items[::-1])[::-1]

    def streamed(self, items: list[Any]) -> list[Answer]:
        """One by one."""
        stream = self.pipeline.stream_texts if self.way == "running" else self.pipeline.stream
        return [*map(_answer, stream(iter(items), options=self.options))]

    def others(self) -> dict[str, Callable[[list[Any]], list[Answer]]]:
        """The ways to ask that must give the answers of `together`."""
        found: dict[str, Callable[[list[Any]], list[Answer]]] = {"from the other end": self.backwards}
        if self.way != "entities":
            found["streamed"] = self.streamed
        return found

    def faults(self, rng: Random, items: list[Any]) -> Iterator[str]:
        """What is lost and what differs."""
        found = self.together(items)
        others = {how: ask(items) for how, ask in self.others().items()}
        if any(len(one) != len(items) for one in (found, *others.values())):
            yield f"lost: of {len(items)} {self.way}"
            return
        differ = [(how, row, other[row]) for how, other in others.items() for row in _differing(found, other)]
        for row in rng.sample(range(len(items)), min(ALONE, len(items))):
            (alone,) = self.together([items[row]])
            differ += [("alone", row, alone)] if _differing([found[row]], [alone]) else []
        if differ:
            yield from self._judged(items, found, differ)

    def _judged(self, items: list[Any], found: list[Answer], differ: list[tuple[str, int, Answer]]) -> Iterator[str]:
        """Near is what rounding explains: the route or a tie differs, and at full depth the same way gives no other."""
        policies = self.pipeline.policies.full_depth()
        deep = replace(self, pipeline=self.pipeline.with_policies(policies))
        whole = {"alone": deep.together(items)}
        for how, row, other in differ:
            if how not in whole:
                whole[how] = deep.others()[how](items)
            (alone,) = deep.together([items[row]])
            same = not _differing([whole[how][row], whole["alone"][row]], [alone, alone])
            here = found[row]
            turned = here.route is None or here.route != other.route or _close(here.scores, other.scores)
            yield f"{'near' if same and turned else 'reordered'}: {self.way} {how}: {items[row]!r:.200}"


class Asker:
    """Throws texts at tiny bundles under any policies, and at the shipped ones as they are."""

    def __init__(self, bundles: Sequence[Path]) -> None:
        self.bundles = bundles

    @cached_property
    def tiny(self) -> Pipelines:
        """The tiny bundles."""
        return _by_kind(self.bundles)

    @cached_property
    def shipped(self) -> Pipelines:
        """Films, intents, parts of speech."""
        return _by_kind([ROOT / "models" / name for name in BUNDLES])

    def texts(self, rng: Random, count: int, *, shipped: bool | None = None) -> Iterator[str]:
        """A job. `shipped`: whether of the shipped bundles; drawn if left out."""
        shipped = not rng.randrange(SHIPPED) if shipped is None else shipped
        way = rng.choice([*WAYS])
        pipeline = rng.choice((self.shipped if shipped else self.tiny)[WAYS[way]])
        makers: dict[str, Callable[[Random], Any]] = {"words": words, "pairs": lambda rng: (text(rng), text(rng))}
        items = [makers.get(way, text)(rng) for _ in range(count)]
        if way in ("texts", "running") and not rng.randrange(LONG):
            items[rng.randrange(count)] = long_text(rng)
        options = None if shipped else rng.choice(STREAMS)
        asked = Asked(pipeline if shipped else _drawn(rng, pipeline), way, rng.choice([*AggregationStrategy]), options)
        yield from asked.faults(rng, items)


def _by_kind(folders: Sequence[Path]) -> Pipelines:
    found: dict[type, list[Any]] = {Classifier: [], Tagger: []}
    for folder in folders:
        made = cascade.load(folder, threads=1)
        found[type(made)].append(made)
    return found


def _drawn(rng: Random, pipeline: Any) -> Any:
    """A copy with other policies, at times."""
    tagger = isinstance(pipeline, Tagger)
    router, leaves = rng.choice(ROUTERS), rng.choice(EXITS_OF_WORDS if tagger else EXITS)
    if router is not None:
        pipeline = pipeline.with_router(router)
    if leaves is not None:
        pipeline = pipeline.with_exit_policy(leaves)
    if tagger and "B-PER" in pipeline.labels and rng.randrange(2):
        pipeline = pipeline.with_decoding(Viterbi(tuple(pipeline.labels)))
    if not rng.randrange(4):
        pipeline = pipeline.with_batching(TokenBudget(256))
    return pipeline.with_truncation() if not rng.randrange(4) else pipeline


def _answer(one: Any) -> Answer:
    if not hasattr(one, "tags"):
        return Answer([str(one.label)], one.probabilities, route=(one.route.tier, one.route.exit_layer))
    route = (one.routes.tier.tobytes(), one.routes.exit_layer.tobytes())
    return Answer(one.tags, one.probabilities.ravel(), b"" if one.spans is None else one.spans.tobytes(), route)


def _entities(found: list[dict[str, Any]]) -> Answer:
    names = [f"{one.get('entity', one.get('entity_group'))} {one['start']} {one['end']}" for one in found]
    return Answer(names, np.array([one["score"] for one in found], dtype=np.float32))


def _differing(left: Sequence[Answer], right: Sequence[Answer]) -> list[int]:
    """Rows in which answers differ. All scores are compared at once, as nearly always all are the same."""
    alike = [_named(one) == _named(other) for one, other in zip(left, right, strict=True)]
    if all(alike) and (not left or _close(*(np.concatenate([one.scores for one in side]) for side in (left, right)))):
        return []
    return [row for row, same in enumerate(alike) if not (same and _close(left[row].scores, right[row].scores))]


def _named(one: Answer) -> tuple[object, ...]:
    return one.names, one.scores.shape, one.spans


def _close(left: FloatArray, right: FloatArray) -> bool:
    return left.shape == right.shape and bool(np.allclose(left, right, rtol=0, atol=CLOSE))

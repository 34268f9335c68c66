"""A request on its way: what it asks, the works that it is cut into, its answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from cascade.core.rows import FloatArray, IntArray, offsets_of
from cascade.engine.cascade import Look
from cascade.exceptions import CascadeError
from cascade.pipelines.tagger import Tagger
from cascade.serving.served import Form, Served
from cascade.text.entities import AggregationStrategy, Entity, PieceText, aggregate, strategy_of


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers of one request, in the order of its items and their units.

    Attributes:
        served: what answered, with the names of the labels: what was loaded when the request came.
        probabilities: shape `(units, labels)`.
        tier, exit_layer: as in `core.results.Routes`. Shape `(units,)`.
        confidence: the largest probability. Shape `(units,)`.
        offsets: the units of item `i` are `offsets[i]` to `offsets[i + 1] - 1`. Shape `(items + 1,)`.
        tokens: read by the first tier, special ones included.
        degraded: a cheaper level than the first one answered.
        truncated: items that lost tokens.
        seconds: `tokenize`, `queue`, `inference`: wall-clock time of what was done for it, other requests' share in
            common batches included.
        extra: the pieces of a tagger's texts, one value for each work, for `entities`.
    """

    served: Served
    probabilities: FloatArray
    tier: IntArray
    exit_layer: IntArray
    confidence: FloatArray
    offsets: IntArray
    tokens: int
    degraded: bool
    truncated: int
    seconds: Mapping[str, float]
    extra: tuple[PieceText, ...] = ()

    @classmethod
    def join(cls, parts: Sequence[Answers]) -> Answers:
        """The answers of one request from those of its works, in order."""
        counts = np.concatenate([part.offsets[1:] - part.offsets[:-1] for part in parts])
        columns = ("probabilities", "tier", "exit_layer", "confidence")
        return cls(
            served=parts[0].served,
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in columns},
            offsets=offsets_of(counts),
            tokens=sum(part.tokens for part in parts),
            degraded=any(part.degraded for part in parts),
            truncated=sum(part.truncated for part in parts),
            seconds={name: max(part.seconds[name] for part in parts) for name in parts[0].seconds},
            extra=tuple(piece for part in parts for piece in part.extra),
        )

    def entities(self, strategy: AggregationStrategy | str) -> list[list[Entity]]:
        """What `Tagger.__call__` gives for texts: with `FIRST` of `GROUPED` items, otherwise of `PIECES`."""
        tagger, wanted, found, begin = self.served.pipeline, strategy_of(strategy), list[list[Entity]](), 0
        assert isinstance(tagger, Tagger)  # noqa: S101  # nothing else has pieces
        for shown in self.extra:
            by_word = wanted is AggregationStrategy.FIRST
            end = begin + (int(np.count_nonzero(shown.new)) if by_word else len(shown.strings))
            own = self.probabilities[begin:end]
            found += aggregate(shown, own, tagger.labels, strategy=wanted, decoder=tagger.decoding)
            begin = end
        return found


@dataclass(frozen=True, eq=False)
class Looked:
    """What the first tier said of several works at once.

    `level`: at which; `begun`, `read`, `done`: when that began, rows were made, and it was over; `waiting`: how many of
    the works are deferred.
    """

    look: Look
    level: int
    begun: float
    read: float
    done: float
    waiting: int = 0


@dataclass(eq=False, slots=True)
class Request:
    """What was asked at once, in so many `works`.

    `strict`: an item that the model cannot read whole is an error; `found`: what is known, by number of the work;
    `gone`: nobody waits for it any more.
    """

    served: Served
    form: Form
    truncation: bool
    strict: bool
    future: asyncio.Future[Answers]
    arrived: float
    works: int = 1
    found: dict[int, Answers] = field(default_factory=dict)
    gone: bool = False

    @property
    def key(self) -> tuple[Served, Form, bool]:
        """Requests with the same one are encoded together."""
        return self.served, self.form, self.truncation


@dataclass(eq=False, slots=True)
class Work:
    """Some items of a request, which go through the tiers together.

    Attributes:
        request: whose.
        number: which of its works.
        items: as the caller gave them.
        tokens: that wait: estimated before the first tier has run, then those that it deferred.
        looked: what the first tier said of it and others; `rank`: its number among those that were deferred.
        begin, end: its units are `begin` to `end` - 1 of those of `looked`.
        made: its answers but for what the tiers say.
    """

    request: Request
    number: int
    items: Sequence[Any]
    tokens: int
    looked: Looked | None = None
    rank: int = 0
    begin: int = 0
    end: int = 0
    made: dict[str, Any] = field(default_factory=dict)


Ended: TypeAlias = "tuple[Work, Answers | CascadeError | None]"
"""A work and its answers, or why it has none; `None`: the next tiers have to answer."""


def cut(items: Sequence[Any], sizes: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """Runs of items of at most `most` tokens together, or of one item: where each begins and ends."""
    begin = total = 0
    for place, size in enumerate(sizes):
        if place > begin and total + size > most:
            yield begin, place
            begin, total = place, 0
        total += size
    yield begin, len(items)


class Turns:
    """Works that wait. Requests take turns, so that a large one does not hold the others.

    Attributes:
        tokens: of all works; `ahead`: of those that would be taken before the work of a new request.
    """

    def __init__(self) -> None:
        self._waiting: dict[Request, list[Work]] = {}  # in the order of their turns
        self.tokens = self.ahead = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def oldest(self) -> float:
        """When the first request in turn came."""
        return next(iter(self._waiting)).arrived

    def add(self, work: Work) -> None:
        """Let a work wait behind those of its request."""
        found = self._waiting.get(work.request)
        if found is None:
            self._waiting[work.request] = [work]
            self.ahead += work.tokens
        else:
            found.append(work)
        self.tokens += work.tokens

    def take(self, most_tokens: int, most_items: float = float("inf")) -> list[Work]:
        """The next works, at least one, that together have no more tokens and items than this."""
        taken: list[Work] = []
        tokens = items = 0
        while self._waiting:
            request, works = next(iter(self._waiting.items()))
            tokens, items = tokens + works[0].tokens, items + len(works[0].items)
            if taken and (tokens > most_tokens or items > most_items):
                break
            del self._waiting[request]
            work = works.pop(0)
            self.tokens -= work.tokens
            self.ahead -= work.tokens
            if works:
                self._waiting[request] = works
                self.ahead += works[0].tokens
            taken.append(work)
        return taken

    def drop(self, request: Request) -> None:
        """Forget the works of a request."""
        works = self._waiting.pop(request, None)
        if works:
            self.tokens -= sum(work.tokens for work in works)
            self.ahead -= works[0].tokens

    def clear(self) -> list[Request]:
        """Forget everything; the requests that waited."""
        requests = list(self._waiting)
        self._waiting.clear()
        self.tokens = self.ahead = 0
        return requests


def size_of(item: str | Sequence[str]) -> int:
    """About how many tokens a text, a pair or a sentence of words has."""
    parts = (item,) if isinstance(item, str) else item
    return 2 + sum(1 + (len(part) >> 2 if part.isascii() else len(part)) for part in parts)

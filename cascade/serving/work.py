"""What waits: requests, the works that they are cut into, in turns; and what comes of them, answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np

from cascade.core.rows import IntArray, offsets_of
from cascade.engine.cascade import Look
from cascade.engine.tier import Scores
from cascade.exceptions import CascadeError
from cascade.pipelines.tagger import Tagger
from cascade.serving.served import Form, Served
from cascade.text.entities import AggregationStrategy, Entity, PieceText, aggregate, strategy_of


@dataclass(frozen=True, eq=False)
class Answers(Scores):
    """The answers of one request: scores of its items' units, in order.

    `served`: what answered, which was loaded when the request came; `offsets`: the units of item `i` are `offsets[i]`
    to `offsets[i + 1] - 1`, shape `(items + 1,)`; `tokens`: read by the first tier, special ones included; `degraded`:
    a cheaper level than the first one answered; `seconds`: `tokenize`, `queue`, `inference`: wall-clock time of what
    was done for it, other requests' share in common batches included; `extra`: the pieces of a tagger's texts, one
    value for each work, for `entities`.
    """

    served: Served
    offsets: IntArray
    tokens: int
    degraded: bool
    seconds: Mapping[str, float]
    extra: tuple[PieceText, ...] = ()

    @classmethod
    def join(cls, parts: Sequence[Answers]) -> Answers:
        """The answers of one request from those of its works, in order."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            **{one.name: np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(Scores)},
            served=parts[0].served,
            offsets=offsets_of(np.concatenate([np.diff(part.offsets) for part in parts])),
            tokens=sum(part.tokens for part in parts),
            degraded=any(part.degraded for part in parts),
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
    """What the first tier said of several works at once, of which so many are `waiting`: they are deferred.

    `level`: at which; `tokenize`, `inference`: seconds that rows took, and the tier.
    """

    look: Look
    level: int
    tokenize: float
    inference: float
    waiting: int


@dataclass(eq=False, slots=True)
class Request:
    """What all works of a request have in common; those with one `key` are encoded together.

    `strict`: an item that the model cannot read whole is an error; `alone`: it has one work; `gone`: nobody waits.
    """

    key: tuple[Served, Form, bool | str]
    strict: bool
    arrived: float
    gone: bool = False
    alone: bool = True


@dataclass(eq=False, slots=True)
class Work:
    """Some items of a request, as the caller gave them, which go through the tiers together.

    `tokens`: that wait: estimated before the first tier has run, then those that it deferred; `looked`: what the first
    tier said of it and others, of which its units are `begin` to `end` - 1; `rank`: its number among those that were
    deferred; `made`: its answers but for what the tiers say.
    """

    request: Request
    items: Sequence[Any]
    tokens: int
    future: asyncio.Future[Answers]
    looked: Looked | None = None
    rank: int = 0
    begin: int = 0
    end: int = 0
    made: Mapping[str, Any] | None = None


Ended: TypeAlias = "tuple[Work, Answers | CascadeError | None]"
"""A work and its answers, or why it has none; `None`: the next tiers have to answer."""


def settle(future: asyncio.Future[Any], found: Any) -> None:
    """Give a future its result or exception; nobody waits for one that is done."""
    if not future.done():
        (future.set_exception if isinstance(found, Exception) else future.set_result)(found)


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

    `tokens`: of all works; `ahead`: of those that would be taken before the work of a new request.
    """

    def __init__(self) -> None:
        self._waiting: dict[Request, list[Work]] = {}  # in the order of their turns
        self.tokens = self.ahead = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def first(self) -> Request | None:
        """The first request in turn."""
        return next(iter(self._waiting), None)

    def add(self, work: Work) -> None:
        """Let a work wait behind those of its request."""
        own = self._waiting.setdefault(work.request, [])
        own.append(work)
        self.tokens += work.tokens
        self.ahead += work.tokens if len(own) == 1 else 0

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
            taken.append(works.pop(0))
            self.tokens -= taken[-1].tokens
            self.ahead += (works[0].tokens if works else 0) - taken[-1].tokens
            if works:
                self._waiting[request] = works
        return taken

    def drop(self, request: Request) -> list[Work]:
        """Forget the works of a request, and return them."""
        works = self._waiting.pop(request, [])
        self.tokens -= sum(work.tokens for work in works)
        self.ahead -= works[0].tokens if works else 0
        return works

    def clear(self) -> list[Work]:
        """Forget everything, and return it."""
        return [work for request in list(self._waiting) for work in self.drop(request)]


def size_of(item: str | Sequence[str]) -> int:
    """About how many tokens a text, a pair or a sentence of words has."""
    parts = (item,) if isinstance(item, str) else item
    return 2 + sum(1 + (len(part) >> 2 if part.isascii() else len(part)) for part in parts)

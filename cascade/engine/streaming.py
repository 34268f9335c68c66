"""Any number of texts in constant memory, answers in the caller's order.

Texts go through tier 1 a buffer at a time. Deferred rows of several buffers are pooled until they fill batches of
tier 2, or until the oldest has waited long enough, or until too many texts are held back; then they run together and
everything held back comes out. A tagger answers a buffer at a time (`in_buffers`).

A router sees one buffer at a time, so a `Budget` is kept per buffer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from cascade.core.checks import check_whole
from cascade.core.rows import Encoded, IntArray, Rows, concatenate
from cascade.engine.cascade import Cascade, FirstLook, Outcome, merge_windows, stats_of
from cascade.engine.tiers import Scores
from cascade.exceptions import InputError, OptionError

__all__ = ["StreamOptions", "in_buffers", "stream"]

Item = TypeVar("Item")
Made = TypeVar("Made")


@dataclass(frozen=True)
class StreamOptions:
    """How much a stream holds back, and for how long.

    Attributes:
        buffer_size: texts that go through tier 1 together.
        pool_tokens: tokens of deferred rows that are enough to run tier 2: a few batches.
        look_ahead: texts read but not answered at most; at least `buffer_size`.
        max_age: seconds that a text waits at most; looked at when the next text arrives. `None`: no limit.
    """

    buffer_size: int = 256
    pool_tokens: int = 8192
    look_ahead: int = 4096
    max_age: float | None = 1.0

    def __post_init__(self) -> None:
        for name in ("buffer_size", "pool_tokens", "look_ahead"):
            check_whole(name, getattr(self, name), "leave it out for the default")
        if self.look_ahead < self.buffer_size:
            raise OptionError(
                f"look_ahead must be at least buffer_size ({self.buffer_size}), was: {self.look_ahead}; raise it"
            )
        if self.max_age is not None and not self.max_age >= 0:
            raise OptionError(f"max_age must be seconds of at least 0, was: {self.max_age}; None sets no limit")


@dataclass(frozen=True, eq=False)
class _Chunk:
    """A buffer of texts after tier 1.

    Attributes:
        begun: when its first text arrived.
        documents: number of the text, within the buffer, of each row. Shape `(rows,)`.
        tokens: of all rows.
        first: what tier 1 and the router said.
        deferred: the rows that wait for tier 2.
    """

    begun: float
    documents: IntArray
    tokens: int
    first: FirstLook
    deferred: Rows

    @property
    def texts(self) -> int:
        return int(self.documents[-1]) + 1


def stream(
    cascade: Cascade,
    encode: Callable[[Sequence[Item]], Encoded],
    texts: Iterable[Item],
    *,
    options: StreamOptions | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Outcome]:
    """Answer texts as they come.

    Args:
        cascade: the engine.
        encode: texts to rows, as `Tokenizer.encode`.
        texts: read one by one, never more than `look_ahead` ahead of the answers.
        options: see `StreamOptions`.
        clock: seconds that only grow.

    Yields:
        Outcomes of some texts each, together those of all texts in their order.

    Raises:
        InputError: a text that cannot be read, named by its number in the stream.
    """
    options = options or StreamOptions()
    max_age = math.inf if options.max_age is None else options.max_age
    buffer: list[Item] = []
    pool: list[_Chunk] = []
    seen = pooled = waiting = 0  # texts read, texts in the pool, tokens there that tier 2 has to read
    begun = clock()

    def look() -> _Chunk:
        chunk = _look(cascade, _named(encode, buffer, seen - len(buffer), "text"), begun)
        buffer.clear()
        return chunk

    for text in texts:
        now = clock()
        if not buffer:
            begun = now
        buffer.append(text)
        seen += 1
        if len(buffer) >= options.buffer_size or now - begun >= max_age:
            chunk = look()
            pool.append(chunk)
            pooled += chunk.texts
            waiting += chunk.deferred.tokens
        if pool and (
            waiting >= options.pool_tokens
            or not waiting
            or len(buffer) + pooled >= options.look_ahead
            or now - pool[0].begun >= max_age
        ):
            yield from _answer(cascade, pool)
            pool.clear()
            pooled = waiting = 0
    if buffer:
        pool.append(look())
    yield from _answer(cascade, pool)


def in_buffers(
    given: Iterable[Item],
    answer: Callable[[list[Item]], Iterable[Made]],
    *,
    options: StreamOptions,
    what: str,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Made]:
    """Answer a buffer at a time, always whole, so that nothing is pooled.

    Args:
        given: read one by one.
        answer: gives one for each.
        options: `buffer_size` and `max_age` are looked at.
        what: is given, for messages.
        clock: seconds that only grow.

    Yields:
        The answers, in order.

    Raises:
        InputError: one that cannot be read, named by its number in the stream.
    """
    buffer: list[Item] = []
    seen, begun = 0, clock()
    max_age = math.inf if options.max_age is None else options.max_age
    for one in given:
        now = clock()
        if not buffer:
            begun = now
        buffer.append(one)
        seen += 1
        if len(buffer) >= options.buffer_size or now - begun >= max_age:
            yield from _named(answer, buffer, seen - len(buffer), what)
            buffer.clear()
    yield from _named(answer, buffer, seen - len(buffer), what)


def _named(answer: Callable[[list[Item]], Made], buffer: Sequence[Item], first: int, what: str) -> Made:
    """The answer for a buffer; one that cannot be read is named by its number, the buffer beginning with `first`."""
    try:
        return answer(list(buffer))
    except InputError:
        for number, one in enumerate(buffer, start=first):
            fault = _fault(answer, one)
            if fault is not None:
                raise InputError(f"{what} {number} of the stream, alone as {what} 0: {fault}") from None
        raise


def _fault(answer: Callable[[list[Item]], object], one: Item) -> InputError | None:
    try:
        answer([one])
    except InputError as error:
        return error
    return None


def _look(cascade: Cascade, encoded: Encoded, begun: float) -> _Chunk:
    first = cascade.first(encoded.units.rows)
    deferred = encoded.units.rows.select(np.flatnonzero(first.deferred))
    return _Chunk(begun, encoded.numbers, encoded.units.rows.tokens, first, deferred)


def _answer(cascade: Cascade, pool: Sequence[_Chunk]) -> Iterator[Outcome]:
    rows = concatenate([chunk.deferred for chunk in pool])
    known = [cascade.prior(chunk.first) for chunk in pool]
    priors = [prior for prior in known if prior is not None]
    prior = np.concatenate(priors) if priors else None  # all chunks have one or none has
    second = cascade.second(rows, prior=prior) if len(rows) else None
    end = 0
    for chunk in pool:
        begin, end = end, end + len(chunk.deferred)
        mine = None
        if second is not None and end > begin:
            part = slice(begin, end)
            mine = Scores(second.probabilities[part], second.confidence[part], second.exit_layer[part])
        probabilities, routes = cascade.merge(chunk.first, mine)
        outcome = Outcome(probabilities, routes, stats_of(routes, tokens=chunk.tokens))
        outcome = merge_windows(outcome, chunk.documents, multi_label=cascade.multi_label)
        yield replace(outcome, stats=replace(outcome.stats, texts=chunk.texts))

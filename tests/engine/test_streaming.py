from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.core.rows import Encoded
from cascade.engine.cascade import Cascade, Outcome
from cascade.engine.inputs import Inputs
from cascade.engine.streaming import StreamOptions, buffers, stream
from cascade.exceptions import InputError, OptionError
from cascade.policies.routing import Budget, Router, Threshold, defer_all, defer_none
from cascade.policies.windows import Windows
from tests.models.kinds import BOTH, KINDS, TEXTS, WORDS, Kind, Lengths

AGES = pytest.mark.parametrize("max_age", [None, 60.0], ids=["direct", "thread"])


class Strict(Lengths):
    """An encoder that does not take the item "bad"."""

    def encode(self, items: Sequence[Any]) -> Encoded:
        if "bad" in items:
            raise InputError(f"item {list(items).index('bad')} was bad")
        return super().encode(items)


def encode(kind: Kind) -> Any:
    """Texts of so many tokens, in rows of 6 at most; or sentences of words with so many tokens each."""
    encoder = Strict(kind.words, max_length=6)

    def spell(item: Any) -> Any:
        words = ["x" * size for size in item] if item != "bad" else item
        return words if kind.words or item == "bad" else "".join(words)

    return lambda items: Inputs.of(list(map(spell, items)), encoder)


def cascade(kind: Kind, router: Router) -> Cascade:
    toy, windows = kind.toy(), Windows(1) if kind.words else None
    return Cascade(toy.tier1(), toy.tier2(exit_policy=kind.adaptive), router, blend=0.5, windows=windows)


def together(outcomes: Sequence[Outcome]) -> tuple[Any, list[Any]]:
    p = np.concatenate([np.empty((0, 3), dtype=np.float32), *(outcome.probabilities for outcome in outcomes)])
    return p, [(route.tier, route.exit_layer) for outcome in outcomes for route in outcome.routes]


def drain(outcomes: Iterator[Outcome], answered: list[int]) -> None:
    for outcome in outcomes:
        answered.append(len(outcome.routes))


ITEMS = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=6))
OPTIONS = st.builds(
    lambda size, more, tokens, age: StreamOptions(size, look_ahead=size + more, pool_tokens=tokens, max_age=age),
    st.integers(1, 9),
    st.integers(0, 20),
    st.integers(1, 200),
    st.sampled_from([None, 0.0, 60.0]),
)


@given(ITEMS, OPTIONS, st.sampled_from([Threshold(0.8), defer_all, defer_none]), st.sampled_from(KINDS))
def test_equals_predict_and_holds_little(
    items: list[list[int]], options: StreamOptions, router: Router, kind: Kind
) -> None:
    engine = cascade(kind, router)
    read = answered = 0

    def source() -> Iterator[list[int]]:
        nonlocal read
        for item in items:
            read += 1
            assert read - answered <= options.look_ahead
            yield item

    outcomes = []
    for outcome in stream(engine, encode(kind), source(), options=options):
        answered += outcome.stats.texts
        outcomes.append(outcome)
    found, routes = together(outcomes)
    assert answered == len(items)
    if items:
        whole = encode(kind)(items)
        expected = engine.run(whole)
        np.testing.assert_allclose(found, expected.probabilities, atol=2e-4)
        assert routes == [(route.tier, route.exit_layer) for route in expected.routes]
        assert sum(outcome.stats.tokens for outcome in outcomes) == whole.tokens


@BOTH
def test_deferred_rows_of_several_buffers_run_together(kind: Kind) -> None:
    items = [[3]] * 40  # rows of 3 tokens, or of 5 with special ones

    def runs(**options: Any) -> int:
        toy = kind.toy()
        engine = Cascade(toy.tier1(), toy.tier2(), defer_all, windows=Windows(1) if kind.words else None)
        list(stream(engine, encode(kind), items, options=StreamOptions(buffer_size=4, max_age=None, **options)))
        return toy.calls // 4

    tokens = 5 if kind.words else 3
    assert runs(pool_tokens=1000) == 1
    assert runs(pool_tokens=20 * tokens) == 2
    assert runs(pool_tokens=1000, look_ahead=8) == 5


def test_the_deadline_holds_though_the_source_is_silent() -> None:
    """Both for items that wait for a full buffer, and for deferred ones that wait for others."""
    silent = threading.Event()

    def source() -> Iterator[list[int]]:
        yield from [[3]] * 5
        silent.wait(30)
        yield [4]

    options = StreamOptions(buffer_size=3, max_age=0.05)
    begin = time.monotonic()
    outcomes = stream(cascade(TEXTS, defer_all), encode(TEXTS), source(), options=options)
    found = [next(outcomes), next(outcomes)]
    assert time.monotonic() - begin < 10
    assert [len(outcome.routes) for outcome in found] == [3, 2]
    silent.set()
    assert [len(outcome.routes) for outcome in outcomes] == [1]


def test_a_pause_of_the_source_is_answered_before_the_deadline() -> None:
    silent = threading.Event()

    def source() -> Iterator[list[int]]:
        yield from [[3]] * 5
        silent.wait(30)
        yield [4]

    options = StreamOptions(buffer_size=3, max_age=60.0, pause=0.02)
    outcomes = stream(cascade(TEXTS, defer_all), encode(TEXTS), source(), options=options)
    assert [len(next(outcomes).routes) for _ in range(2)] == [3, 2]
    together = buffers(source(), options=options)
    assert [len(next(together)) for _ in range(2)] == [3, 2]
    silent.set()
    assert [len(outcome.routes) for outcome in outcomes] == [1]
    assert [*map(len, together)] == [1]


def test_buffers_raise_what_the_source_raises_after_its_items() -> None:
    def source() -> Iterator[int]:
        yield from range(3)
        raise ZeroDivisionError

    found = buffers(source(), options=StreamOptions(buffer_size=2))
    assert [next(found), next(found)] == [[0, 1], [2]]
    with pytest.raises(ZeroDivisionError):
        next(found)


@AGES
def test_a_consumer_that_stops_ends_the_reading(max_age: float | None) -> None:
    read = 0

    def endless() -> Iterator[list[int]]:
        nonlocal read
        while True:
            read += 1
            yield [3]

    options = StreamOptions(buffer_size=3, look_ahead=9, max_age=max_age)
    outcomes = stream(cascade(TEXTS, Threshold(0.8)), encode(TEXTS), endless(), options=options)
    assert len(next(outcomes).routes) == 3
    outcomes.close()  # type: ignore[attr-defined]  # it is a generator
    assert read <= 9 + 3
    for thread in threading.enumerate():
        if thread.name == "cascade-stream":
            thread.join(10)
            assert not thread.is_alive()


def test_nothing_deferred_is_answered_at_once() -> None:
    read = 0

    def source() -> Iterator[list[int]]:
        nonlocal read
        for _ in range(100):
            read += 1
            yield [3]

    options = StreamOptions(buffer_size=3, max_age=None)
    next(stream(cascade(TEXTS, defer_none), encode(TEXTS), source(), options=options))
    assert read == 3


def test_a_budget_is_kept_per_buffer() -> None:
    options = StreamOptions(buffer_size=4, pool_tokens=1000)
    outcomes = stream(cascade(TEXTS, Budget(0.5)), encode(TEXTS), [[n % 5 + 1] for n in range(12)], options=options)
    assert [outcome.stats.deferred for outcome in outcomes] == [2, 2, 2]


@AGES
def test_answers_come_before_an_error_of_the_source(max_age: float | None) -> None:
    def source() -> Iterator[list[int]]:
        yield from [[3]] * 8
        raise KeyError("no more")

    answered: list[int] = []
    options = StreamOptions(buffer_size=3, max_age=max_age)
    with pytest.raises(KeyError, match="no more"):
        drain(stream(cascade(TEXTS, defer_all), encode(TEXTS), source(), options=options), answered)
    assert sum(answered) == 8


@BOTH
@AGES
def test_a_bad_item_is_named_after_the_answers_before_it(kind: Kind, max_age: float | None) -> None:
    """It is found by its encoder alone: the models read every good item once."""
    items: list[Any] = [[3]] * 7 + ["bad"] + [[3]] * 5
    toy, answered = kind.toy(), list[int]()
    engine = Cascade(toy.tier1(), toy.tier2(), defer_all, windows=Windows(1) if kind.words else None)
    message = r"sentence 7 of the stream, alone as sentence 0: item 0 was bad"
    options = StreamOptions(buffer_size=3, max_age=max_age)
    with pytest.raises(InputError, match=message):
        drain(stream(engine, encode(kind), items, options=options, what="sentence"), answered)
    assert sum(answered) == 7
    assert toy.tokens == 4 * 7 * (5 if kind.words else 3)


def test_a_fault_that_no_item_has_alone() -> None:
    def fussy(items: list[Any]) -> Inputs:
        if len(items) > 1:
            raise InputError("too many")
        made: Inputs = encode(WORDS)(items)
        return made

    with pytest.raises(InputError, match=r"^too many$"):
        list(stream(cascade(WORDS, defer_none), fussy, [[3], [2]]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"buffer_size": 0}, "buffer_size must be a whole number of at least 1, .* 0"),
        ({"pool_tokens": 1.5}, "pool_tokens must be a whole number of at least 1, .* 1.5"),
        ({"look_ahead": 100}, r"look_ahead must be at least buffer_size \(1024\), got 100; raise it"),
        ({"max_age": -1}, "max_age must be seconds of at least 0, got -1; None sets no limit"),
        ({"max_age": "1"}, "max_age must be seconds of at least 0, got '1'; None sets no limit"),
    ],
)
def test_impossible_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        StreamOptions(**options)

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.core.rows import Encoded, Units, concatenate
from cascade.engine.cascade import Cascade, Outcome, merge_windows
from cascade.engine.streaming import StreamOptions, stream
from cascade.exceptions import InputError, OptionError
from cascade.policies.exits import MaxProbability
from cascade.policies.routing import Budget, Router, Threshold, defer_all, defer_none
from cascade.text.tokenizer import Text
from tests.models.toy import Toy, batch_of


def encode(texts: Sequence[Text]) -> Encoded:
    """A text is windows such as `3 5`: their lengths, which also seed their tokens."""
    rows = [[int(length) for length in str(text).split()] for text in texts]
    if any(not row for row in rows):
        raise InputError(f"text {[bool(row) for row in rows].index(False)} was empty")
    batch = concatenate([batch_of([length], seed=length) for row in rows for length in row])
    documents = np.repeat(np.arange(len(rows)), [len(row) for row in rows]).astype(np.int64)
    return Encoded(Units.whole(batch), numbers=documents)


def cascade(router: Router) -> Cascade:
    toy = Toy()
    return Cascade(toy.tier1(), toy.tier2(exit_policy=MaxProbability(0.7)), router, blend=0.5)


def together(outcomes: Sequence[Outcome]) -> tuple[Any, list[Any]]:
    p = np.concatenate([np.empty((0, 3), dtype=np.float32), *(outcome.probabilities for outcome in outcomes)])
    return p, [(route.tier, route.exit_layer) for outcome in outcomes for route in outcome.routes]


TEXTS = st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=3).map(lambda row: " ".join(map(str, row))))
OPTIONS = st.builds(
    lambda size, more, tokens, age: StreamOptions(
        buffer_size=size, look_ahead=size + more, pool_tokens=tokens, max_age=age
    ),
    st.integers(1, 9),
    st.integers(0, 20),
    st.integers(1, 200),
    st.sampled_from([None, 0.0, 3.0]),
)


@settings(deadline=None)
@given(TEXTS, OPTIONS, st.sampled_from([Threshold(0.8), defer_all, defer_none]))
def test_equals_predict_and_holds_little(texts: list[str], options: StreamOptions, router: Router) -> None:
    engine = cascade(router)
    read = answered = 0
    ticks = iter(range(10**6))

    def source() -> Iterator[str]:
        nonlocal read
        for text in texts:
            read += 1
            assert read - answered <= options.look_ahead
            yield text

    outcomes = []
    for outcome in stream(engine, encode, source(), options=options, clock=lambda: float(next(ticks))):
        answered += len(outcome.routes)
        outcomes.append(outcome)
    probabilities, routes = together(outcomes)
    encoded = encode(texts)
    expected = merge_windows(engine.score(encoded.units.rows), encoded.numbers)
    np.testing.assert_allclose(probabilities, expected.probabilities.reshape(-1, 3), atol=1e-5)
    assert routes == [(route.tier, route.exit_layer) for route in expected.routes]
    assert sum(outcome.stats.texts for outcome in outcomes) == len(texts)
    assert sum(outcome.stats.tokens for outcome in outcomes) == encoded.units.rows.tokens


def runs(texts: Sequence[str], options: StreamOptions, clock: Any = lambda: 0.0) -> int:
    toy = Toy()
    list(stream(Cascade(toy.tier1(), toy.tier2(), defer_all), encode, texts, options=options, clock=clock))
    return toy.calls // 4


def test_deferred_rows_of_several_buffers_run_together() -> None:
    texts = ["5"] * 40
    assert runs(texts, StreamOptions(buffer_size=4, pool_tokens=1000)) == 1
    assert runs(texts, StreamOptions(buffer_size=4, pool_tokens=100)) == 2
    assert runs(texts, StreamOptions(buffer_size=4, pool_tokens=1000, look_ahead=8)) == 5


def test_age_is_looked_at_when_a_text_arrives() -> None:
    texts = ["5"] * 10
    now = iter(range(100))
    assert runs(texts, StreamOptions(buffer_size=100, max_age=None), lambda: float(next(now))) == 1
    now = iter(range(100))
    assert runs(texts, StreamOptions(buffer_size=100, max_age=4), lambda: float(next(now))) == 2


def test_answers_come_before_the_source_ends() -> None:
    def endless() -> Iterator[str]:
        while True:
            yield "5"

    engine = cascade(Threshold(0.8))
    first = next(stream(engine, encode, endless(), options=StreamOptions(buffer_size=3, look_ahead=9)))
    assert len(first.routes) == 3


def test_nothing_deferred_is_answered_at_once() -> None:
    read = 0

    def source() -> Iterator[str]:
        nonlocal read
        for _ in range(100):
            read += 1
            yield "5"

    next(stream(cascade(defer_none), encode, source(), options=StreamOptions(buffer_size=3)))
    assert read == 3


def test_a_budget_is_kept_per_buffer() -> None:
    options = StreamOptions(buffer_size=4, pool_tokens=1000)
    outcomes = list(stream(cascade(Budget(0.5)), encode, [str(n % 9 + 1) for n in range(12)], options=options))
    assert [outcome.stats.deferred for outcome in outcomes] == [2, 2, 2]


def test_no_texts() -> None:
    assert list(stream(cascade(Threshold(0.5)), encode, [])) == []


def test_a_bad_text_is_named_by_its_number_in_the_stream() -> None:
    texts = ["5"] * 7 + [""] + ["5"] * 5
    with pytest.raises(InputError, match="text 7 of the stream, alone as text 0: text 0 was empty"):
        list(stream(cascade(defer_none), encode, texts, options=StreamOptions(buffer_size=3)))


def test_a_fault_that_no_text_has_alone() -> None:
    def fussy(texts: Sequence[Text]) -> Encoded:
        if len(texts) > 1:
            raise InputError("too many")
        return encode(texts)

    with pytest.raises(InputError, match=r"^too many$"):
        list(stream(cascade(defer_none), fussy, ["5", "6"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"buffer_size": 0}, "buffer_size must be a whole number of at least 1, was: 0"),
        ({"pool_tokens": 1.5}, "pool_tokens must be a whole number of at least 1, was: 1.5"),
        ({"look_ahead": 100}, r"look_ahead must be at least buffer_size \(256\), was: 100; raise it"),
        ({"max_age": -1}, "max_age must be seconds of at least 0, was: -1; None sets no limit"),
    ],
)
def test_impossible_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        StreamOptions(**options)

"""Requests in any order get the answers that they would get alone; nobody waits for a slow one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade import Classifier, Tagger
from cascade.exceptions import InputError, OptionError
from cascade.policies import Threshold, defer_all, defer_none
from cascade.serving.batcher import Batcher
from cascade.serving.errors import Failed, Overloaded, TooLong
from cascade.serving.limits import Limits
from cascade.serving.load import FINISH, LOOK
from cascade.serving.metrics import Metrics
from cascade.serving.served import Form, Served
from cascade.serving.work import Answers
from tests.models.toy import random_texts
from tests.serving.conftest import PATIENT, Gate, Serve, until

TEXTS = random_texts(60, longest=9)
ITEMS: list[Any] = [*TEXTS[:20], ("good film", "bad plot"), {"text": "we", "text_pair": "laugh"}, "", " very " * 40]


def ask(batcher: Batcher, *requests: Sequence[Any], form: Form = Form.TEXT, **options: bool) -> list[Answers]:
    """The answers of requests that come together."""

    async def all_of_them() -> list[Answers]:
        return await asyncio.gather(*(batcher.answer(items, form, **options) for items in requests))

    return asyncio.run(all_of_them())


def assert_answers(found: Answers, pipeline: Any, items: Sequence[Any]) -> None:
    wanted = pipeline.predict(list(items))
    routes = getattr(wanted.routes, "words", wanted.routes)
    np.testing.assert_allclose(found.probabilities, wanted.probabilities, atol=1e-5)
    np.testing.assert_array_equal(found.tier, routes.tier)
    np.testing.assert_array_equal(found.exit_layer, routes.exit_layer)
    np.testing.assert_allclose(found.confidence, routes.confidence, atol=1e-5)
    offsets = getattr(wanted, "offsets", np.arange(len(items) + 1))
    np.testing.assert_array_equal(found.offsets, offsets)
    assert (found.tokens, found.truncated, found.degraded) == (wanted.stats.tokens, wanted.stats.truncated, False)
    assert set(found.seconds) == {"tokenize", "queue", "inference"}
    assert min(found.seconds.values()) >= 0


@given(st.lists(st.tuples(st.lists(st.sampled_from(ITEMS), min_size=1, max_size=5), st.integers(0, 3)), max_size=12))
def test_any_interleaving_gives_the_answers_of_predict(
    clf: Classifier, running: Batcher, arrivals: list[tuple[list[Any], int]]
) -> None:
    async def come(items: list[Any], later: int) -> Answers:
        for _ in range(later):
            await asyncio.sleep(0)
        return await running.answer(items, Form.TEXT, windows=True)

    async def all_of_them() -> list[Answers]:
        return await asyncio.gather(*(come(*one) for one in arrivals))

    for found, (items, _) in zip(asyncio.run(all_of_them()), arrivals, strict=True):
        assert_answers(found, clf, items)


@pytest.fixture(scope="module", params=[1, 2])
def running(clf: Classifier, request: pytest.FixtureRequest) -> Any:
    """A batcher for all examples of a hypothesis, with so many threads."""
    model = Classifier.from_pretrained(clf.bundle.folder, threads=request.param)
    made = Batcher(Served.of("toy", model), Limits(max_batch_tokens=70, **PATIENT), Metrics())
    made.start()
    yield made
    made.stop(seconds=10)


@pytest.mark.parametrize("router", [Threshold(0.9), Threshold(1.0), defer_all, defer_none], ids=repr)
def test_whatever_is_deferred_answers_are_those_of_predict(clf: Classifier, serve: Serve, router: Any) -> None:
    model = clf.with_router(router).with_blend(0.5)
    batcher = serve(model, max_batch_tokens=64, max_queue_tokens=10**6)
    for found, items in zip(ask(batcher, TEXTS, TEXTS[:1], ITEMS[:8]), (TEXTS, TEXTS[:1], ITEMS[:8]), strict=True):
        assert_answers(found, model, items)
    assert batcher.queued_tokens == batcher.level == 0


SENTENCES = [text.split() for text in TEXTS[:12]] + [[], ["good"]]


@pytest.mark.parametrize("router", [Threshold(0.9), defer_all, defer_none], ids=repr)
def test_sentences_of_words_are_answered_as_by_predict(tagger: Tagger, serve: Serve, router: Any) -> None:
    model = tagger.with_router(router)
    batcher = serve(model, max_batch_tokens=48, max_queue_tokens=10**6)
    requests: list[list[Any]] = [SENTENCES, SENTENCES[:1], [[]], SENTENCES[3:7], [["good", "film"] * 20]]
    for found, items in zip(ask(batcher, *requests, form=Form.WORDS), requests, strict=True):
        assert_answers(found, model, items)


def test_texts_are_tagged_as_the_pipeline_tags_them(tagger: Tagger, serve: Serve) -> None:
    batcher = serve(tagger, max_batch_tokens=80, max_queue_tokens=10**6)
    texts = [*TEXTS[:9], "", "Unheard-of words, and the film was bad " * 3]
    for strategy in ("none", "simple", "first", "average", "max"):
        form = Form.GROUPED if strategy == "first" else Form.PIECES
        found = ask(batcher, texts, texts[:1], texts[4:6], form=form, truncate=False, windows=True)
        for answers, own in zip(found, (texts, texts[:1], texts[4:6]), strict=True):
            assert answers.entities(strategy) == tagger(own, aggregation_strategy=strategy)


def test_the_deferred_of_several_requests_run_together(clf: Classifier, serve: Serve) -> None:
    batcher = serve(clf.with_router(defer_all))
    gate = Gate(batcher, FINISH)

    async def come() -> None:
        first = asyncio.ensure_future(batcher.answer(TEXTS[:1], Form.TEXT))
        await gate.wait()
        others = [asyncio.ensure_future(batcher.answer([text], Form.TEXT)) for text in TEXTS[1:9]]
        await until(lambda: len(batcher._pool) == 8)
        gate.opened.set()
        await asyncio.gather(first, *others)

    asyncio.run(come())
    assert [len(works) for works in gate.calls] == [1, 8]


def test_a_slow_request_does_not_hold_others(clf: Classifier, serve: Serve) -> None:
    model = clf.with_router(defer_all)
    batcher = serve(model, max_batch_tokens=40, max_queue_tokens=10**6)
    gate, ended = Gate(batcher, FINISH), list[str]()

    async def come(items: Sequence[str], name: str) -> None:
        assert_answers(await batcher.answer(items, Form.TEXT), model, items)
        ended.append(name)

    async def all_of_them() -> None:
        large = asyncio.ensure_future(come(TEXTS * 3, "large"))
        await gate.wait()
        small = [asyncio.ensure_future(come([text], "small")) for text in TEXTS[:3]]
        await until(lambda: len(batcher._pool) == 4 and not batcher._queue)
        gate.opened.set()
        await asyncio.gather(large, *small)

    asyncio.run(all_of_them())
    assert ended == ["small"] * 3 + ["large"]


def test_what_the_first_tier_answers_does_not_wait_for_the_second(clf: Classifier, serve: Serve) -> None:
    batcher, sure = serve(clf), clf.with_router(defer_none)
    easy = [text for text, route in zip(TEXTS, clf.predict(TEXTS).routes, strict=True) if route.tier == 1]
    hard = [text for text in TEXTS if text not in easy]
    assert easy
    assert hard
    gate = Gate(batcher, FINISH)

    async def come() -> None:
        held = asyncio.ensure_future(batcher.answer(hard, Form.TEXT))
        await gate.wait()
        assert_answers(await batcher.answer(easy, Form.TEXT), sure, easy)
        assert not held.done()
        gate.opened.set()
        assert_answers(await held, clf, hard)

    asyncio.run(come())


@pytest.mark.parametrize("job", [LOOK, FINISH])
def test_a_client_that_is_gone_is_forgotten(clf: Classifier, serve: Serve, job: int) -> None:
    batcher = serve(clf.with_router(defer_all), max_concurrent_requests=3)
    gate = Gate(batcher, job)

    async def come() -> None:
        held = asyncio.ensure_future(batcher.answer(TEXTS[:1], Form.TEXT))
        await gate.wait()
        gone = asyncio.ensure_future(batcher.answer(TEXTS[1:3], Form.TEXT))
        await until(lambda: len((batcher._queue, batcher._pool)[job]) == 1)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert batcher.queued_tokens == 0
        held.cancel()  # the work is under way: its answers are dropped
        await asyncio.sleep(0)
        last = asyncio.ensure_future(batcher.answer(TEXTS[3:6], Form.TEXT))  # permits are free again
        await asyncio.sleep(0)
        gate.opened.set()
        await last

    asyncio.run(come())
    assert [work.items for works in gate.calls for work in works] == [TEXTS[:1], TEXTS[3:6]]


def test_too_much_is_refused(clf: Classifier, serve: Serve) -> None:
    batcher = serve(clf, max_concurrent_requests=4, max_queue_tokens=60, max_queue_ms=5000)
    gate = Gate(batcher, LOOK)

    async def refused(items: Sequence[str]) -> None:
        with pytest.raises(Overloaded, match="overloaded") as error:
            await asyncio.wait_for(batcher.answer(items, Form.TEXT, windows=True), 60)
        assert error.value.retry_after >= 1

    async def come() -> None:
        held = [asyncio.ensure_future(batcher.answer(TEXTS[:1], Form.TEXT))]
        await gate.wait()
        held.append(asyncio.ensure_future(batcher.answer(["good " * 30], Form.TEXT, windows=True)))
        await asyncio.sleep(0)
        await refused(["bad " * 30])  # tokens
        await refused(TEXTS[:3])  # permits
        held.append(asyncio.ensure_future(batcher.answer(TEXTS[1:3], Form.TEXT)))
        await asyncio.sleep(0)
        gate.opened.set()
        await asyncio.gather(*held)
        batcher._load.ran(LOOK, 10**9, 1e9)  # one token a second
        batcher._load._rates = [1e-3, 1e-3]
        gate.opened.clear()
        gate.reached.clear()
        held = [asyncio.ensure_future(batcher.answer(TEXTS[:1], Form.TEXT))]
        await gate.wait()
        held.append(asyncio.ensure_future(batcher.answer(TEXTS[:1], Form.TEXT)))
        await asyncio.sleep(0)
        await refused(TEXTS[:1])  # seconds
        gate.opened.set()
        await asyncio.gather(*held)

    asyncio.run(come())


def test_under_load_answers_get_cheaper_and_say_so(clf: Classifier, serve: Serve) -> None:
    model = clf.with_router(Threshold(1.0))
    batcher = serve(model, max_queue_tokens=1000, degrade_at=0.1, max_batch_tokens=40)
    gate = Gate(batcher, LOOK)

    async def come() -> list[Answers]:
        held = [asyncio.ensure_future(batcher.answer([text], Form.TEXT)) for text in TEXTS]
        await gate.wait()
        batcher._load._raised = float("-inf")
        for _ in range(9):
            batcher._load._raised = float("-inf")  # as if time had gone by
            assert batcher.level > 0
        assert batcher.level == len(batcher.served.levels) - 1
        gate.opened.set()
        return await asyncio.gather(*held)

    found = asyncio.run(come())
    cheap = [answers for answers in found if answers.degraded]
    assert cheap
    assert any(answers.tier.max() == 1 for answers in cheap)
    assert b'cascade_degraded_total{model="toy"}' in batcher._all_metrics.render()


def test_stopping_answers_what_was_accepted(clf: Classifier, serve: Serve) -> None:
    batcher = serve(clf.with_router(defer_all), max_batch_tokens=40)
    gate = Gate(batcher, LOOK)

    async def come() -> list[Answers]:
        held = [asyncio.ensure_future(batcher.answer([text], Form.TEXT)) for text in TEXTS[:9]]
        await gate.wait()
        stopped = asyncio.ensure_future(asyncio.to_thread(batcher.stop, seconds=60))
        await until(lambda: not batcher._accepts)
        with pytest.raises(Overloaded):
            await batcher.answer(TEXTS[:1], Form.TEXT)
        gate.opened.set()
        await stopped
        return await asyncio.gather(*held)

    assert len(asyncio.run(come())) == 9
    assert not batcher.healthy


def test_what_lay_in_its_socket_for_long_is_refused(clf: Classifier, serve: Serve) -> None:
    """The batcher sees no queue of requests that the event loop has not read yet; it sees how slowly that turns."""
    batcher = serve(clf, max_queue_ms=300)

    async def come() -> list[Answers]:
        gate = Gate(batcher, LOOK)
        held = [asyncio.ensure_future(batcher.answer(TEXTS[:1], Form.TEXT))]
        await gate.wait()
        time.sleep(0.5)  # noqa: ASYNC251  # as if many others were read and answered
        with pytest.raises(Overloaded):
            await batcher.answer(TEXTS[:1], Form.TEXT)
        await until(lambda: batcher._seconds() < 0.3)
        held.append(asyncio.ensure_future(batcher.answer(TEXTS[:1], Form.TEXT)))
        await asyncio.sleep(0)
        gate.opened.set()
        found = await asyncio.gather(*held)
        await until(lambda: batcher._late._loop is None)  # nothing is under way, and nothing wakes the loop
        return found

    assert len(asyncio.run(come())) == 2
    assert len(asyncio.run(come())) == 2  # in a loop of its own


def test_stopping_has_an_end(clf: Classifier, serve: Serve) -> None:
    batcher = serve(clf, max_batch_tokens=10)
    gate = Gate(batcher, LOOK)

    async def come() -> list[Any]:
        held = [asyncio.ensure_future(batcher.answer([text], Form.TEXT)) for text in TEXTS[:4]]
        await gate.wait()
        await asyncio.to_thread(batcher.stop, seconds=0)
        gate.opened.set()
        return await asyncio.gather(*held, return_exceptions=True)

    ended = asyncio.run(come())
    assert any(isinstance(one, Failed) and "stops" in str(one) for one in ended)


def test_a_swap_lets_what_is_under_way_end_with_the_old_model(clf: Classifier, serve: Serve) -> None:
    batcher = serve(clf)
    other = Served.of("toy", clf.with_router(defer_none))
    gate, old = Gate(batcher, LOOK), batcher.served

    async def come() -> None:
        held = [asyncio.ensure_future(batcher.answer([text], Form.TEXT)) for text in TEXTS[:9]]
        await gate.wait()
        batcher.swap(other)
        new = asyncio.ensure_future(batcher.answer(TEXTS, Form.TEXT))
        await asyncio.sleep(0)
        gate.opened.set()
        for text, found in zip(TEXTS, await asyncio.gather(*held), strict=False):
            assert found.served is old
            assert_answers(found, clf, [text])
        assert (await new).served is other
        assert_answers(await new, other.pipeline, TEXTS)

    asyncio.run(come())


def test_a_text_that_cannot_be_read_fails_its_own_request_only(clf: Classifier, serve: Serve) -> None:
    batcher = serve(clf)
    gate = Gate(batcher, LOOK)
    requests: list[list[Any]] = [TEXTS[:1], TEXTS[1:3], [3], TEXTS[3:4], ["good", ["bad"]], TEXTS[4:5]]

    async def come() -> list[Any]:
        held = [asyncio.ensure_future(batcher.answer(items, Form.TEXT)) for items in requests]
        await gate.wait()
        gate.opened.set()
        return await asyncio.gather(*held, return_exceptions=True)

    for found, items in zip(asyncio.run(come()), requests, strict=True):
        if items in ([3], ["good", ["bad"]]):
            assert isinstance(found, InputError)
        else:
            assert_answers(found, clf, items)


@pytest.mark.parametrize("job", [LOOK, FINISH])
def test_a_model_that_breaks_fails_what_it_was_asked_and_goes_on(
    clf: Classifier, serve: Serve, job: int, caplog: pytest.LogCaptureFixture
) -> None:
    batcher = serve(clf.with_router(defer_all))
    jobs = list(batcher._jobs)
    run = jobs[job]

    def breaks(works: Any, level: int) -> Any:
        if any("dull" in work.items for work in works):
            raise RuntimeError("out of paper")
        return run(works, level)

    jobs[job] = breaks
    batcher._jobs = (jobs[0], jobs[1])
    requests = [TEXTS[:1], ["dull"], TEXTS[1:2]]

    async def come() -> list[Any]:
        return await asyncio.gather(*(batcher.answer(items, Form.TEXT) for items in requests), return_exceptions=True)

    first, second, third = asyncio.run(come())
    assert isinstance(second, Failed)
    assert "out of paper" in str(second)
    assert_answers(first, clf.with_router(defer_all), requests[0])
    assert_answers(third, clf.with_router(defer_all), requests[2])
    assert batcher.healthy
    assert "could not answer" in caplog.text


LONG = "good film " * 30


def test_long_texts_are_cut_refused_or_read_in_windows(clf: Classifier, serve: Serve) -> None:
    batcher = serve(clf, max_batch_tokens=100)
    [found] = ask(batcher, [LONG, "bad"])
    assert_answers(found, clf.with_truncation(), [LONG, "bad"])
    assert found.truncated == 1
    [found] = ask(batcher, [LONG], windows=True)
    assert_answers(found, clf, [LONG])
    for items, tokens in (([LONG], 62), ([("good", LONG)], 64)):
        with pytest.raises(TooLong, match=rf"less than 16 tokens\. Given: {tokens}") as error:
            ask(batcher, items, truncate=False)
        assert (error.value.tokens, error.value.limit) == (tokens, 16)
    with pytest.raises(TooLong, match=r"less than 4000 characters\. Given: 10000"):
        ask(batcher, ["good " * 2000], truncate=False)
    with pytest.raises(TooLong, match=r"less than 100 tokens\. Given: 802"):
        ask(batcher, ["good " * 800], windows=True)
    assert_answers(ask(batcher, ["good " * 2000])[0], clf.with_truncation(), ["good " * 800])
    assert_answers(ask(batcher, ["good"], truncate=False)[0], clf, ["good"])


def test_what_is_cut_does_not_wait(clf: Classifier, serve: Serve) -> None:
    batcher = serve(clf, max_queue_tokens=60)
    gate = Gate(batcher, LOOK)

    async def come() -> None:
        held = [asyncio.ensure_future(batcher.answer(TEXTS[:1], Form.TEXT))]
        await gate.wait()
        for items in ([LONG], [LONG, ("bad", LONG)]):
            held.append(asyncio.ensure_future(batcher.answer(items, Form.TEXT)))
            await asyncio.sleep(0)
        assert batcher.queued_tokens == 3 * 16
        with pytest.raises(Overloaded):
            await asyncio.wait_for(batcher.answer([LONG], Form.TEXT, windows=True), 60)
        gate.opened.set()
        await asyncio.gather(*held)

    asyncio.run(come())


def test_what_a_tagger_cannot_read_at_once_is_refused_where_that_is_asked(tagger: Tagger, serve: Serve) -> None:
    batcher = serve(tagger)
    for form, items in ((Form.WORDS, [["film"] * 40]), (Form.PIECES, ["film " * 40])):
        with pytest.raises(TooLong, match=r"less than 24 tokens\. Given: 42"):
            ask(batcher, items, form=form, truncate=False)
    assert len(ask(batcher, ["film " * 40], form=Form.PIECES)[0].tier) == 22


def test_a_model_of_another_task_answers_nothing(clf: Classifier, tagger: Tagger, serve: Serve) -> None:
    with pytest.raises(Failed, match="not a tagger"):
        ask(serve(clf), [["good"]], form=Form.WORDS)
    with pytest.raises(Failed, match="not a classifier"):
        ask(serve(tagger), ["good"])


def test_no_items_and_no_start(clf: Classifier) -> None:
    batcher = Batcher(Served.of("toy", clf), Limits(), Metrics())
    assert not batcher.healthy
    with pytest.raises(Overloaded):
        ask(batcher, TEXTS[:1])
    batcher.start()
    assert len(ask(batcher, [])[0].probabilities) == 0
    batcher.stop(seconds=10)
    with pytest.raises(OptionError, match="max_batch_tokens must be at least the longest input"):
        Batcher(Served.of("toy", clf), Limits(auto_truncate=False, max_batch_tokens=8), Metrics())

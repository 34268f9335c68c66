"""Requests in any order get the answers that they would get alone, and faults are those of one request."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade import Classifier, Tagger
from cascade.core.limits import Limits
from cascade.exceptions import InputError, OptionError
from cascade.policies import Threshold, defer_all, defer_none
from cascade.serving.batcher import Batcher
from cascade.serving.errors import Failed, Overloaded, TooLong
from cascade.serving.load import FINISH, LOOK
from cascade.serving.metrics import Metrics
from cascade.serving.served import Form, Served
from cascade.serving.work import Answers
from tests.serving.conftest import PATIENT, TEXTS, Gate, Serve, ask, assert_answers

ITEMS: list[Any] = [*TEXTS[:20], ("good film", "bad plot"), {"text": "we", "text_pair": "laugh"}, "", " very " * 40]


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
    made = Batcher(Served("toy", model), Limits(max_batch_tokens=70, **PATIENT), Metrics())
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
    batcher = Batcher(Served("toy", clf), Limits(), Metrics())
    assert not batcher.healthy
    with pytest.raises(Overloaded):
        ask(batcher, TEXTS[:1])
    batcher.start()
    assert len(ask(batcher, [])[0].probabilities) == 0
    batcher.stop(seconds=10)
    with pytest.raises(OptionError, match="max_batch_tokens must be at least the longest input"):
        Batcher(Served("toy", clf), Limits(auto_truncate=False, max_batch_tokens=8), Metrics())

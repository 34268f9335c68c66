"""Who waits for whom: pooling, turns, leaving, refusing, cheaper answers under load, stopping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from cascade import Classifier
from cascade.policies import Threshold, defer_all, defer_none
from cascade.serving.errors import Failed, Overloaded
from cascade.serving.load import FINISH, LOOK
from cascade.serving.served import Form, Served
from cascade.serving.work import Answers
from tests.serving.conftest import TEXTS, Gate, Serve, assert_answers, until


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


def test_what_the_event_loop_reads_in_one_turn_runs_together(clf: Classifier, serve: Serve) -> None:
    """A thread that has just become free does not take the first of them alone: both would wait for the interpreter."""
    batcher = serve(clf.with_router(defer_none))
    gate = Gate(batcher, LOOK)

    async def free_the_thread() -> None:
        gate.opened.set()
        time.sleep(0.1)  # noqa: ASYNC251  # the turn takes so long

    async def come() -> None:
        held = asyncio.ensure_future(batcher.answer(TEXTS[:1], Form.TEXT))
        await gate.wait()
        await asyncio.gather(
            batcher.answer(TEXTS[1:2], Form.TEXT), free_the_thread(), batcher.answer(TEXTS[2:3], Form.TEXT)
        )
        await held

    asyncio.run(come())
    assert [len(works) for works in gate.calls] == [1, 2]


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
        assert int(error.value.headers[0][1]) >= 1

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
        await until(lambda: not any(batcher._busy))  # what is under way counts as waiting
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
    assert b'cascade_degraded_total{model="toy"}' in batcher._metrics.render()


def test_at_the_last_level_the_first_tier_answers_what_waits_for_the_second(clf: Classifier, serve: Serve) -> None:
    batcher = serve(clf.with_router(Threshold(1.0)))
    gate, sure = Gate(batcher, FINISH), clf.with_router(defer_none)

    async def come() -> None:
        first = asyncio.ensure_future(batcher.answer(TEXTS[:1], Form.TEXT))
        await gate.wait()
        others = [asyncio.ensure_future(batcher.answer(TEXTS[at : at + 2], Form.TEXT)) for at in (1, 3, 5)]
        await until(lambda: len(batcher._pool) == 3)
        batcher._load.level = len(batcher.served.levels) - 1
        gate.opened.set()
        assert (await first).tier.tolist() == [2]
        for at, found in zip((1, 3, 5), await asyncio.gather(*others), strict=True):
            assert found.degraded
            assert_answers(replace(found, degraded=False), sure, TEXTS[at : at + 2])

    asyncio.run(come())


def test_what_waited_for_too_long_is_refused_where_nothing_gets_cheaper(clf: Classifier, serve: Serve) -> None:
    batcher = serve(clf.with_router(Threshold(1.0)), max_queue_ms=60, max_batch_tokens=40)
    gate = Gate(batcher, LOOK)

    async def come() -> None:
        held = asyncio.ensure_future(batcher.answer(TEXTS[:1], Form.TEXT))
        await gate.wait()
        others = [asyncio.ensure_future(batcher.answer(items, Form.TEXT)) for items in (TEXTS[1:2], TEXTS[2:20])]
        await until(lambda: len(batcher._queue) == 2)
        batcher._load.level = len(batcher.served.levels) - 1
        await asyncio.sleep(0.05)  # more than twice an eighth of what may wait
        gate.opened.set()
        await held
        with pytest.raises(Overloaded):
            await others[0]
        assert len((await others[1]).tier) == 18  # several works take several turns, which is no fault of theirs

    asyncio.run(come())


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


def test_how_long_one_waits_tells_what_no_measurement_does(clf: Classifier, serve: Serve) -> None:
    batcher = serve(clf, max_queue_ms=50)
    gate = Gate(batcher, LOOK)

    async def come() -> None:
        held = [asyncio.ensure_future(batcher.answer(TEXTS[:1], Form.TEXT))]
        await gate.wait()
        held.append(asyncio.ensure_future(batcher.answer(TEXTS[:1], Form.TEXT)))
        await asyncio.sleep(0.08)
        assert batcher.overloaded
        with pytest.raises(Overloaded):
            await batcher.answer(TEXTS[:1], Form.TEXT)
        gate.opened.set()
        await asyncio.gather(*held)
        assert not batcher.overloaded

    asyncio.run(come())


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
    other = Served("toy", clf.with_router(defer_none))
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

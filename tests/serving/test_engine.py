"""Levels, load, turns, metrics, and what is watched."""

from __future__ import annotations

import asyncio
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cascade import Classifier, Tagger
from cascade.core.limits import Limits
from cascade.exceptions import OptionError
from cascade.policies import (
    AtExit,
    Budget,
    MaxProbability,
    Patience,
    Threshold,
    TokenExit,
    any_of,
    defer_none,
    never,
)
from cascade.serving.batcher import Batcher
from cascade.serving.levels import levels_of
from cascade.serving.load import CALM, FINISH, LEAST_SLICE, LOOK, RUSH, Load
from cascade.serving.metrics import Metrics
from cascade.serving.served import Form, Served
from cascade.serving.work import Request, Turns, Work, cut, size_of
from tests.models.toy import random_texts, toy_bundle
from tests.serving.conftest import Serve, until

TEXTS = random_texts(200)


def test_each_level_is_cheaper_and_the_last_defers_nothing(clf: Classifier, tagger: Tagger) -> None:
    model = clf.with_router(Threshold(0.9)).with_exit_policy(MaxProbability((0.9, 0.6)))
    levels = levels_of(model.policies, model.infos)
    assert levels[0] == model.policies
    assert levels[-1].routers == (defer_none,)
    assert len(levels) == 5
    shares = [model.with_policies(own).predict(TEXTS).stats.deferred_share for own in levels]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > shares[2] > shares[-1] == 0
    eased_exits: list[Any] = [own.exits[1] for own in levels[1:3]]
    assert [own.threshold[0] for own in eased_exits] == pytest.approx([0.758333, 0.616667], abs=1e-5)
    policy = any_of(TokenExit(0.2), AtExit(3))
    words = tagger.with_exit_policy(policy)
    eased = levels_of(words.policies, words.infos)[2].exits[1]
    assert eased == any_of(TokenExit(0.6), AtExit(3))  # half as sure is doubt of 1 - 0.4


def test_what_cannot_be_tuned_stays_until_the_last_level(clf: Classifier) -> None:
    for router in (Budget(0.4), defer_none):
        model = clf.with_router(router).with_exit_policy(Patience(1))
        levels = levels_of(model.policies, model.infos)
        assert {own.exits for own in levels} == {(never, Patience(1))}
        shares = [own.routers[0].max_deferred for own in levels if isinstance(own.routers[0], Budget)]
        assert shares == pytest.approx([] if router == defer_none else [0.4, 0.3, 0.2, 0.1])
        assert levels[-1].routers[0] == defer_none


def test_the_level_rises_under_pressure_and_falls_when_it_is_over() -> None:
    load = Load(Limits(degrade_at=0.5), 4)
    assert [load.step(0.6, now * RUSH) for now in range(5)] == [1, 2, 3, 3, 3]
    assert load.step(0.6, 5 * RUSH) == load.step(0.4, 9) == load.step(0.1, 10) == 3  # half the pressure, for a while
    assert [load.step(0.1, 10 + 1.1 * CALM), load.step(0.4, 11), load.step(0.2, 12)] == [2, 2, 2]
    assert load.step(0.0, 20) == 0
    assert [load.step(0.6, 30), load.step(0.6, 30 + RUSH / 2), load.step(0.6, 30 + 2 * RUSH)] == [1, 1, 2]
    assert Load(Limits(degrade_at=1.0), 4).step(5.0, 1) == 0


def test_what_waits_is_told_in_seconds_by_what_was_measured() -> None:
    limits = Limits(max_queue_tokens=1000, max_queue_ms=100)
    load = Load(limits, 2)
    assert load.seconds(100, 100) == 0
    load.ran(LOOK, 20, 1.0)  # of few tokens it is known that more take no less
    assert load.seconds(LEAST_SLICE // 2, 100) == 1
    assert load.slice(9) == LEAST_SLICE
    assert [load.slice(ahead) for ahead in (300, 600, 9000)] == [300, 300, 4500]
    load.ran(LOOK, 1000, 0.01)
    load.ran(FINISH, 1000, 0.1)
    assert load.seconds(100, 100) == pytest.approx(0.001 + 0.01)
    load.ran(FINISH, 20, 1.0)
    assert load.seconds(0, 1000) == pytest.approx(0.1)
    load.ran(FINISH, 1000, 1.0)
    assert load.seconds(0, 1000) == pytest.approx(1000 / 8200)
    assert load.pressure(500, 0.02) == 0.5
    assert load.pressure(500, 0.09) == pytest.approx(0.9)
    load.ran(FINISH, 10**9, 1.0)
    assert load.slice(0) == limits.max_batch_tokens


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_batch_tokens", 0), ("max_wait", -1), ("max_queue_ms", 0), ("degrade_at", 0), ("max_batch_requests", 0),
     ("max_wait", math.nan), ("payload_limit", "1")],
)  # fmt: skip
def test_impossible_limits(name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=name):
        Limits(**{name: value})


def requests(count: int) -> list[Request]:
    return [Request((None, Form.TEXT, False), False, 0.0) for _ in range(count)]  # type: ignore[arg-type]


def test_requests_take_turns() -> None:
    turns = Turns()
    large, small, last = requests(3)
    works = [Work(large, ["a"], 10, None) for _ in range(3)]  # type: ignore[arg-type]
    others = [Work(small, ["b"], 5, None), Work(last, ["c", "d"], 7, None)]  # type: ignore[arg-type]
    for work in (*works, *others):
        turns.add(work)
    assert (len(turns), turns.tokens, turns.ahead) == (3, 42, 22)
    assert [work.request for work in turns.take(15)] == [large, small]
    assert (turns.tokens, turns.ahead) == (27, 17)
    assert [work.request for work in turns.take(100, 2)] == [last]
    turns.drop(last)
    turns.drop(large)
    assert (len(turns), turns.tokens, turns.ahead) == (0, 0, 0)
    turns.add(works[0])
    assert turns.take(1) == [works[0]]  # at least one
    turns.add(works[1])
    assert turns.clear() == [works[1]]
    assert (turns.tokens, turns.ahead, turns.take(9)) == (0, 0, [])


def test_requests_are_cut_into_works_and_sizes_estimated() -> None:
    assert list(cut("abcde", [3, 3, 9, 1, 1], 6)) == [(0, 2), (2, 3), (3, 5)]
    assert list(cut("a", [99], 6)) == [(0, 1)]
    assert size_of("abcdefgh") == 5
    assert size_of("电影电影") == 7
    assert size_of(("abcd", "abcd")) == size_of(["word"] * 2) == 6
    assert size_of([]) == 2


def test_a_share_of_the_answers_is_compared(clf: Classifier, tagger: Tagger, serve: Serve) -> None:
    for model, form in ((clf, Form.TEXT), (tagger, Form.PIECES), (tagger, Form.WORDS)):
        batcher = serve(model, share=1.0)
        items = [text.split() for text in TEXTS[:40]] if form is Form.WORDS else TEXTS[:40]
        watch = batcher.served.watch
        assert watch is not None

        async def come(batcher: Batcher = batcher, items: Any = items, form: Form = form, watch: Any = watch) -> None:
            await asyncio.gather(*(batcher.answer([item], form) for item in items))
            await until(lambda: watch.told()["shadowed"] == 40)

        asyncio.run(come())
        ask = "predict_texts" if form is Form.PIECES else "predict"
        again, full = (getattr(one, ask)(items) for one in (model, model.with_policies(model.policies.full_depth())))
        names = ("labels", "tags")
        mine, theirs = (next(getattr(one, name) for name in names if hasattr(one, name)) for one in (again, full))
        differ = sum(one != other for one, other in zip(mine, theirs, strict=True))
        told = batcher.served.info()["monitor"]
        assert (told["seen"], told["shadowed"], told["disagreements"]) == (40, 40, differ)
        assert b'cascade_monitor{model="toy",what="shadowed"} 40.0' in batcher._metrics.render()


def test_a_bundle_is_read_again_from_where_it_lies(tmp_path: Any) -> None:
    folder = toy_bundle(tmp_path / "toy").folder
    served = Served.load("toy", folder, threads=1)
    again = served.reload()
    assert again is not served
    assert (again.name, again.labels, again.levels) == (served.name, served.labels, served.levels)
    assert again.info() == served.info()
    assert again.info()["labels"] == ["negative", "neutral", "positive"]
    with pytest.raises(OptionError, match="must have been loaded"):
        Served("made", served.pipeline).reload()


def test_metrics_count_what_happened(clf: Classifier, serve: Serve) -> None:
    batcher = serve(clf)
    asyncio.run(batcher.answer(TEXTS[:50], Form.TEXT))
    found = batcher._metrics.live()
    routes = clf.predict(TEXTS[:50]).routes
    told = {(one["tier"], one["exit"]): count for one, count in found["cascade_routed_total"]}
    pairs, counts = np.unique(np.stack((routes.tier, routes.exit_layer)), axis=1, return_counts=True)
    assert told == {(str(a), str(b)): n for a, b, n in zip(*pairs.tolist(), counts.tolist(), strict=True)}
    assert found["cascade_confidence_count"] == [[{"model": "toy"}, 50]]
    assert found["cascade_queue_duration_seconds_count"] == [[{"model": "toy"}, 1]]
    assert found["cascade_queue_size"] == [[{"model": "toy"}, 0]]
    assert {one["tier"] for one, _ in found["cascade_inference_duration_seconds_count"]} == {"1", "2"}


def test_metrics_have_the_names_of_tei_where_that_is_asked(clf: Classifier) -> None:
    metrics = Metrics(tei=True)
    batcher = Batcher(Served("toy", clf), Limits(), metrics)
    batcher.start()
    answers = asyncio.run(batcher.answer(TEXTS[:2], Form.TEXT))
    batcher.stop(seconds=10)
    metrics.request("/predict", 200, 0.01, batch=True, answers=answers)
    metrics.request("/predict", 429, 0.01)
    text = metrics.render().decode()
    for line in (
        'cascade_requests_total{code="200",method="/predict"} 1.0',
        'te_request_count{method="batch"} 1.0',
        'te_request_count{method="single"} 1.0',
        'te_request_success{method="batch"} 1.0',
        'te_request_failure{err="overloaded"} 1.0',
        "te_request_duration_count 1.0",
        "te_predict_inference_duration_count 1.0",
        "te_batch_next_size_sum 2.0",
        "te_queue_size 0.0",
    ):
        assert line in text
    assert "te_request" not in Metrics().render().decode()


def test_processes_share_their_metrics_where_a_folder_is_named(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from cascade.serving.metrics import Metrics\n"
        "metrics = Metrics(tei=True)\n"
        "metrics.request('/predict', 429, 0.01)\n"
        "metrics.state('toy', 5, 1, None)\n"
        "from prometheus_client.multiprocess import mark_process_dead\n"
        "if len(sys.argv) > 1: mark_process_dead(int(sys.argv[1])); print(metrics.render().decode(), metrics.live())\n"
        "print(os.getpid())"
    )
    env = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], env=env, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    found = run(run())
    assert 'cascade_requests_total{code="429",method="/predict"} 2.0' in found
    assert 'te_request_count{method="single"} 2.0' in found
    assert 'cascade_queue_size{model="toy"} 5.0' in found  # of the one that lives


def test_the_door_says_what_is_missing() -> None:
    code = "import sys; sys.modules['uvicorn'] = None; import cascade.serving"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (
        'cascade.serving needs the extra serve, but uvicorn is missing; pip install "cascade-encoder[serve]"'
        in done.stderr
    )

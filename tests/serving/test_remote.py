"""Tiers that other processes run, here in this one: equal answers, calls that are pooled, what is lost on the way."""

from __future__ import annotations

import asyncio
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cascade import Classifier, Tagger
from cascade.engine.inputs import Inputs
from cascade.engine.looks import between, runs_of
from cascade.engine.tier import Scores
from cascade.exceptions import CascadeWarning
from cascade.policies import MaxProbability, Threshold
from cascade.serving import remote
from cascade.serving.remote import Asked, LaterTier, RemoteTier
from cascade.text.word_encoding import WordEncoder
from tests.models.toy import random_texts

TEXTS = random_texts(60, longest=9)


class Process:
    """A later tier behind an event loop of its own, which is asked as Ray's handles are."""

    def __init__(self, tier: Any) -> None:
        self.tier, self.loop = tier, asyncio.new_event_loop()
        self.calls: list[Asked] = []
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def ask(self, asked: Asked) -> Any:
        """Sends what another process would get: a copy."""
        own: Asked = pickle.loads(pickle.dumps(asked))  # made here
        self.calls.append(own)
        future = asyncio.run_coroutine_threadsafe(self.tier.score(own), self.loop)

        class Call:
            @staticmethod
            def result(timeout_s: float) -> Scores:
                scores: Scores = future.result(timeout_s)
                return scores

        return Call()


def apart(pipeline: Any, process: Any) -> Any:
    """The pipeline, whose last tier another process runs."""
    last = pipeline.tiers[-1]
    tier = RemoteTier(
        ask=process.ask,
        labels=len(pipeline.labels),
        layers=tuple(last.layers),
        encoder=last.encoder,
        words=isinstance(pipeline, Tagger),
    )
    return replace(pipeline, tiers=(*pipeline.tiers[:-1], tier)).with_policies(pipeline.policies)


def assert_equal(found: Any, wanted: Any, labels: str = "labels") -> None:
    assert getattr(found, labels) == getattr(wanted, labels)
    np.testing.assert_allclose(found.probabilities, wanted.probabilities, atol=1e-5)
    own, other = (getattr(one.routes, "words", one.routes) for one in (found, wanted))
    np.testing.assert_array_equal(own.tier, other.tier)
    np.testing.assert_array_equal(own.exit_layer, other.exit_layer)


@pytest.mark.parametrize("call_tokens", [4096, 40])
def test_a_tier_elsewhere_gives_the_answers_of_the_tier_here(
    clf: Classifier, call_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "CALL_TOKENS", call_tokens)
    own = clf.with_router(Threshold(0.9)).with_exit_policy(MaxProbability(0.8)).with_blend(0.5)
    process = Process(LaterTier(str(clf.bundle.folder), 1, 1))
    assert_equal(apart(own, process).predict(TEXTS), own.predict(TEXTS))
    assert (len(process.calls) > 1) == (call_tokens == 40)


def test_a_call_says_how_much_waits_behind_it(clf: Classifier) -> None:
    process = Process(LaterTier(str(clf.bundle.folder), 1, 1))
    tier = replace(apart(clf, process).tiers[-1], behind=lambda: 700)
    inputs = Inputs.of(TEXTS, clf.tokenizer)
    tier.score(inputs)
    [call] = process.calls
    assert call.tokens == inputs.tokens + 700


def test_words_are_asked_in_whole_sentences(tagger: Tagger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "CALL_TOKENS", 30)
    own = tagger.with_router(Threshold(0.9)).with_exit_policy(MaxProbability(0.8))
    process = Process(LaterTier(str(tagger.bundle.folder), 1, 1))
    sentences = [text.split() for text in TEXTS if text.split()]
    assert_equal(apart(own, process).predict(sentences), own.predict(sentences), "tags")
    assert len(process.calls) > 1


def test_calls_that_come_while_a_tier_computes_are_answered_together(clf: Classifier) -> None:
    tier = LaterTier(str(clf.bundle.folder), 1, 1)
    sizes: list[int] = []
    begun, gate, scores = threading.Event(), threading.Event(), tier._scores

    def held(asked: list[Asked]) -> list[Scores]:
        sizes.append(len(asked))
        begun.set()
        assert gate.wait(60)
        return scores(asked)

    tier._scores = held  # type: ignore[assignment,method-assign]
    process, own = Process(tier), clf.with_router(Threshold(1.0))
    away = apart(own, process)
    with ThreadPoolExecutor(4) as callers:
        answers = [callers.submit(away.predict, TEXTS[place : place + 10]) for place in range(0, 10, 10)]
        assert begun.wait(60)
        answers += [callers.submit(away.predict, TEXTS[place : place + 10]) for place in range(10, 40, 10)]
        while tier.record_autoscaling_stats()["tokens"] < sum(call.tokens for call in process.calls) or (
            len(process.calls) < 4
        ):
            time.sleep(0.001)
        gate.set()
        for place, found in enumerate(answers):
            assert_equal(found.result(), own.predict(TEXTS[10 * place : 10 * place + 10]))
    assert sizes == [1, 3]
    assert tier.record_autoscaling_stats() == {"tokens": 0.0}


def test_of_a_tier_that_fails_the_tier_before_answers(clf: Classifier) -> None:
    class Gone:
        @staticmethod
        def ask(_: Asked) -> Any:
            return Gone

        @staticmethod
        def result(timeout_s: float) -> Scores:
            raise ConnectionError("the actor died")

    own = clf.with_router(Threshold(0.9))
    with pytest.warns(CascadeWarning, match=r"a later tier has no answer, .* \(ConnectionError: the actor died\)"):
        found = apart(own, Gone).predict(TEXTS)
    deferred = own.predict(TEXTS).routes.tier == 2
    assert deferred.any()
    np.testing.assert_array_equal(found.routes.tier, 1)
    np.testing.assert_array_equal(found.routes.failed > 0, deferred)
    assert found.stats.failed == int(deferred.sum())


def test_a_call_that_breaks_a_batch_is_told_to_all_of_it_and_the_next_is_answered(clf: Classifier) -> None:
    tier = LaterTier(str(clf.bundle.folder), 1, 1)
    rows = Inputs.of(TEXTS[:3], clf.tokenizer).encode()
    good = Asked(rows, None, None, clf.exit_policy, (1.0,) * len(clf.tiers[1].layers))  # type: ignore[attr-defined]

    async def both() -> Any:
        bad = replace(good, prior=np.zeros((1, 1), np.float32))
        first = await asyncio.gather(tier.score(bad), return_exceptions=True)
        return first[0], await tier.score(good)

    fault, scores = asyncio.run(both())
    assert isinstance(fault, Exception)
    assert len(scores) == 3


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("most", [1, 7, 10_000])
def test_runs_hold_each_item_once(clf: Classifier, tagger: Tagger, words: bool, most: int) -> None:
    inputs = Inputs.of(TEXTS, clf.tokenizer)
    if words:
        inputs = Inputs.of([text.split() for text in TEXTS], WordEncoder(tagger.tokenizer))
    runs = runs_of(inputs, most, words=words)
    assert [begin for begin, _ in runs] == [0, *(end for _, end in runs[:-1])]
    assert runs[-1][1] == inputs.n_units
    assert sum(between(inputs, *run, words=words).n_units for run in runs) == inputs.n_units


def test_no_rows_are_no_calls(clf: Classifier) -> None:
    away = apart(clf, Process(None))
    assert len(away.tiers[-1].score(Inputs.of([], clf.tokenizer))) == 0

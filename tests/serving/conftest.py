"""What the tests of serving share: toy models behind batchers that end with the test."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import pytest

from cascade import Classifier, Tagger
from cascade.core.limits import Limits
from cascade.serving.batcher import Batcher
from cascade.serving.metrics import Metrics
from cascade.serving.served import Form, Served
from cascade.serving.work import Answers, Ended, Work
from tests.models.toy import random_texts


class Gate:
    """Holds a job of a batcher (`LOOK` or `FINISH`) until it is opened, and keeps the works that it was given."""

    def __init__(self, batcher: Batcher, job: int) -> None:
        self.opened, self.reached = threading.Event(), threading.Event()
        self.calls: list[list[Work]] = []
        jobs = list(batcher._jobs)
        self._run, jobs[job] = jobs[job], self._held
        batcher._jobs = (jobs[0], jobs[1])

    def _held(self, works: Sequence[Work], level: int) -> list[Ended]:
        self.calls.append(list(works))
        self.reached.set()
        assert self.opened.wait(60)
        return self._run(works, level)

    async def wait(self) -> None:
        """Until the job is held."""
        assert await asyncio.to_thread(self.reached.wait, 60)


async def until(true: Callable[[], object]) -> None:
    """Wait until something holds; the test's time limit is the only other end."""
    while not true():  # noqa: ASYNC110  # what is waited for happens in other threads
        await asyncio.sleep(0.001)


TEXTS = random_texts(60, longest=9)


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
    assert (found.tokens, found.degraded) == (wanted.stats.tokens, False)
    assert set(found.seconds) == {"tokenize", "queue", "inference"}
    assert min(found.seconds.values()) >= 0


PATIENT: dict[str, Any] = {"degrade_at": 1.0, "max_queue_ms": 1e9}  # no answer depends on how fast a machine is
Serve: TypeAlias = Callable[..., Batcher]


@pytest.fixture(scope="module")
def clf(clf: Classifier) -> Classifier:
    """With threads for both jobs of a batcher."""
    return Classifier.from_pretrained(clf.bundle.folder, threads=2)


@pytest.fixture(scope="module")
def tagger(tagger: Tagger) -> Tagger:
    """With threads for both jobs of a batcher."""
    return Tagger.from_pretrained(tagger.bundle.folder, threads=2)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """A batcher around a pipeline, started; `limits` by name."""
    made: list[Batcher] = []

    def start(pipeline: Classifier | Tagger, *, share: float = 0.0, **limits: Any) -> Batcher:
        served = Served("toy", pipeline, share=share)
        made.append(Batcher(served, Limits(**{**PATIENT, **limits}), Metrics()))
        made[-1].start()
        return made[-1]

    yield start
    for batcher in made:
        batcher.stop(seconds=10)

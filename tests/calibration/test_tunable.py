"""A policy from outside, of which nothing is known but `score` and `at`, is calibrated and certified."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from cascade.calibration.certify.claims import Agreement, Claim, MaxDrop, Unit
from cascade.calibration.certify.outcomes import Certified
from cascade.calibration.certify.paths import PathGrid
from cascade.calibration.certify.sentences import certify_sentences
from cascade.calibration.certify.texts import certify_texts
from cascade.calibration.certify.word_paths import Reach
from cascade.calibration.ranked import Tuned
from cascade.calibration.thresholds.texts import Grid, choose
from cascade.core.rows import BoolArray, FloatArray
from cascade.policies.exits import AtExit, ExitState, any_of, never, register
from cascade.policies.routing import RoutingState, defer_all
from cascade.policies.routing import register as register_router
from tests.calibration.replaying import replay
from tests.models.recorded import policies, recorded
from tests.models.toy_answers import GRID, toy_answers


@register
@dataclass(frozen=True)
class Steady:
    """Exit where this exit and the one before agree: the smaller of what both give to this one's answer."""

    threshold: float | tuple[float, ...]

    def score(self, state: ExitState) -> FloatArray:
        best = state.probabilities.argmax(axis=1)
        before = state.history[:, max(state.exit_index - 1, 0)]
        mine = np.arange(len(best))
        smaller: FloatArray = np.minimum(state.probabilities[mine, best], before[mine, best])
        return smaller

    def at(self, threshold: float | tuple[float, ...]) -> Steady:
        return replace(self, threshold=threshold)

    def __call__(self, state: ExitState) -> BoolArray:
        own = self.threshold[state.exit_index] if isinstance(self.threshold, tuple) else self.threshold
        gone: BoolArray = self.score(state) >= own
        return gone


@register_router
@dataclass(frozen=True)
class LongLast:
    """Confidence, less for long texts."""

    threshold: float

    def score(self, state: RoutingState) -> FloatArray:
        return (state.confidence * np.exp(-state.lengths / 400)).astype(np.float32)

    def at(self, threshold: float) -> LongLast:
        return LongLast(threshold)

    def __call__(self, state: RoutingState) -> BoolArray:
        kept: BoolArray = self.score(state) >= self.threshold
        return ~kept


TUNED = Tuned(LongLast(0.5), Steady(0.5))


def test_its_thresholds_are_chosen() -> None:
    answers = recorded(600)
    points = list(replay(answers, tuned=TUNED, grid=Grid(deferral=9, exits=5)))
    for point in points[::7]:
        run = answers.run(policies(point.router, point.exit_policy))
        right = (run.answers == answers.goal).all(axis=1).mean()
        assert (right, run.deferred.mean()) == pytest.approx((point.accuracy, point.deferred))
        assert run.seconds / answers.full.seconds == pytest.approx(point.cost)
    best = choose(answers, max_drop=0.01, tuned=TUNED, per_exit=True)
    assert isinstance(best.exit_policy, Steady)
    assert isinstance(best.router, LongLast)
    assert best.cost < 1


def test_it_is_certified_for_texts() -> None:
    answers = recorded(2000)
    grid = PathGrid(risks=16, steps=30, blends=(0.0,))
    found = certify_texts(answers, Claim(MaxDrop(0.03)), tuned=TUNED, grid=grid)
    assert isinstance(found, Certified)
    assert isinstance(found.policies.routers[0], LongLast)
    exits = found.policies.exits[-1]
    assert isinstance(Tuned.of(defer_all, exits).exit_policy, Steady)
    tester = answers.with_temperatures(found.temperatures).select(found.tested_on)
    assert np.array_equal(tester.run(found.policies).answers, found.run.answers)
    written = found.policies.to_json()
    assert written["routers"] == [{"policy": "LongLast", "threshold": found.policies.routers[0].threshold}]
    assert "Steady" in str(written["exits"])


def test_it_is_certified_for_sentences() -> None:
    answers = toy_answers()
    grid = replace(GRID, exits=(Steady(0.5),), doubts=(0.02, 0.1, 0.3))
    claim = Claim(Agreement(0.35), unit=Unit.SENTENCE, confidence=0.9)
    found = certify_sentences(answers, claim, grid=grid, reach=Reach(run=8, steps=6), seed=1)
    assert isinstance(found, Certified)
    assert any("Steady" in repr(step.policies) for step in found.steps)
    assert not any("TokenExit" in repr(step.policies) for step in found.steps)


def test_the_part_that_can_be_tuned() -> None:
    assert Tuned.of(LongLast(0.3), any_of(Steady(0.5), AtExit(4))) == Tuned(LongLast(0.3), Steady(0.5))
    assert Tuned.of(defer_all, never) == Tuned()

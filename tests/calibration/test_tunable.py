"""A policy from outside, of which nothing is known but `score` and `at`, is calibrated and certified."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cascade.calibration.certify.claims import Agreement, Claim, MaxDrop, Unit
from cascade.calibration.certify.outcomes import Certified
from cascade.calibration.certify.paths import PathGrid
from cascade.calibration.certify.whole import certify_sample
from cascade.calibration.chain import EXIT, ROUTER
from cascade.calibration.choosing import choose_texts
from cascade.core.rows import BoolArray, FloatArray
from cascade.policies.exits import AtExit, ExitState, any_of, never, register
from cascade.policies.registry import tunable
from cascade.policies.routing import RoutingState, defer_all
from cascade.policies.routing import register as register_router
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


LIKE = policies(LongLast(0.5), Steady(0.5))


def test_its_thresholds_are_chosen() -> None:
    best = choose_texts(recorded(600), max_drop=0.01, like=LIKE)
    assert isinstance(best.policies.exits[-1], Steady)
    assert isinstance(best.policies.routers[0], LongLast)
    assert best.cost < 1


def test_it_is_certified_for_texts() -> None:
    answers = recorded(2000)
    grid = PathGrid(prices=40, steps=30, blends=(0.0,))
    found = certify_sample(answers, Claim(MaxDrop(0.03)), like=LIKE, grid=grid)
    assert isinstance(found, Certified)
    assert isinstance(found.policies.routers[0], LongLast)
    exits = found.policies.exits[-1]
    assert isinstance(tunable(exits, EXIT), Steady)
    tester = answers.with_temperatures(found.temperatures).select(found.tested_on)
    assert np.array_equal(tester.run(found.policies).answers, found.run.answers)
    written = found.policies.to_json()
    assert written["routers"] == [{"policy": "LongLast", "threshold": found.policies.routers[0].threshold}]
    assert "Steady" in str(written["exits"])


def test_it_is_certified_for_sentences() -> None:
    answers = toy_answers()
    like = replace(answers.at_full_depth, exits=(never, Steady(0.5)))
    claim = Claim(Agreement(0.35), unit=Unit.SENTENCE, confidence=0.9)
    found = certify_sample(answers, claim, like=like, grid=GRID, seed=1)
    assert isinstance(found, Certified)
    assert any("Steady" in repr(step.policies) for step in found.steps)
    assert not any("TokenExit" in repr(step.policies) for step in found.steps)


def test_the_part_that_can_be_tuned() -> None:
    assert tunable(LongLast(0.3), ROUTER) == LongLast(0.3)
    assert tunable(any_of(Steady(0.5), AtExit(4)), EXIT) == Steady(0.5)
    assert (tunable(defer_all, ROUTER), tunable(never, EXIT)) == (ROUTER, EXIT)

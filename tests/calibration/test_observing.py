"""Observing: what is replayed is what the tiers and the engine do."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass, replace

import numpy as np
import pytest

from cascade.calibration import Costs, Grid, choose, observe, replay
from cascade.engine.cascade import Cascade
from cascade.policies.batching import FixedSize
from cascade.policies.exits import AtExit
from cascade.runtime.backend import FunctionBackend
from tests.models.toy import Toy, batch_of

LENGTHS = np.random.default_rng(1).integers(2, 12, 200).tolist()


def test_the_engine_does_what_a_replayed_point_says() -> None:
    toy, batch = Toy(), batch_of(LENGTHS)
    tier1, tier2 = toy.tier1(), toy.tier2(exit_policy=AtExit(2))
    truth = tier2.all_exits(batch)[:, -1].argmax(axis=1)
    truth[::7] = 0
    examples, _ = observe(tier1, tier2, batch, truth)
    costs = Costs.by_layers(tier2.layers, tier1=0.1)
    points = replay(examples, costs, grid=Grid(deferral=7, exits=6))
    for number in np.linspace(0, len(points) - 1, 25).astype(int).tolist():
        point = points[number]
        outcome = Cascade(tier1, replace(tier2, exit_policy=point.exit_policy), point.router).score(batch)
        assert (outcome.probabilities.argmax(axis=1) == truth).mean() == pytest.approx(point.accuracy)
        second = outcome.routes.tier == 2
        assert second.mean() == pytest.approx(point.deferred)
        assert outcome.routes.exit_layer[second].sum() == pytest.approx(point.mean_layer * second.sum())
    best = choose(examples, costs, max_drop=0.01)
    assert best.drop <= 0.01


def test_costs_are_seconds_per_token_of_the_parts() -> None:
    toy, batch = Toy(), batch_of(LENGTHS)
    seen: list[int] = []
    truth = np.zeros(len(batch), dtype=np.int64)
    _, costs = observe(
        toy.tier1(), toy.tier2(), batch, truth, tokenize_seconds=batch.tokens * 3.0, progress=seen.append
    )
    assert costs.always == pytest.approx(3)
    assert len(costs.stages) == 4
    assert min(costs.stages) > 0
    assert costs.tier1 > 0
    assert sum(seen) == 2 * len(batch)


def test_making_graphs_for_several_threads_is_not_timed() -> None:
    @dataclass(frozen=True, eq=False)
    class Slow(FunctionBackend):
        @functools.cached_property
        def serial(self) -> FunctionBackend:
            time.sleep(1)
            return FunctionBackend(self.function, self.inputs, self.outputs)

    toy, batch = Toy(), batch_of(LENGTHS)
    known = toy.tier1(threads=2, batching=FixedSize(100)).backend
    assert isinstance(known, FunctionBackend)
    slow = toy.tier1(threads=2, batching=FixedSize(100))
    slow = replace(slow, backend=Slow(known.function, known.inputs, known.outputs))
    _, costs = observe(slow, toy.tier2(), batch, np.zeros(len(batch), dtype=np.int64))
    assert costs.tier1 * batch.tokens < 1


def test_several_labels_at_once() -> None:
    toy, batch = Toy(), batch_of(LENGTHS)
    tier1, tier2 = toy.tier1(multi_label=True), toy.tier2(multi_label=True)
    truth = (tier2.all_exits(batch)[:, -1] >= 0.5).astype(np.int64)
    examples, _ = observe(tier1, tier2, batch, truth)
    assert examples.right2[:, -1].all()
    assert not examples.right1.all()

"""Observing texts: costs are those of the parts, and nothing but runs is timed."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass, replace

import numpy as np
import pytest

from cascade.calibration.observing import observe_rows
from cascade.core.rows import Encoded, Units
from cascade.policies.batching import FixedSize
from cascade.runtime.backend import FunctionBackend
from tests.models.toy import Toy, batch_of

LENGTHS = np.random.default_rng(1).integers(2, 12, 200).tolist()


def encoded(units: Units) -> Encoded:
    return Encoded(units, np.arange(len(units)))


def test_costs_are_seconds_per_token_of_the_parts() -> None:
    toy, units = Toy(), batch_of(LENGTHS)
    seen: list[int] = []
    truth = np.zeros(len(units), dtype=np.int64)
    answers = observe_rows(
        toy.tier1(), toy.tier2(), encoded(units), truth, encode_seconds=units.rows.tokens * 3.0, progress=seen.append
    )
    costs = answers.costs
    assert costs.always == pytest.approx(3)
    assert len(costs.stages) == 4
    assert min(costs.stages) > 0
    assert costs.tier1 > 0
    assert sum(seen) == 2 * len(units)
    np.testing.assert_array_equal(answers.tier2, toy.tier2().all_exits(units))


def test_making_graphs_for_several_threads_is_not_timed() -> None:
    @dataclass(frozen=True, eq=False)
    class Slow(FunctionBackend):
        @functools.cached_property
        def serial(self) -> FunctionBackend:
            time.sleep(1)
            return FunctionBackend(self.function, self.inputs, self.outputs)

    toy, units = Toy(), batch_of(LENGTHS)
    slow = toy.tier1(threads=2, batching=FixedSize(100))
    known = slow.backend
    assert isinstance(known, FunctionBackend)
    slow = replace(slow, backend=Slow(known.function, known.inputs, known.outputs))
    answers = observe_rows(slow, toy.tier2(), encoded(units), None)
    assert answers.costs.tier1 * units.rows.tokens < 1


def test_several_labels_at_once() -> None:
    toy, units = Toy(), batch_of(LENGTHS)
    tier1, tier2 = toy.tier1(multi_label=True), toy.tier2(multi_label=True)
    truth = (tier2.all_exits(units)[:, -1] >= 0.5).astype(np.int64)
    answers = observe_rows(tier1, tier2, encoded(units), truth)
    assert np.array_equal(answers.full.answers, truth)

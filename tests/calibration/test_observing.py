"""Observing texts: costs are those of the parts, and nothing but runs is timed."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass, replace

import numpy as np
import pytest

from cascade.calibration.observing import run_both
from cascade.policies.batching import FixedSize
from cascade.runtime.backend import FunctionBackend
from tests.models.toy import Toy, batch_of

LENGTHS = np.random.default_rng(1).integers(2, 12, 200).tolist()


def test_costs_are_seconds_per_token_of_the_parts() -> None:
    toy, units = Toy(), batch_of(LENGTHS)
    seen: list[int] = []
    first, second, costs = run_both(
        toy.tier1(), toy.tier2(), units, encode_seconds=units.rows.tokens * 3.0, progress=seen.append
    )
    assert costs.always == pytest.approx(3)
    assert len(costs.stages) == 4
    assert min(costs.stages) > 0
    assert costs.tier1 > 0
    assert sum(seen) == 2 * len(units)
    np.testing.assert_array_equal(first, toy.tier1().score(units).probabilities)
    np.testing.assert_array_equal(second, toy.tier2().all_exits(units))


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
    assert run_both(slow, toy.tier2(), units)[2].tier1 * units.rows.tokens < 1

"""Observing texts: costs are those of the parts, and nothing but runs is timed."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass, replace

import numpy as np
import pytest

from cascade.calibration.observing import run_tiers
from cascade.core.rows import Units
from cascade.policies.batching import FixedSize
from cascade.runtime.backend import FunctionBackend
from tests.models.toy import Toy, batch_of
from tests.models.toy_tagging import ToyTagger, sentences_of

LENGTHS = np.random.default_rng(1).integers(2, 12, 200).tolist()


@pytest.mark.parametrize(
    ("toy", "units"), [(Toy(), batch_of(LENGTHS)), (ToyTagger(), sentences_of([[1, 2], [3], [1, 1, 2]] * 20))]
)
def test_costs_are_seconds_per_token_of_the_parts(toy: Toy | ToyTagger, units: Units) -> None:
    seen: list[int] = []
    tier1, tier2, tokens = toy.tier1(), toy.tier2(), units.rows.tokens
    said, costs = run_tiers((tier1, tier2), units, encode_seconds=3.0 * tokens, progress=seen.append)
    first, second = costs.tiers
    assert costs.always == pytest.approx(3)
    assert len(second.stages) == 4
    assert min(first.full, second.embed, *second.stages) > 0
    assert 1e-8 < costs.full - 3 < 0.1
    assert sum(seen) == 2 * len(units)
    np.testing.assert_array_equal(said[0][:, 0], tier1.score(units).probabilities)
    np.testing.assert_array_equal(said[1], tier2.all_exits(units))


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
    assert run_tiers((slow, toy.tier2()), units)[1].tiers[0].full * units.rows.tokens < 1

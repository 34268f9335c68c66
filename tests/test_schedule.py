from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from cascade.backend import Array, Backend, FunctionBackend
from cascade.batch import IntArray
from cascade.batching import BatchingPolicy, EvenBudget, FixedSize, TokenBudget
from cascade.exits import MaxProbability, never
from cascade.host_costs import HostCosts
from cascade.schedule import finished, inside, tier1_seconds, tier2_seconds
from tests.costs import costs
from tests.toy import Toy, batch_of


def rows(count: int, tokens: int = 10) -> IntArray:
    return np.full(count, tokens, dtype=np.int64)


def test_worked_examples() -> None:
    np.testing.assert_allclose(inside([0.5, 0.25, 0.25]), [1, 0.5, 0.25])
    np.testing.assert_allclose(inside([0, 0, 1]), [1, 1, 1])
    assert finished([3, 1, 1, 1], 2) == 3
    assert finished([1, 1, 1], 2) == 2
    assert finished([], 2) == 0


def test_one_batch_has_all_threads() -> None:
    here = costs(tier1=3e-6, stage=3e-5, fixed=0)
    assert tier1_seconds(here, rows(4), TokenBudget()) == pytest.approx(40 * 2e-6)
    assert tier2_seconds(here, rows(4), TokenBudget()) == pytest.approx(3 * 40 * 2e-5)
    assert tier2_seconds(here, rows(4), TokenBudget(), pool_from=41) == pytest.approx(3 * 40 * 3e-5)
    assert tier2_seconds(here, rows(4), TokenBudget(), pool_from=40) == pytest.approx(3 * 40 * 2e-5)
    assert tier1_seconds(here, rows(4), TokenBudget(), pool_from=41) == pytest.approx(40 * 3e-6)


def test_several_batches_have_a_thread_each() -> None:
    here = costs(tier1=3e-6, stage=3e-5, fixed=1e-3, start=0.5)
    # Three batches on two threads: one thread has two of them.
    assert tier1_seconds(here, rows(6), FixedSize(2)) == pytest.approx(0.5 + 2 * (1e-3 + 20 * 3e-6))
    assert tier2_seconds(here, rows(6), FixedSize(2)) == pytest.approx(0.5 + 2 * 3 * (1e-3 + 20 * 3e-5))
    one = costs(threads=1, tier1=3e-6, fixed=1e-3, start=0.5)
    assert tier1_seconds(one, rows(6), FixedSize(2)) == pytest.approx(3 * (1e-3 + 20 * 3e-6))


def test_padding_of_tier_1_costs() -> None:
    here = costs(threads=1, tier1=1e-6, fixed=0)
    assert tier1_seconds(here, np.array([10, 2]), FixedSize(2)) == pytest.approx(20e-6)


def test_rows_that_left_cost_nothing() -> None:
    here = costs(threads=1, stage=1e-5, fixed=1e-3)
    seconds = tier2_seconds(here, rows(100), FixedSize(100), remaining=inside([0.5, 0.5, 0]))
    assert seconds == pytest.approx(1e-3 + 1000e-5 + 1e-3 + 500e-5)  # nobody reaches the last stage


def test_merging_spares_fixed_costs() -> None:
    here = costs(threads=1, stage=1e-5, fixed=1e-3)
    shares = inside([0.5, 0, 0.5])
    merged = tier2_seconds(here, rows(100), FixedSize(20), remaining=shares, together=5)
    apart = tier2_seconds(here, rows(100), FixedSize(20), remaining=shares, together=1)
    assert apart == pytest.approx(15 * 1e-3 + 2000e-5)
    assert merged == pytest.approx((5 + 3 + 3) * 1e-3 + 2000e-5)


def test_stops_cost_but_at_the_last_exit() -> None:
    here = costs(threads=1, fixed=0, stage=0, around=1e-3, stop=1e-2)
    assert tier2_seconds(here, rows(2), FixedSize(2)) == pytest.approx(3e-3)
    assert tier2_seconds(here, rows(2), FixedSize(2), remaining=inside([0, 0, 1])) == pytest.approx(2e-2 + 1e-3)


def test_a_row_that_has_probably_left() -> None:
    here = costs(threads=1, fixed=1e-3, stage=0)
    assert tier2_seconds(here, rows(1), FixedSize(1), remaining=inside([0.9, 0, 0.1])) == pytest.approx(1.2e-3)


def test_nothing_costs_nothing() -> None:
    none = np.empty(0, dtype=np.int64)
    assert tier1_seconds(costs(), none, TokenBudget()) == 0
    assert tier2_seconds(costs(), none, TokenBudget()) == 0


FIXED, PER_TOKEN = 1e-3, 1e-5


def timed(backend: Backend, spent: list[float]) -> FunctionBackend:
    """The same graph; what it takes by the costs is written down."""

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        spent.append(FIXED + PER_TOKEN * len(feeds["hidden"]))
        return backend.run(feeds)

    return FunctionBackend(run, tuple(backend.inputs), tuple(backend.outputs))


def here() -> HostCosts:
    made = costs(threads=1, fixed=FIXED, stage=PER_TOKEN)
    return replace(made, layers=(2, 4, 5, 6), stages=(*made.stages, made.stages[0]))


@pytest.mark.parametrize("together", [1, 3, 16])
@pytest.mark.parametrize("batching", [TokenBudget(90), TokenBudget(400), EvenBudget(150, 2)], ids=repr)
def test_the_engine_does_the_same(batching: BatchingPolicy, together: int) -> None:
    spent: list[float] = []
    tier2 = Toy().tier2(batching=batching, together=together, exit_policy=MaxProbability(0.7))
    tier2 = replace(tier2, stages=[timed(stage, spent) for stage in tier2.stages])
    batch = batch_of(np.random.default_rng(1).integers(2, 14, 200).tolist())
    exits = tier2.score(batch).exits
    shares = [float(np.mean(exits == layer)) for layer in tier2.layers]
    assert 0.05 < shares[0] < 0.95
    predicted = tier2_seconds(here(), batch.lengths, batching, remaining=inside(shares), together=together)
    assert predicted == pytest.approx(sum(spent), rel=0.07)
    spent.clear()
    replace(tier2, exit_policy=never).score(batch)
    assert tier2_seconds(here(), batch.lengths, batching) == pytest.approx(sum(spent))

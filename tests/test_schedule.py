from __future__ import annotations

import numpy as np
import pytest

from cascade.batch import IntArray
from cascade.batching import FixedSize, TokenBudget
from cascade.schedule import finished, inside, tier1_seconds, tier2_seconds
from tests.costs import costs


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

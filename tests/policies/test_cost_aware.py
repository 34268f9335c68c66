from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.core.rows import FloatArray
from cascade.exceptions import OptionError
from cascade.policies import CostAware
from cascade.policies.routing import RoutingState

COSTS = ((16.0, 4.0), (64.0, 4.0), (1024.0, 20.0))  # 4 ms for anything small


def state(confidence: Any, lengths: Any) -> RoutingState:
    sure: FloatArray = np.asarray(confidence, dtype=np.float32)
    return RoutingState(np.stack((sure, 1 - sure), axis=1), sure, np.asarray(lengths, dtype=np.int64))


shares = st.floats(0, 1, width=32)
unit = st.tuples(shares, st.integers(1, 300))
units = st.lists(unit, max_size=12)
prices = st.sampled_from([0.0, 0.001, 0.01, 0.05, 0.1, 1.0]) | st.floats(0, 2)


@st.composite
def curves(draw: st.DrawFn) -> tuple[tuple[float, float], ...]:
    tokens = sorted(draw(st.sets(st.integers(0, 2000), min_size=2, max_size=5)))
    costs = sorted(draw(st.lists(st.floats(0, 50), min_size=len(tokens), max_size=len(tokens))))
    return tuple(zip(map(float, tokens), costs, strict=True))


@given(units, prices, curves())
def test_no_prefix_is_worth_more(units: list[tuple[float, int]], price: float, costs: Any) -> None:
    router = CostAware(price, costs)
    confidence, lengths = [one for one, _ in units], [one for _, one in units]
    mask = router(state(confidence, lengths))
    order = sorted(range(len(units)), key=lambda unit: confidence[unit] - 1)

    def worth(chosen: Any) -> float:
        tokens = sum(lengths[unit] for unit in chosen)
        return sum(1 - confidence[unit] for unit in chosen) - price * float(router.cost(tokens)) if len(chosen) else 0.0

    best = max(worth(order[:count]) for count in range(len(order) + 1))
    chosen = np.flatnonzero(mask)
    assert worth(chosen) == pytest.approx(best, abs=1e-9)
    assert sorted(chosen) == sorted(order[: len(chosen)])


@given(st.lists(unit, max_size=12, unique_by=lambda unit: unit[0] - 1), prices, st.data())
def test_order_of_units_with_distinct_gains_changes_nothing(
    units: list[tuple[float, int]], price: float, data: st.DataObject
) -> None:
    confidence, lengths = np.array([one for one, _ in units]), np.array([one for _, one in units], dtype=np.int64)
    permutation = np.array(data.draw(st.permutations(range(len(units)))), dtype=np.int64)
    router = CostAware(price, COSTS)
    mask = router(state(confidence, lengths))
    assert np.array_equal(router(state(confidence[permutation], lengths[permutation])), mask[permutation])


def test_of_equal_gains_the_earlier_ones_go() -> None:
    router = CostAware(0.01, ((0.0, 0.0), (100.0, 1.0), (200.0, 200.0)))  # dear beyond 100 tokens
    assert router(state([0.5, 0.5, 0.5], [50, 50, 50])).tolist() == [True, True, False]
    assert router(state([], [])).tolist() == []


@given(st.floats(0, 0.984375, width=32), st.integers(1, 32), st.integers(2, 20))
def test_a_larger_batch_defers_what_a_single_text_does_not(confidence: float, tokens: int, count: int) -> None:
    price = (1 - float(np.float32(confidence))) / 4 * 1.01  # one unit is a hair too dear, two at the price of one not
    assert not CostAware(price, COSTS)(state([confidence], [tokens])).any()
    assert CostAware(price, COSTS)(state([confidence] * count, [tokens] * count)).sum() >= 2


@given(units, curves())
def test_price_0_defers_every_unit_with_a_gain(units: list[tuple[float, int]], costs: Any) -> None:
    confidence = [one for one, _ in units]
    mask = CostAware(0, costs)(state(confidence, [one for _, one in units]))
    assert mask.tolist() == [one < 1 for one in confidence]


def test_cost_between_below_and_beyond_the_points() -> None:
    router = CostAware(1, COSTS)
    assert router.cost([0, 1, 16, 544, 1024, 2048]).tolist() == pytest.approx([4, 4, 4, 12, 20, 20 + 16 * 1024 / 960])


def test_gain_by_points_and_for_nan() -> None:
    router = CostAware(0, COSTS, gains=((0.5, 0.4), (0.9, 0.0), (1.0, -0.1)))
    gains = router.gain(state([0.2, 0.7, 0.95, np.nan], [1] * 4))
    assert gains.tolist() == pytest.approx([0.4, 0.2, -0.05, 0.4])
    assert router(state([0.2, 0.7, 0.95, np.nan], [1] * 4)).tolist() == [True, True, False, True]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("price", bad) for bad in (-1, float("inf"), True, "dear")),
        *(("costs", bad) for bad in (((1, 1),), ((2, 1), (2, 3)), ((1, 3), (2, 1)), ((-1, 1), (2, 3)), (1, 2), 3)),
        *(("costs", ((1, bad), (2, 3))) for bad in (-1, float("nan"), True)),
        ("costs", ((1, 1), (2, 3, 4))),
        *(("gains", bad) for bad in ((), ((0.5, 1), (1.5, 0)), ((-0.5, 1), (0.5, 0)), ((0.5, 1), (0.5, 0)))),
    ],
)
def test_refuses(name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=f"^{name} must be .*got {re.escape(repr(value))}; "):
        CostAware(**{"price": 0.1, "costs": COSTS, name: value})

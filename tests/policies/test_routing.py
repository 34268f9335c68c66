from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.core.confidence import max_probability
from cascade.exceptions import OptionError
from cascade.policies.routing import Budget, RoutingState, Threshold, defer_all, defer_none


def state(*first: float, multi_label: bool = False) -> RoutingState:
    """Rows of two labels with these probabilities of the first."""
    p = np.array([[value, 1 - value] for value in first], dtype=np.float32).reshape(-1, 2)
    return RoutingState(p, max_probability(p), np.full(len(p), 7), multi_label)


def test_threshold_defers_below() -> None:
    np.testing.assert_array_equal(Threshold(0.75)(state(0.74, 0.75, 0.2, 0.3)), [True, False, False, True])
    np.testing.assert_array_equal(Threshold(0)(state(0.5, 1.0)), [False, False])
    np.testing.assert_array_equal(Threshold(1)(state(0.5, 1.0)), [True, False])
    several = RoutingState(np.array([[0.99, 0.5]], dtype=np.float32), np.array([0.5]), np.array([3]), multi_label=True)
    np.testing.assert_array_equal(Threshold(0.9)(several), [True])


def test_budget_takes_the_least_sure_and_of_equals_the_first() -> None:
    np.testing.assert_array_equal(Budget(0.5)(state(0.9, 0.6, 0.4, 0.6)), [False, True, True, False])
    np.testing.assert_array_equal(Budget(0.5)(state(0.9, 0.6, 0.6, 0.6)), [False, True, True, False])
    assert Budget(0.29)(state(*[0.5] * 100)).sum() == 29  # 0.29 * 100 is 28.999999999999996


@given(st.lists(st.floats(0, 1), max_size=30), st.floats(0, 1))
def test_budget_is_kept(first: list[float], share: float) -> None:
    now = state(*first)
    mask = Budget(share)(now)
    assert mask.sum() <= share * len(first) + 1e-9 < mask.sum() + 1
    if mask.any() and not mask.all():
        assert now.confidence[mask].max() <= now.confidence[~mask].min()


def test_budget_knows_when_it_is_too_small() -> None:
    assert Budget(0.5).too_few(1)
    assert not Budget(0.5).too_few(2)
    assert not Budget(0).too_few(1)
    assert not Budget(0.5).too_few(0)


def test_nan_is_the_least_sure() -> None:
    now = state(float("nan"), 0.5)
    np.testing.assert_array_equal(Threshold(0.1)(now), [True, False])
    np.testing.assert_array_equal(Budget(0.5)(now), [True, False])


def test_all_and_none() -> None:
    np.testing.assert_array_equal(defer_all(state(0.5, 1)), [True, True])
    np.testing.assert_array_equal(defer_none(state(0.5, 1)), [False, False])


@pytest.mark.parametrize("bad", [-0.1, 1.5, True, "a", None])
def test_numbers_are_checked(bad: Any) -> None:
    with pytest.raises(OptionError, match=r"threshold must be in \[0, 1\], got .*; give a number such as 0.2"):
        Threshold(bad)
    with pytest.raises(OptionError, match=r"max_deferred must be in \[0, 1\], got "):
        Budget(bad)

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.core.confidence import certainty, margin, max_probability
from cascade.exceptions import OptionError
from cascade.policies import routing
from cascade.policies.routing import Budget, Router, RoutingState, Threshold, defer_all, defer_none


def state(*first: float, multi_label: bool = False) -> RoutingState:
    """Rows of two labels with these probabilities of the first."""
    p = np.array([[value, 1 - value] for value in first], dtype=np.float32).reshape(-1, 2)
    return RoutingState(p, max_probability(p), np.full(len(p), 7), multi_label)


def test_threshold_defers_below() -> None:
    np.testing.assert_array_equal(Threshold(0.75)(state(0.74, 0.75, 0.2, 0.3)), [True, False, False, True])
    np.testing.assert_array_equal(Threshold(0.75, margin)(state(0.74, 0.75, 0.1)), [True, True, False])


def test_threshold_at_the_ends() -> None:
    np.testing.assert_array_equal(Threshold(0)(state(0.5, 1.0)), [False, False])
    np.testing.assert_array_equal(Threshold(1)(state(0.5, 1.0)), [True, False])


def test_threshold_knows_multi_label() -> None:
    state_ = RoutingState(np.array([[0.99, 0.5]], dtype=np.float32), np.array([0.5]), np.array([3]), multi_label=True)
    np.testing.assert_array_equal(Threshold(0.9)(state_), [True])


@pytest.mark.parametrize(("share", "deferred"), [(0, 0), (0.19, 0), (0.2, 1), (0.59, 2), (0.6, 3), (1, 5)])
def test_budget_rounds_down(share: float, deferred: int) -> None:
    assert Budget(share)(state(0.9, 0.8, 0.7, 0.6, 0.5)).sum() == deferred


def test_budget_takes_the_least_sure_and_of_equals_the_first() -> None:
    np.testing.assert_array_equal(Budget(0.5)(state(0.9, 0.6, 0.4, 0.6)), [False, True, True, False])
    np.testing.assert_array_equal(Budget(0.5)(state(0.9, 0.6, 0.6, 0.6)), [False, True, True, False])


def test_budget_means_what_it_says_in_floating_point() -> None:
    assert Budget(0.29)(state(*[0.5] * 100)).sum() == 29  # 0.29 * 100 is 28.999999999999996


@given(st.lists(st.floats(0, 1), max_size=30), st.floats(0, 1))
def test_budget_is_kept(first: list[float], share: float) -> None:
    now = state(*first)
    mask = Budget(share)(now)
    assert mask.sum() <= share * len(first) + 1e-9 < mask.sum() + 1
    if mask.any() and not mask.all():
        assert now.confidence[mask].max() <= now.confidence[~mask].min()


def test_nan_is_the_least_sure() -> None:
    now = state(float("nan"), 0.5)
    np.testing.assert_array_equal(Threshold(0.1)(now), [True, False])
    np.testing.assert_array_equal(Budget(0.5)(now), [True, False])


def test_all_and_none() -> None:
    np.testing.assert_array_equal(defer_all(state(0.5, 1)), [True, True])
    np.testing.assert_array_equal(defer_none(state(0.5, 1)), [False, False])


@pytest.mark.parametrize("bad", [-0.1, 1.5, True, "a", None])
def test_numbers_are_checked(bad: Any) -> None:
    with pytest.raises(OptionError, match=r"threshold must be in \[0, 1\], was: .*; give a number such as 0.2"):
        Threshold(bad)
    with pytest.raises(OptionError, match=r"max_deferred must be in \[0, 1\], was: "):
        Budget(bad)


@pytest.mark.parametrize("make", [Threshold, Budget])
def test_scores_are_checked(make: Any) -> None:
    with pytest.raises(OptionError, match=r"score must be a measure of confidence, was: 'margin'; use one of"):
        make(0.5, "margin")


def test_decide_checks_what_a_router_returns() -> None:
    def wrong(now: RoutingState) -> Any:
        return now.confidence

    with pytest.raises(OptionError, match=r"the router .*wrong.* must return bools of shape \(1,\), .*to defer"):
        routing.decide(wrong, state(0.5))
    np.testing.assert_array_equal(routing.decide(lambda now: now.lengths > 8, state(0.5)), [False])


@pytest.mark.parametrize(
    ("router", "written", "shown"),
    [
        (Threshold(0.9), {"policy": "Threshold", "threshold": 0.9}, "Threshold(threshold=0.9, score=max_probability)"),
        (
            Budget(0.2, certainty),
            {"policy": "Budget", "max_deferred": 0.2, "score": "certainty"},
            "Budget(max_deferred=0.2, score=certainty)",
        ),
        (defer_all, {"policy": "defer_all"}, "defer_all"),
        (defer_none, {"policy": "defer_none"}, "defer_none"),
    ],
)
def test_round_trip(router: Router, written: dict[str, Any], shown: str) -> None:
    assert routing.to_json(router) == written
    assert routing.from_json(written) == router
    assert repr(router) == shown


def test_own_functions_have_no_written_form() -> None:
    with pytest.raises(
        OptionError,
        match=r"only the routers of cascade.policies can be saved, was: .*with_router",
    ):
        routing.to_json(lambda now: now.lengths > 8)
    with pytest.raises(
        OptionError, match=r"only the measures of cascade.core.confidence can be saved, was: .*choose from"
    ):
        routing.to_json(Threshold(0.5, lambda p, *, multi_label: p[:, 0]))


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("defer_all", "a router must be written .*was: 'defer_all'"),
        ({"policy": "Treshold"}, "the router must be one of Threshold, Budget, .*was: 'Treshold'"),
        ({"policy": ["defer_all"]}, "the router must be one of"),
        ({"policy": "Threshold"}, r"Threshold must have the fields \['threshold'\] and perhaps a score from max_prob"),
        ({"policy": "Threshold", "threshold": 0.5, "score": "entropy"}, "perhaps a score from"),
        ({"policy": "Threshold", "threshold": 0.5, "score": ["margin"]}, "perhaps a score from"),
        ({"policy": "defer_all", "score": "margin"}, "defer_all must have no fields"),
        ({"policy": "Budget", "max_deferred": 2}, "max_deferred must be in"),
    ],
)
def test_unreadable_routers(written: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        routing.from_json(written)

"""Replaying thresholds of texts: against worked examples, and against the policies on random probabilities."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.calibration.costs import Costs
from cascade.calibration.leaving import state_at
from cascade.calibration.texts import TextAnswers
from cascade.calibration.thresholds.points import front
from cascade.calibration.thresholds.texts import Grid, choose
from cascade.core.confidence import answers as answers_of
from cascade.core.confidence import max_probability
from cascade.core.rows import FloatArray, IntArray
from cascade.exceptions import OptionError
from cascade.policies import exits, routing
from cascade.policies.exits import AtExit, ExitPolicy, MaxProbability, never
from cascade.policies.routing import Router, RoutingState, Threshold, defer_all
from tests.calibration.replaying import replay
from tests.models.recorded import told
from tests.models.toy_answers import costs_by_layers

SMALL = Grid(deferral=5, exits=4)


def yes(*values: float) -> FloatArray:
    """Probabilities of two labels from that of the second. Shape `(*, 2)`."""
    second = np.asarray(values, dtype=np.float32)
    return np.stack((1 - second, second), axis=-1)


def worked() -> TextAnswers:
    """Four examples, all of label 1. Tier 1 is wrong on the third and unsure of it and the fourth.

    The first exit is wrong and unsure on the third, right and sure on the fourth.
    """
    return told(
        yes(0.99, 0.95, 0.30, 0.60),
        np.stack((yes(0.9, 0.9, 0.4, 0.9), yes(0.9, 0.9, 0.8, 0.9)), axis=1),
        np.ones(4, dtype=np.int64),
        costs_by_layers((1, 2), tier1=0.1),
    )


def test_the_cheapest_point_without_loss() -> None:
    point = choose(worked(), max_drop=0.0)
    assert point.accuracy == 1
    assert point.drop == 0
    # Deferring the fourth (confidence 0.6) but not the third (0.7) is impossible, so both go: 0.1 + 0.25 + 0.125.
    assert point.deferred == 0.5
    assert point.mean_layer == 1.5
    assert point.cost == pytest.approx(0.1 + (1.0 + 0.5) / 4)
    assert point.predicted_speed_up == pytest.approx(1 / 0.475)
    assert isinstance(point.router, Threshold)
    assert 0.7 < point.router.threshold <= 0.95
    assert isinstance(point.exit_policy, MaxProbability)
    assert isinstance(point.exit_policy.threshold, float)
    assert 0.6 < point.exit_policy.threshold <= 0.9


def test_thresholds_have_few_digits() -> None:
    routers = dict.fromkeys(point.router for point in replay(worked(), grid=SMALL))
    assert [one.threshold for one in routers if isinstance(one, Threshold)] == [0.65, 0.8, 0.97]


def test_an_exit_threshold_only_for_the_exit_that_needs_it() -> None:
    # The first exit is sure and wrong, the second less sure and right: no single threshold makes use of the second.
    truth = np.ones(4, dtype=np.int64)
    tier2 = np.stack((yes(0.05, 0.05, 0.05, 0.05), yes(0.8, 0.8, 0.8, 0.8), yes(0.9, 0.9, 0.9, 0.9)), axis=1)
    costs = costs_by_layers((1, 2, 3), tier1=0.5)
    examples = told(yes(0.4, 0.4, 0.4, 0.4), tier2, truth, costs)
    one = choose(examples, max_drop=0, grid=Grid(caps=False))
    several = choose(examples, max_drop=0, grid=Grid(caps=False), per_exit=True)
    assert one.cost == pytest.approx(1)
    assert several.cost == pytest.approx(2 / 3)
    assert several.accuracy == 1
    assert isinstance(several.exit_policy, MaxProbability)
    assert several.exit_policy.threshold == (1.0, 0.0)


def made(
    seed: int, *, n: int, labels: int, depth: int, multi_label: bool
) -> tuple[FloatArray, FloatArray, IntArray, IntArray]:
    """Random probabilities in steps of 1/8, so that equal ones occur, with truth and lengths."""
    rng = np.random.default_rng(seed)
    raw = rng.integers(1, 9, (n, depth + 1, labels)).astype(np.float32)
    p: FloatArray = raw / np.float32(8)
    if not multi_label and labels > 1:
        p = raw / raw.sum(axis=-1, keepdims=True, dtype=np.float32)
    truth = rng.integers(0, 2, (n, labels)) if multi_label or labels == 1 else rng.integers(0, labels, n)
    return p[:, 0], p[:, 1:], truth, rng.integers(1, 20, n)


def by_hand(router: Router, policy: ExitPolicy, examples: TextAnswers) -> tuple[float, float, float]:
    """Accuracy, deferred share and cost, row by row with the policies as the engine asks them."""
    costs, multi_label, tier1 = examples.costs, examples.multi_label, examples.tier1
    state = RoutingState(tier1, max_probability(tier1, multi_label=multi_label), examples.lengths, multi_label)
    deferred = routing.decide(router, state)
    right, cost = 0, 0.0
    for row in range(len(tier1)):
        given = tier1[row : row + 1]
        cost += examples.lengths[row] * (costs.always + (costs.tier1 if router is not defer_all else 0))
        if deferred[row]:
            for exit_ in range(len(examples.layers)):
                given = examples.tier2[row : row + 1, exit_]
                cost += examples.lengths[row] * costs.stages[exit_]
                asked = state_at(examples.tier2[row : row + 1], examples.layers, exit_, multi_label=multi_label)
                if asked.last or exits.decide(policy, asked)[0]:
                    break
        right += bool((answers_of(given, multi_label=multi_label)[0] == examples.goal[row]).all())
    return right / len(tier1), float(deferred.mean()), cost / (costs.full * float(examples.lengths.sum()))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 12),
    labels=st.integers(1, 4),
    depth=st.integers(1, 3),
    multi_label=st.booleans(),
    tier1=st.sampled_from((0.01, 0.5, 2.0)),
    max_drop=st.sampled_from((0.0, 0.1, 0.5)),
)
def test_every_point_is_what_the_policies_do(
    seed: int, n: int, labels: int, depth: int, multi_label: bool, tier1: float, max_drop: float
) -> None:
    data = made(seed, n=n, labels=labels, depth=depth, multi_label=multi_label)
    costs = Costs(tier1=tier1, stages=(1.0, 2.5, 0.5)[:depth], always=0.25)
    examples = told(*data[:3], costs, lengths=data[3], layers=(2, 3, 6)[:depth], multi_label=multi_label)
    points = list(replay(examples, grid=SMALL))
    found = [(point.accuracy, point.deferred, point.cost) for point in points]
    expected = [by_hand(point.router, point.exit_policy, examples) for point in points]
    np.testing.assert_allclose(found, expected, atol=1e-9)

    full = by_hand(defer_all, never, examples)[0]
    within = [cost for accuracy, _, cost in expected if accuracy >= full - max_drop - 1e-9]
    chosen = choose(examples, max_drop=max_drop, grid=SMALL)
    assert chosen.cost == pytest.approx(min(within))
    assert chosen.drop == pytest.approx(full - chosen.accuracy)

    refined = choose(examples, max_drop=max_drop, grid=SMALL, per_exit=True)
    again = by_hand(refined.router, refined.exit_policy, examples)
    assert (refined.accuracy, refined.deferred, refined.cost) == pytest.approx(again)
    assert refined.cost <= chosen.cost + 1e-9
    assert refined.accuracy >= full - max_drop - 1e-9


@given(seed=st.integers(0, 1000))
def test_the_front_is_what_nothing_beats(seed: int) -> None:
    data = made(seed, n=20, labels=3, depth=3, multi_label=False)
    examples = told(*data[:3], costs_by_layers((1, 2, 3), tier1=0.1), lengths=data[3])
    points = list(replay(examples, grid=SMALL))
    kept = {
        (point.cost, point.accuracy)
        for point in points
        if not any(
            other.cost <= point.cost
            and other.accuracy >= point.accuracy
            and (other.cost < point.cost or other.accuracy > point.accuracy)
            for other in points
        )
    }
    best = [(point.cost, point.accuracy) for point in front(points)]
    assert best == sorted(kept)


def test_truncations_are_points() -> None:
    points = list(replay(worked(), grid=SMALL))
    cut = next(p for p in points if p.router is defer_all and p.exit_policy == AtExit(1))
    assert (cut.accuracy, cut.mean_layer, cut.cost) == (0.75, 1, 0.5)
    assert not any("AtExit" in repr(point.exit_policy) for point in replay(worked(), grid=Grid(caps=False)))


def test_probabilities_that_are_not_numbers_count_as_unsure() -> None:
    costs = costs_by_layers((1,), tier1=0.1)
    examples = told(yes(math.nan, 0.9), yes(0.9, 0.9)[:, None], np.ones(2, dtype=np.int64), costs)
    point = choose(examples, max_drop=0)
    assert (point.deferred, point.accuracy) == (0.5, 1)
    assert routing.decide(point.router, examples.routing_state).tolist() == [True, False]


def test_bad_use() -> None:
    with pytest.raises(OptionError, match=r"max_drop must be in \[0, 1\], got 2; 0.005 is half a point"):
        choose(worked(), max_drop=2)
    with pytest.raises(OptionError, match="a bound on accuracy need labels, got texts without; label them"):
        replay(told(worked().tier1, worked().tier2, None, worked().costs))
    with pytest.raises(OptionError, match=r"exits must be a whole number of at least 1, got 0"):
        Grid(exits=0)


@pytest.mark.parametrize("costs", [(-1.0, (1.0,)), (0.0, ()), (0.1, (0.0,)), (math.nan, (1.0,)), (0.1, (1.0,), (1, 1))])
def test_impossible_costs(costs: tuple[float, tuple[float, ...]]) -> None:
    with pytest.raises(OptionError, match="costs must be at least 0, finite, above 0 for tier 2 and as many for"):
        Costs(*costs)

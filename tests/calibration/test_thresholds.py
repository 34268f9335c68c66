"""Replaying thresholds of texts: against worked examples, and against the policies on random probabilities."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.calibration.certify.outcomes import Step
from cascade.calibration.certify.word_paths import front
from cascade.calibration.chain import Chain
from cascade.calibration.choosing import choose_texts
from cascade.calibration.induction import Priced
from cascade.calibration.texts import TextAnswers, state_at
from cascade.core.confidence import answers as answers_of
from cascade.core.confidence import max_probability
from cascade.core.rows import FloatArray, IntArray
from cascade.policies import exits, routing
from cascade.policies.exits import ExitPolicy, MaxProbability, never
from cascade.policies.routing import Router, RoutingState, Threshold, defer_all
from tests.models.recorded import costs_of, told
from tests.models.toy_answers import costs_by_layers


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


def test_thresholds_without_loss() -> None:
    answers = worked()
    chain = Chain.of(answers, (0, 1))
    wrong = (chain.given != answers.goal[:, None]).any(axis=2).astype(np.float64)
    safest = Priced.of(chain, wrong)
    # Deferring the fourth (confidence 0.6) but not the third (0.7) is impossible, so both go: 0.1 + 0.25 + 0.125.
    assert safest.cost[0] == pytest.approx(0.1 + (1.0 + 0.5) / 4)
    assert safest.deferred[0] == 0.5
    policies = safest.policies(0)
    assert policies.routers == (Threshold(0.8),)  # of few digits, in the middle between confidences
    assert policies.exits == (never, MaxProbability((0.8,)))
    run = answers.run(policies)
    assert (run.answers == 1).all()
    assert run.mean_layer(2) == 1.5


def test_a_threshold_only_for_the_exit_that_needs_it() -> None:
    # The first exit is sure and wrong, the second less sure and right: no single threshold makes use of the second.
    truth = np.ones(40, dtype=np.int64)
    tier2 = np.stack([yes(*[value] * 40) for value in (0.05, 0.8, 0.9)], axis=1)
    examples = told(yes(*[0.4] * 40), tier2, truth, costs_by_layers((1, 2, 3), tier1=0.5))
    found = choose_texts(examples, max_drop=0)
    assert found.cost == pytest.approx(2 / 3)
    assert found.accuracy == 1
    assert found.policies.exits == (never, MaxProbability((1.0, 0.0)))


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
    (first, second), multi_label = examples.tiers, examples.multi_label
    tier1, costs = first.full, examples.costs
    state = RoutingState(tier1, max_probability(tier1, multi_label=multi_label), examples.lengths, multi_label)
    deferred = routing.decide(router, state)
    right, cost = 0, 0.0
    for row in range(len(tier1)):
        given = tier1[row : row + 1]
        cost += examples.lengths[row] * (costs.always + (costs.tiers[0].full if router is not defer_all else 0))
        if deferred[row]:
            for exit_ in range(len(examples.layers)):
                given = second.probabilities[row : row + 1, exit_]
                cost += examples.lengths[row] * costs.tiers[1].stages[exit_]
                seen = second.probabilities[row : row + 1]
                asked = state_at(seen, examples.layers, exit_, multi_label=multi_label)
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
def test_a_choice_is_what_the_policies_do_and_keeps_the_bound(
    seed: int, n: int, labels: int, depth: int, multi_label: bool, tier1: float, max_drop: float
) -> None:
    data = made(seed, n=n, labels=labels, depth=depth, multi_label=multi_label)
    costs = costs_of(tier1, (1.0, 2.5, 0.5)[:depth], always=0.25)
    examples = told(*data[:3], costs, lengths=data[3], layers=(2, 3, 6)[:depth], multi_label=multi_label)
    full = by_hand(defer_all, never, examples)[0]
    chosen = choose_texts(examples, max_drop=max_drop, prices=20)
    expected = by_hand(chosen.policies.routers[0], chosen.policies.exits[-1], examples)
    assert (chosen.accuracy, chosen.deferred, chosen.cost) == pytest.approx(expected)
    assert chosen.drop == pytest.approx(full - chosen.accuracy)
    assert chosen.accuracy >= full - max_drop - 1e-9
    assert chosen.cost <= 1 + 1e-9


@given(seed=st.integers(0, 1000))
def test_the_front_is_what_nothing_beats(seed: int) -> None:
    random = np.random.default_rng(seed)
    points = [
        Step(worked().at_full_depth, risk=-accuracy, cost=cost, deferred=0.0)
        for accuracy, cost in random.integers(0, 6, (20, 2)).tolist()
    ]
    kept = {
        (point.cost, point.risk)
        for point in points
        if not any(
            other.cost <= point.cost
            and other.risk <= point.risk
            and (other.cost < point.cost or other.risk < point.risk)
            for other in points
        )
    }
    best = [(point.cost, point.risk) for point in front(points)]
    assert best == sorted(kept)


def test_probabilities_that_are_not_numbers_count_as_unsure() -> None:
    costs = costs_by_layers((1,), tier1=0.1)
    examples = told(yes(*[math.nan, 0.9] * 20), yes(*[0.9] * 40)[:, None], np.ones(40, dtype=np.int64), costs)
    found = choose_texts(examples, max_drop=0)
    assert (found.deferred, found.accuracy) == (0.5, 1)
    state = examples.routing_state(examples.tiers[0].full)
    assert routing.decide(found.policies.routers[0], state).tolist() == [True, False] * 20

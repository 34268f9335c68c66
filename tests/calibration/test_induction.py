"""Thresholds by backward induction: against worked examples, brute force, and the policies themselves."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.calibration.certify.bounds import fixed_sequence
from cascade.calibration.certify.claims import Claim, MaxDrop
from cascade.calibration.certify.events import count, lost
from cascade.calibration.certify.paths import Losses, PathGrid, text_path
from cascade.calibration.chain import Chain, chains
from cascade.calibration.choosing import choose_texts
from cascade.calibration.costs import Costs, TierCosts
from cascade.calibration.induction import Priced, between, induced
from cascade.calibration.runs import Run
from cascade.calibration.texts import TextAnswers, TierAnswers
from cascade.core.confidence import answers as answers_of
from cascade.core.confidence import probabilities
from cascade.core.rows import Doubles, FloatArray
from cascade.policies.exits import never
from cascade.policies.routing import DeferAll, Threshold, defer_all, defer_none

PLAIN = PathGrid(blends=(0.0,))


def chain_of(loss: Doubles, sure: FloatArray, left: Doubles | FloatArray, steps: Doubles) -> tuple[float, float]:
    """Mean loss and cost where each item stops at the first point whose score reaches its threshold."""
    stop = np.column_stack([sure[:, :-1] >= left, np.ones(len(sure), dtype=bool)]).argmax(axis=1)
    return float(loss[np.arange(len(loss)), stop].mean()), float(np.cumsum(steps)[stop].mean())


def test_the_worked_example() -> None:
    """After point 1: A (60 %, risk .01) and B (40 %, .30); from B point 2 is C (.05) or D (.55), each half of them."""
    first = np.repeat([0.9, 0.4], [60, 40])
    second = np.repeat([0.9, 0.8, 0.3], [60, 20, 20])
    loss = np.zeros((100, 3))
    loss[:, 0], loss[:, 1] = np.repeat([0.01, 0.30], [60, 40]), np.repeat([0.0, 0.05, 0.55], [60, 20, 20])
    sure, steps = np.column_stack([first, second, np.ones(100)]).astype(np.float32), np.array([0.04, 0.3, 0.7])
    dear, cheap = induced(sure, loss, steps, np.array([0.1, 0.05]))
    assert chain_of(loss, sure, dear, steps) == pytest.approx((0.6 * 0.01 + 0.4 * 0.5 * 0.05, 0.30))
    # At half of the price C goes on too: then point 2 answers nobody, and without it the same costs less.
    harm, cost = chain_of(loss, sure, cheap, steps)
    assert (harm, cost) == pytest.approx((0.006, 0.44))
    alone = induced(sure[:, [0, 2]], loss[:, [0, 2]], np.array([0.04, 0.7]), np.array([0.05]))[0]
    assert chain_of(loss[:, [0, 2]], sure[:, [0, 2]], alone, np.array([0.04, 0.7])) == pytest.approx((0.006, 0.32))


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 40), price=st.sampled_from((0.001, 0.05, 0.3, 2.0)))
def test_of_two_points_no_threshold_is_better(seed: int, n: int, price: float) -> None:
    random = np.random.default_rng(seed)
    sure = np.column_stack([random.integers(0, 9, n) / 8, np.ones(n)]).astype(np.float32)  # with ties
    loss = np.column_stack([random.random(n) < 0.3, random.random(n) < 0.1]).astype(np.float64)
    steps = np.array([0.1, 1.0])

    def paid(threshold: float) -> float:
        harm, cost = chain_of(loss, sure, np.array([threshold], dtype=np.float32), steps)
        return harm + price * cost

    found = induced(sure, loss, steps, np.array([price]))[0, 0]
    assert paid(found) == pytest.approx(min(paid(one) for one in np.linspace(0, 1, 17)))


def test_three_points_against_brute_force() -> None:
    random, n = np.random.default_rng(3), 200
    hard = random.random(n)
    sure = np.column_stack([1 - hard * random.uniform(0.2, 1, n) for _ in range(3)]).astype(np.float32)
    loss = np.column_stack([(random.random((n, 2)) < 0.6 * hard[:, None] * (0.9, 0.4)).astype(float), np.zeros(n)])
    steps = np.array([0.05, 0.35, 0.6])
    one, two = (np.quantile(sure[:, point], np.linspace(0, 1, 60)) for point in (0, 1))
    pairs = np.array(np.meshgrid([0.0, *one, 1.0], [0.0, *two, 1.0])).reshape(2, -1).T.astype(np.float32)
    grid = np.array([chain_of(loss, sure, pair, steps) for pair in pairs])
    for price in (0.02, 0.1, 0.3, 1.0):
        found = chain_of(loss, sure, induced(sure, loss, steps, np.array([price]))[0], steps)
        assert found[0] + price * found[1] <= 1.02 * (grid @ (1, price)).min()


def test_constant_confidence_is_all_or_nothing() -> None:
    loss = np.column_stack([np.arange(50) < 10, np.zeros(50)]).astype(np.float64)
    sure = np.full((50, 2), 0.7, dtype=np.float32)
    found = induced(sure, loss, np.array([0.1, 1.0]), np.array([0.1, 0.19, 0.21, 1.0]))[:, 0]
    assert found.tolist() == [1.0, 1.0, 0.0, 0.0]


def three(n: int, seed: int = 0, *, middle: float = 0.4, cost: float = 0.3) -> TextAnswers:
    """Three tiers, the middle one with two exits; `middle`: noise of its last exit; `cost`: of its stages."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, 3, n)
    signal = 4.0 * np.eye(3)[truth] + 0.8 * random.normal(size=(n, 3))
    # Confidences in steps, so that many are equal.
    heads = [
        np.clip(probabilities((signal + own * random.normal(size=(n, 3))).astype(np.float32)).round(2), 0, 0.99)
        for own in (1.8, middle + 0.5, middle, 0.0)
    ]
    rows, tokens = np.arange(n), random.integers(5, 40, n)
    tiers = (
        TierAnswers(heads[0][:, None], rows, tokens),
        TierAnswers(np.stack(heads[1:3], axis=1), rows, tokens, (2, 4)),
        TierAnswers(heads[3][:, None], rows, tokens),
    )
    costs = Costs((TierCosts((0.05,)), TierCosts((cost / 2, cost / 2)), TierCosts((3.0,))), always=0.01)
    return TextAnswers(tiers, tokens, truth, ((1.0,), (1.0, 1.0), (1.0,)), costs)


@pytest.mark.parametrize("blend", [0.0, 0.5])
def test_every_setting_of_a_chain_is_what_its_policies_do(blend: float) -> None:
    answers = three(300)
    kinds = set()
    for chain in chains(answers, blends=(blend,)):
        wrong = (chain.given != answers.goal[:, None]).any(axis=2)
        priced = Priced.of(chain, Losses.of(chain, MaxDrop()).likely, prices=12)
        for number, rate in enumerate(priced.rates(wrong)):
            policies = priced.policies(number)
            run = answers.run(policies)
            assert run.seconds / answers.full.seconds == pytest.approx(priced.cost[number])
            assert run.deferred.mean() == pytest.approx(priced.deferred[number])
            if not blend:  # evidence of what left early in a tier and was deferred is that of another exit
                assert (run.answers != answers.goal).any(axis=1).mean() == pytest.approx(rate)
            kinds.add((tuple(isinstance(router, DeferAll) for router in policies.routers), policies.blend[0]))
        assert (np.diff(priced.cost) < 0).all()
        assert all((deep >= shallow).all() for deep, shallow in pairwise(priced.left))
    assert len(kinds) == 4 + 3 * (blend > 0)  # tiers that are asked before the last one


def test_prices_reach_from_full_depth_to_the_first_point() -> None:
    answers = three(400)
    chain = Chain.of(answers, (0, 1, 2))
    steps, likely = np.diff(chain.paid.mean(axis=0), prepend=0.0), Losses.of(chain, MaxDrop()).likely
    assert induced(chain.sure, likely, steps, np.array([1e-9, 1e9])).tolist() == [[1.0] * 3, [0.0] * 3]
    alone = Priced.of(Chain.of(answers, (2,)), np.zeros((400, 1)))
    assert (alone.cost.tolist(), alone.thresholds.shape) == ([1.0], (1, 0))
    assert alone.policies(0) == answers.at_full_depth


def test_a_middle_tier_that_never_pays_is_not_asked() -> None:
    useful, dear = (text_path(three(1000, cost=cost), MaxDrop(0.03), grid=PLAIN) for cost in (0.3, 9.0))
    assert {isinstance(step.policies.routers[1], DeferAll) for step in useful} == {False}
    assert {isinstance(step.policies.routers[1], DeferAll) for step in dear} == {True}
    assert min(step.cost for step in useful) < min(step.cost for step in dear)


def test_a_single_tier_has_a_path_too() -> None:
    answers = three(600)
    alone = TextAnswers(
        answers.tiers[1:2], answers.lengths, answers.truth, answers.temperatures[1:2], Costs(answers.costs.tiers[1:2])
    )
    steps = text_path(alone, MaxDrop(0.05))
    assert steps
    assert all(step.policies.routers == () for step in steps)
    assert choose_texts(alone, max_drop=0.05).cost < 1
    without = TextAnswers(
        answers.tiers[:1], answers.lengths, answers.truth, answers.temperatures[:1], Costs(answers.costs.tiers[:1])
    )
    assert text_path(without, MaxDrop(0.05)) == ()
    assert choose_texts(without).policies == without.at_full_depth


def test_a_run_is_what_each_policy_says_text_by_text() -> None:
    answers, routers = three(200), (Threshold(0.8), Threshold(0.9))
    policies = Chain.of(answers, (0, 1, 2)).policies((0.8, 0.95, 0.9))
    assert policies.routers == routers
    run = answers.run(policies)
    for text in range(200):
        first, middle, last = (tier.probabilities[text] for tier in answers.tiers)
        tier, layer, said, paid = 1, 0, first[0], 0.06
        if first[0].max() < np.float32(0.8):
            tier, layer = 2, 2 if middle[0].max() >= np.float32(0.95) else 4
            said, paid = middle[layer // 2 - 1], paid + 0.15 * layer / 2
            if said.max() < np.float32(0.9):
                tier, layer, said, paid = 3, 0, last[0], paid + 3.0
        assert (run.tier[text], run.layers[text]) == (tier, layer)
        assert run.answers[text].tolist() == answers_of(said[None])[0].tolist()
        assert answers.select(np.array([text])).run(policies).seconds == pytest.approx(paid * answers.lengths[text])


def test_three_tiers_keep_their_claims() -> None:
    """2,000 calibrations on texts drawn from a world whose harm is known, with equal confidences."""
    world, ask, size, repetitions = three(4000), MaxDrop(0.03), 400, 2000
    steps = text_path(three(400, seed=1), ask, grid=PLAIN)
    runs = [world.run(step.policies) for step in steps]
    rates = [float(lost(ask, run.answers, world.full.answers, world.goal).mean()) for run in runs]
    unsafe = next(number for number, rate in enumerate(rates) if rate > ask.bound)
    kept = sorted({0, unsafe // 2, unsafe - 1, *range(unsafe, min(unsafe + 3, len(steps)))})
    random, found = np.random.default_rng(2), np.zeros(repetitions)
    for repetition in range(repetitions):
        texts = random.integers(0, len(world), size)
        sample = world.select(texts)
        parts = (Run(runs[one].answers[texts], runs[one].tier[texts], runs[one].layers[texts], 0.0) for one in kept)
        passed = fixed_sequence((count(Claim(ask), sample, part)[2] for part in parts), level=0.05)
        found[repetition] = rates[kept[passed - 1]] if passed else 0.0
    assert (found > ask.bound).mean() <= 0.05 + 3 * (0.05 * 0.95 / repetitions) ** 0.5
    assert (found > 0).mean() > 0.5


def test_a_cascade_as_second_tier_is_the_flat_chain() -> None:
    """Policies of three tiers, of which the first is never asked, answer as those of the last two by themselves."""
    answers = three(300)
    two = TextAnswers(
        answers.tiers[1:],
        answers.lengths,
        answers.truth,
        answers.temperatures[1:],
        Costs(answers.costs.tiers[1:], 0.01),
    )
    inner = Chain.of(two, (0, 1)).policies((0.95, 0.8))
    outer = Chain.of(answers, (1, 2)).policies((0.95, 0.8))
    assert (outer.routers, outer.exits) == ((defer_all, *inner.routers), (never, *inner.exits))
    mine, its = answers.run(outer), two.run(inner)
    assert np.array_equal(mine.answers, its.answers)
    assert np.array_equal(mine.tier, its.tier + 1)
    assert mine.seconds == pytest.approx(its.seconds)
    nobody = answers.run(replace(outer, routers=(defer_none, *inner.routers)))
    assert (nobody.tier == 1).all()


def test_the_number_with_the_fewest_digits() -> None:
    assert (between(0.7, 0.95), between(0.6, 0.7), between(0.95, 0.99)) == (0.8, 0.65, 0.97)
    assert between(0.5, float(np.nextafter(np.float32(0.5), np.float32(1)))) > 0.5

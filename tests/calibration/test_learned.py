"""Where tier 2 helps: learned, and taken only where that wins."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cascade.calibration.certify.learned import better_router, fit_router, helps
from cascade.calibration.logistic import fit_logistic
from cascade.calibration.texts import TextAnswers
from cascade.core.confidence import max_probability
from cascade.core.rows import FloatArray, IntArray
from cascade.exceptions import OptionError
from cascade.policies.routing import RoutingState
from tests.models.recorded import told


def alike(tier1: FloatArray, full: FloatArray, truth: IntArray | None, lengths: IntArray, **more: Any) -> TextAnswers:
    """All exits say the same."""
    return told(tier1, np.stack([full] * 3, axis=1), truth, lengths=lengths, **more)


def answers(rows: int, seed: int, *, specialist: bool) -> TextAnswers:
    """Tier 1 is right as often as it says.

    Tier 2 mends half of its faults; as a specialist, all of those in texts of more than 20 tokens and no others.
    """
    rng = np.random.default_rng(seed)
    sure = rng.uniform(0.5, 1, size=rows)
    lengths = rng.integers(5, 40, size=rows)
    wrong = rng.random(rows) > sure
    mends = wrong & (lengths > 20 if specialist else rng.random(rows) < 0.5)
    full = np.where(mends[:, None], [[0.1, 0.9]], [[0.9, 0.1]])
    tier1 = np.stack([sure, 1 - sure], axis=1)
    return alike(tier1.astype(np.float32), full.astype(np.float32), wrong.astype(np.int64), lengths)


def test_helps_worked_example() -> None:
    tier1 = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.8, 0.2]], dtype=np.float32)
    full = np.array([[0.8, 0.2], [0.3, 0.7], [0.1, 0.9], [0.45, 0.55]], dtype=np.float32)
    lengths = np.full(4, 9)
    np.testing.assert_array_equal(helps(alike(tier1, full, np.array([0, 1, 0, 1]), lengths)), [0, 1, 0, 1])
    np.testing.assert_allclose(helps(alike(tier1, full, None, lengths)), [0, 0.7, 0.9, 0.55])
    # As sets of labels: {0}, {0}, ... against {0}, {1}, {1}, {1}.
    truth = np.array([[1, 0], [0, 1], [1, 0], [1, 1]])
    np.testing.assert_array_equal(helps(alike(tier1, full, truth, lengths, multi_label=True)), [0, 1, 0, 0])


def test_it_learns_what_tier_2_is_good_at() -> None:
    old, new = (answers(4000, seed, specialist=True) for seed in (0, 1))
    router = fit_router(old.routing_state, helps(old))
    learned, plain, wanted = router.score(new.routing_state), max_probability(new.tier1), helps(new)
    # Of equally many deferred, those of the learned router are worth more.
    assert wanted[np.argsort(learned)[:800]].sum() > 1.3 * wanted[np.argsort(plain)[:800]].sum()


def test_its_chances_are_chances() -> None:
    some = answers(20_000, 0, specialist=False)
    helping = helps(some)
    chance = 1 - fit_router(some.routing_state, helping).score(some.routing_state)
    for low, high in ((0.02, 0.08), (0.08, 0.15), (0.15, 0.3)):
        inside = (chance >= low) & (chance < high)
        assert inside.sum() > 500
        assert helping[inside].mean() == pytest.approx(chance[inside].mean(), abs=0.02)


def test_a_specialist_makes_it_win() -> None:
    some = answers(1500, 2, specialist=True)
    assert better_router(some) == fit_router(some.routing_state, helps(some))


def test_where_confidence_says_it_all_confidence_is_kept() -> None:
    kept = sum(better_router(answers(300, seed, specialist=False), seed=seed) is None for seed in range(20))
    # At a level of 5 % one in twenty is fooled on average; more than four would be a fault (probability 0.3 %).
    assert kept >= 16


def test_too_little_to_learn_from() -> None:
    some = answers(400, 5, specialist=True)
    assert some.truth is not None
    few = replace(some, truth=np.where(np.cumsum(helps(some)) > 9, 1 - some.tier2[:, -1].argmax(axis=1), some.truth))
    assert helps(few).sum() == 9
    assert better_router(few) is None
    state = RoutingState(some.tier1, max_probability(some.tier1), some.lengths)
    for value in (0.0, 1.0):
        with pytest.raises(OptionError, match="learning where tier 2 helps needs rows that it helps and others, got "):
            fit_router(state, np.full(400, value, dtype=np.float32))


def test_a_regression_finds_its_own_truth() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(20_000, 2))
    chance = 1 / (1 + np.exp(-(inputs @ [2.0, -1.0] + 0.5)))
    weights, intercept = fit_logistic(inputs, chance, strength=100.0)
    assert (*weights, intercept) == pytest.approx((2.0, -1.0, 0.5), abs=1e-3)  # shares of rows serve as well as rows
    drawn, _ = fit_logistic(inputs, rng.random(20_000) < chance, strength=100.0)
    assert drawn == pytest.approx([2.0, -1.0], abs=0.1)
    shrunk, _ = fit_logistic(inputs[:50], chance[:50], strength=0.01)
    assert abs(shrunk).max() < 0.5

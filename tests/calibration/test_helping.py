from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from cascade.calibration.helping import Choice, chosen_router, fit_router, helps
from cascade.core.confidence import max_probability
from cascade.core.rows import FloatArray, IntArray
from cascade.exceptions import OptionError
from cascade.policies.learned_routing import Learned
from cascade.policies.routing import RoutingState, Threshold


def answers(rows: int, seed: int, *, specialist: bool) -> tuple[FloatArray, IntArray, FloatArray]:
    """Tier 1's probabilities, lengths, and where tier 2 helps.

    Tier 1 is right as often as it says. Tier 2 mends half of its faults; as a specialist, all of those in texts of more
    than 20 tokens and none of the others.
    """
    rng = np.random.default_rng(seed)
    sure = rng.uniform(0.5, 1, size=rows)
    lengths = rng.integers(5, 40, size=rows)
    wrong = rng.random(rows) > sure
    mends = lengths > 20 if specialist else rng.random(rows) < 0.5
    tier1 = np.stack([sure, 1 - sure], axis=1).astype(np.float32)
    return tier1, lengths, (wrong & mends).astype(np.float32)


def sure_by(router: Learned, tier1: FloatArray, lengths: IntArray) -> FloatArray:
    return router.score(RoutingState(tier1, max_probability(tier1), lengths))


def test_helps_worked_example() -> None:
    tier1 = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.8, 0.2]], dtype=np.float32)
    full = np.array([[0.8, 0.2], [0.3, 0.7], [0.1, 0.9], [0.45, 0.55]], dtype=np.float32)
    np.testing.assert_array_equal(helps(tier1, full, np.array([0, 1, 0, 1])), [0, 1, 0, 1])
    np.testing.assert_allclose(helps(tier1, full, None), [0, 0.7, 0.9, 0.55])
    # As sets of labels: {0}, {0}, ... against {0}, {1}, {1}, {1}.
    truth = np.array([[1, 0], [0, 1], [1, 0], [1, 1]])
    np.testing.assert_array_equal(helps(tier1, full, truth, multi_label=True), [0, 1, 0, 0])
    np.testing.assert_allclose(helps(tier1, full, None, multi_label=True), [0, 0.7, 0.9, 0.55])
    np.testing.assert_array_equal(helps(tier1[:, :1], full[:, :1], np.array([1, 0, 1, 0])), [0, 1, 0, 1])
    for wrong in (np.array([0, 1]), truth):
        with pytest.raises(OptionError, match=r"truth must be a label for each of the 4 rows, was: shape"):
            helps(tier1, full, wrong)


def test_it_learns_what_tier_2_is_good_at() -> None:
    tier1, lengths, helping = answers(4000, 0, specialist=True)
    router = fit_router(tier1, lengths, helping, threshold=0.8)
    assert router.threshold == 0.8
    new, tokens, wanted = answers(4000, 1, specialist=True)
    learned, plain = sure_by(router, new, tokens), max_probability(new)
    # Of equally many deferred, those of the learned router are worth more.
    count = 800
    assert wanted[np.argsort(learned)[:count]].sum() > 1.3 * wanted[np.argsort(plain)[:count]].sum()


def test_its_chances_are_chances() -> None:
    tier1, lengths, helping = answers(20_000, 0, specialist=False)
    chance = 1 - sure_by(fit_router(tier1, lengths, helping), tier1, lengths)
    for low, high in ((0.02, 0.08), (0.08, 0.15), (0.15, 0.3)):
        inside = (chance >= low) & (chance < high)
        assert inside.sum() > 500
        assert helping[inside].mean() == pytest.approx(chance[inside].mean(), abs=0.02)


def test_a_half_is_a_row_of_each_kind() -> None:
    tier1, lengths, helping = answers(200, 0, specialist=False)
    twice: npt.NDArray[np.float32] = np.concatenate([np.ones(200), np.zeros(200)]).astype(np.float32)
    half = fit_router(np.tile(tier1, (2, 1)), np.tile(lengths, 2), np.full(400, 0.5, dtype=np.float32))
    hard = fit_router(np.tile(tier1, (2, 1)), np.tile(lengths, 2), twice)
    np.testing.assert_allclose(half.weights, hard.weights, atol=1e-3)
    assert helping.sum() > 0


def test_a_specialist_makes_it_win() -> None:
    tier1, lengths, helping = answers(1500, 2, specialist=True)
    choice = chosen_router(tier1, lengths, helping)
    assert choice.router == fit_router(tier1, lengths, helping)
    assert choice.figures is not None
    assert choice.figures.p_value <= 0.01
    assert all(a < b for a, b in zip(choice.figures.learned, choice.figures.max_probability, strict=True))
    assert choice.figures.examples == 1500
    assert choice.why.startswith("deferring 5%, 10%, 20%, 30%, 40% of 1500 held-out examples, the learned router")
    assert choice.at(0.7) == replace(choice.router, threshold=0.7)
    state = RoutingState(tier1, max_probability(tier1), lengths)
    np.testing.assert_array_equal(choice.score(state), choice.router.score(state))
    assert json.loads(json.dumps(choice.to_json()))["router"] == "Learned"
    assert chosen_router(tier1, lengths, helping) == choice


def test_where_confidence_says_it_all_confidence_is_kept() -> None:
    kept = 0
    for seed in range(20):
        tier1, lengths, helping = answers(300, seed, specialist=False)
        choice = chosen_router(tier1, lengths, helping, seed=seed)
        kept += choice.router is None
        assert choice.figures is not None
        assert (choice.figures.p_value > 0.05) == (choice.router is None)
    # At a level of 5 % one in twenty is fooled on average; more than four would be a fault (probability 0.3 %).
    assert kept >= 16


def test_the_figures_are_the_harm_that_is_left() -> None:
    tier1, lengths, helping = answers(400, 5, specialist=False)
    everything = chosen_router(tier1, lengths, helping, shares=(0.0, 1.0)).figures
    assert everything is not None
    assert everything.learned == everything.max_probability
    assert everything.learned == pytest.approx((helping.mean(), 0), abs=1e-6)
    assert everything.p_value == 1


def test_too_little_to_learn_from() -> None:
    tier1, lengths, helping = answers(400, 5, specialist=True)
    few = np.where(np.cumsum(helping) > 9, 0, helping).astype(np.float32)
    choice = chosen_router(tier1, lengths, few)
    assert choice == Choice(None, "tier 2 helps 9 of 400 examples; 10 at least would tell where", None)
    assert choice.at(0.7) == Threshold(0.7)
    state = RoutingState(tier1, max_probability(tier1), lengths)
    np.testing.assert_array_equal(choice.score(state), max_probability(tier1))
    assert choice.to_json() == {"router": "Threshold", "why": choice.why, "figures": None}


def test_what_cannot_be_learned() -> None:
    tier1, lengths, helping = answers(50, 5, specialist=True)
    for wrong in (np.zeros(50, dtype=np.float32), np.ones(50, dtype=np.float32), helping[:-1]):
        with pytest.raises(OptionError, match="learning where tier 2 helps needs rows that it helps and others, was: "):
            fit_router(tier1, lengths, wrong)
    with pytest.raises(OptionError, match=r"shares must be in \[0, 1\], was: 20; give shares"):
        chosen_router(tier1, lengths, helping, shares=(20,))
    with pytest.raises(OptionError, match="folds must be a whole number of at least 2, was: 1"):
        chosen_router(tier1, lengths, helping, folds=1)
    with pytest.raises(OptionError, match=r"level must be in \[0, 1\], was: 5"):
        chosen_router(tier1, lengths, helping, level=5)

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.certification.isotonic import fit_map, fit_maps, router_at
from cascade.exceptions import OptionError
from cascade.exit_accuracy import Accuracy, StepMap
from cascade.routing import Threshold, defer_all


def sure(*values: float) -> npt.NDArray[np.float32]:
    return np.array(values, dtype=np.float32)


def reached(steps: StepMap, confidence: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    begins, accuracy = np.array(steps).T
    found: npt.NDArray[np.float64] = accuracy[np.searchsorted(begins.astype(np.float32), confidence, side="right") - 1]
    return found


def test_worked_example() -> None:
    # 0.6 is right and 0.7 wrong: pooled to one half, as are the two of 0.5.
    confidence, right = sure(0.9, 0.5, 0.7, 0.5, 0.6), [1, 0, 0, 0, 1]
    assert fit_map(confidence, right, least=1) == ((0.0, 0.0), (0.55, 0.5), (0.8, 1.0))
    # Two steps: joining the upper two costs 2 / 3 * 0.25, the lower two 0.25.
    assert fit_map(confidence, right, knots=2, least=1) == ((0.0, 0.0), (0.55, 0.666667))
    # At least three rows each: the step of one row goes with its neighbour.
    assert fit_map(confidence, right, least=3) == ((0.0, 0.4),)


@given(
    pairs=st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=60),
    knots=st.integers(1, 6),
    least=st.integers(1, 8),
)
def test_maps_are_rising_few_and_of_enough_rows(pairs: list[tuple[float, bool]], knots: int, least: int) -> None:
    confidence, right = sure(*(pair[0] for pair in pairs)), np.array([pair[1] for pair in pairs])
    steps = fit_map(confidence, right, knots=knots, least=least)
    Accuracy(0.5, (steps,))  # refuses what does not rise
    assert steps[0][0] == 0
    assert len(steps) <= knots
    rows = np.bincount(np.searchsorted(sure(*(step[0] for step in steps)), confidence, side="right") - 1)
    assert rows.sum() == len(pairs)
    assert len(steps) == 1 or (len(rows) == len(steps) and rows.min() >= least)
    # However few its steps are, it promises no more than was there.
    assert reached(steps, confidence).mean() == pytest.approx(right.mean(), abs=1e-5)


def test_a_step_begins_between_two_confidences() -> None:
    steps = fit_map(sure(0.5, 0.7), [0, 1], least=1)
    assert steps[1][0] == 0.6


def test_nan_is_the_least_sure() -> None:
    assert fit_map(sure(np.nan, 0.5, 0.9), [0, 1, 1], least=1) == ((0.0, 0.0), (0.2, 1.0))


def test_one_threshold_means_the_same_at_every_exit() -> None:
    rng = np.random.default_rng(0)

    def answers(rows: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Two exits that say the square and the root of the chance that they are right."""
        chance = rng.uniform(0.5, 1, size=(rows, 2))
        said = np.stack([chance[:, 0] ** 2, np.sqrt(chance[:, 1])], axis=1)
        return said.astype(np.float32), rng.random((rows, 2)) < chance

    policy = Accuracy(0.8, fit_maps(*answers(20_000)))
    new, right = answers(20_000)
    for exit_ in range(2):
        at = policy.confidences[exit_]
        near = np.abs(new[:, exit_] - at) < 0.05
        # Steps are wide, so that "like this one" is a matter of a few points.
        assert right[near, exit_].mean() == pytest.approx(0.8, abs=0.03)
    assert policy.confidences[0] < 0.75
    assert policy.confidences[1] > 0.85


def test_each_exit_has_its_own_map() -> None:
    confidence, right = sure(0.9, 0.5, 0.7, 0.5, 0.6), [1, 0, 0, 0, 1]
    both = fit_maps(np.stack([confidence, confidence], axis=1), np.stack([right, np.ones(5)], axis=1), least=1)
    assert both == (fit_map(confidence, right, least=1), ((0.0, 1.0),))


def test_the_map_of_tier_1_makes_a_plain_router() -> None:
    steps = ((0.0, 0.5), (0.75, 0.9))
    assert router_at(steps, 0.4) == Threshold(0.0)
    assert router_at(steps, 0.9) == Threshold(0.75)
    assert router_at(steps, 0.95) is defer_all


def test_many_steps_become_a_few() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(10_000).astype(np.float32)
    assert 10 <= len(fit_map(confidence, rng.random(10_000) < confidence)) <= 20


def test_what_cannot_be_mapped() -> None:
    with pytest.raises(OptionError, match=r"one or more answers, .* was: confidence \(0,\), right \(0,\); give"):
        fit_map(sure(), [])
    with pytest.raises(OptionError, match=r"was: confidence \(1,\), right \(2,\)"):
        fit_map(sure(0.5), [0, 1])
    with pytest.raises(OptionError, match=r"maps need answers of shape \(rows, exits\), was: confidence \(1,\)"):
        fit_maps(sure(0.5), [1])
    with pytest.raises(OptionError, match="knots must be a whole number of at least 1, was: 0"):
        fit_map(sure(0.5), [1], knots=0)
    with pytest.raises(OptionError, match="least must be a whole number of at least 1, was: 0"):
        fit_map(sure(0.5), [1], least=0)

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cascade.calibration.temperature import at_limit, fit_temperature, fit_temperatures, logits_of, rescale
from cascade.core.confidence import log_loss, probabilities
from cascade.core.rows import FloatArray, IntArray
from cascade.exceptions import OptionError

LOGITS = arrays(np.float32, (4, 3), elements=st.floats(-12, 12, width=32))
TEMPERATURES = st.floats(0.5, 4)


def drawn(rows: int, *, temperature: float, labels: int = 4, seed: int = 0) -> tuple[FloatArray, IntArray]:
    """Logits, and labels drawn from what they say at this temperature."""
    rng = np.random.default_rng(seed)
    logits = (3 * rng.normal(size=(rows, labels))).astype(np.float32)
    upto = probabilities(logits, temperature=temperature).cumsum(axis=1)
    return logits, np.minimum((rng.random((rows, 1)) > upto).sum(axis=1), labels - 1)


@given(logits=LOGITS, was=TEMPERATURES, now=TEMPERATURES, multi_label=st.booleans())
def test_another_temperature_needs_no_logits(logits: FloatArray, was: float, now: float, multi_label: bool) -> None:
    # A sigmoid's logit survives float32 up to 16 only.
    logits = np.clip(logits, -10 * was, 10 * was)
    before = probabilities(logits, multi_label=multi_label, temperature=was)
    after = probabilities(logits, multi_label=multi_label, temperature=now)
    found = rescale(before, was=was, now=now, multi_label=multi_label)
    np.testing.assert_allclose(found, after, atol=2e-3 if multi_label else 1e-5)
    assert found.dtype == np.float32


def test_logits_are_the_graphs_up_to_a_constant() -> None:
    logits = np.array([[4.0, 1.0, -3.0]], dtype=np.float32)
    found = logits_of(probabilities(logits, temperature=2.0), was=2.0)
    np.testing.assert_allclose(found - found[:, :1], logits - logits[:, :1], atol=1e-5)
    one = np.array([[-4.0], [2.5]], dtype=np.float32)
    chance = probabilities(one, temperature=2.0, multi_label=True)
    np.testing.assert_allclose(logits_of(chance, was=2.0), one, atol=1e-5)


def test_probabilities_of_0_and_1_stay_finite_and_the_same_temperature_changes_no_bit() -> None:
    sure = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    assert rescale(sure, was=1.7, now=1.7) is sure
    for multi_label in (False, True):
        found = rescale(sure, was=1.0, now=2.0, multi_label=multi_label)
        assert np.isfinite(found).all()
        np.testing.assert_array_equal(found.argmax(axis=1), [0, 1])


def test_worked_example() -> None:
    # Every answer is 90 % sure and three of four are right: at temperature 2 the odds of 9 become 3.
    values = np.tile(np.array([0.9, 0.1], dtype=np.float32), (4, 1))
    truth = np.array([0, 0, 0, 1])
    logits = logits_of(values)
    assert fit_temperature(logits, truth) == pytest.approx(2.0, abs=0.01)
    assert fit_temperature(logits_of(values, was=1.5), truth) == pytest.approx(3.0, abs=0.01)
    np.testing.assert_allclose(rescale(values, was=1.0, now=2.0)[0], [0.75, 0.25], atol=1e-6)
    yes = logits_of(values[:, :1])
    assert fit_temperature(yes, 1 - truth) == pytest.approx(2.0, abs=0.01)
    assert fit_temperature(yes, 1 - truth[:, None]) == pytest.approx(2.0, abs=0.01)
    both = np.stack([1 - truth, truth], axis=1)
    independent = logits_of(values, multi_label=True)
    assert fit_temperature(independent, both, multi_label=True) == pytest.approx(2.0, abs=0.01)


@pytest.mark.parametrize("wanted", [0.7, 1.0, 2.5])
def test_a_known_temperature_is_found(wanted: float) -> None:
    logits, truth = drawn(20_000, temperature=wanted)
    assert fit_temperature(logits, truth) == pytest.approx(wanted, rel=0.03)
    again = logits_of(probabilities(logits, temperature=1.3), was=1.3)
    assert fit_temperature(again, truth) == pytest.approx(wanted, rel=0.03)


def test_answers_that_are_always_right_or_wrong_end_at_a_limit() -> None:
    logits = logits_of(np.array([[0.6, 0.4], [0.7, 0.3]], dtype=np.float32))
    least, most = fit_temperature(logits, [0, 0]), fit_temperature(logits, [1, 1])
    assert [least, most] == pytest.approx([0.05, 20], rel=0.01)
    assert at_limit(((1.0,), (1.0, most)))
    assert at_limit(((least,), (1.0,)))
    assert not at_limit(((0.2,), (15.0,)))


def test_every_head_has_its_own() -> None:
    logits, truth = drawn(3000, temperature=2.0)
    was = ((1.2,), (0.5, 3.0))
    tier1 = probabilities(logits * np.float32(2), temperature=1.2)
    exits = probabilities(logits / np.float32(2), temperature=0.5), probabilities(logits, temperature=3.0)
    (first,), (half, whole) = fit_temperatures(((tier1[:, None], truth), (np.stack(exits, axis=1), truth)), was=was)
    assert first == pytest.approx(4.0, rel=0.1)
    assert half == pytest.approx(first / 4, rel=0.01)
    assert whole == 3.0  # what full depth says stays


def test_log_loss_is_stable_and_what_it_says() -> None:
    logits, truth = drawn(50, temperature=1.0)
    right = probabilities(logits)[np.arange(50), truth]
    assert log_loss(logits, truth) == pytest.approx(-np.log(right).mean(), rel=1e-5)
    yes = (truth == 0).astype(np.int64)
    chance = probabilities(logits[:, :1], multi_label=True)[:, 0]
    assert log_loss(logits[:, :1], yes) == pytest.approx(-np.log(np.where(yes, chance, 1 - chance)).mean(), rel=1e-5)
    far = np.array([[1e4, -1e4]], dtype=np.float32)
    assert log_loss(far, [1]) == 2e4
    assert log_loss(far, [[0, 1]], multi_label=True) == 1e4


def test_impossible_temperatures() -> None:
    logits = np.array([[0.6, 0.4]], dtype=np.float32)
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(OptionError, match="temperature must be above 0"):
            rescale(logits, was=1.0, now=wrong)

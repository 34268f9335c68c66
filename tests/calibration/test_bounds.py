"""Exact tests of rates: against a published table, brute force, and simulated examples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from cascade.calibration.bounds import (
    allowed,
    examples_needed,
    examples_to_test,
    p_value,
    p_value_of_mean,
    upper_bound,
    upper_bounds,
)
from cascade.core.rows import IntArray
from cascade.exceptions import OptionError

SIZES = (200, 500, 872, 1000, 2000, 5000)
TABLE = {
    0.005: ((-1, -1, 0, 1, 4, 16), 598),
    0.01: ((-1, 1, 3, 4, 12, 38), 299),
    0.02: ((0, 4, 10, 12, 29, 83), 149),
    0.05: ((4, 16, 32, 38, 83, 224), 59),
}
"""Bound to the most events that certify it at 95 %, by number of examples, and the fewest examples without an event."""

bounds = st.floats(0.005, 0.5)
confidences = st.sampled_from((0.8, 0.9, 0.95, 0.99))


@pytest.mark.parametrize(("bound", "row"), TABLE.items())
def test_the_table_of_allowed_events(bound: float, row: tuple[tuple[int, ...], int]) -> None:
    most, least = row
    assert tuple(allowed(examples, bound) for examples in SIZES) == most
    assert examples_needed(bound) == least
    assert (1 - bound) ** least <= 0.05 < (1 - bound) ** (least - 1)


def test_a_p_value_is_the_binomial_tail() -> None:
    # No event in two examples: (1 - 0.2) ** 2; at most one of two: 1 - 0.2 ** 2.
    assert p_value(np.array([0, 1, 2]), 2, 0.2) == pytest.approx([0.64, 0.96, 1])
    assert p_value(0, np.array([0, 1, 2]), 0.2) == pytest.approx([1, 0.8, 0.64])
    assert float(p_value(4, 1000, 0.01)) == pytest.approx(0.0287, abs=1e-4)


@given(st.integers(0, 1500), bounds, confidences)
def test_allowed_is_the_last_count_that_passes(examples: int, bound: float, confidence: float) -> None:
    most = allowed(examples, bound, confidence=confidence)
    tails = binom.cdf(np.arange(examples + 1), examples, bound)
    assert most == int((tails <= 1 - confidence).sum()) - 1


@given(st.integers(1, 2000), st.data(), confidences)
def test_the_upper_bound_is_where_the_p_value_reaches_the_level(
    examples: int, data: st.DataObject, confidence: float
) -> None:
    events = data.draw(st.integers(0, examples - 1))
    bound = upper_bound(events, examples, confidence=confidence)
    assert float(p_value(events, examples, bound)) == pytest.approx(1 - confidence, rel=1e-6)
    assert upper_bounds(np.array([events, examples]), examples, confidence=confidence) == pytest.approx([bound, 1])


def test_the_upper_bound_of_nothing_is_everything() -> None:
    assert upper_bound(0, 0) == 1
    assert upper_bound(0, 1, confidence=0.95) == pytest.approx(0.95)
    # The rule of three: no event in n examples, at most about 3 / n.
    assert upper_bound(0, 1000) == pytest.approx(3 / 1000, rel=0.01)


@given(bounds, confidences, st.floats(0, 0.8))
def test_needed_examples_are_the_least_that_would_do(bound: float, confidence: float, share: float) -> None:
    rate = share * bound
    least = examples_needed(bound, confidence=confidence, rate=rate)
    examples = np.arange(1, least + 1)
    certified = binom.cdf(np.ceil(rate * examples - 1e-9), examples, bound) <= 1 - confidence + 1e-12
    assert int(examples[certified][0]) == least


def test_needed_examples_beyond_the_first_block_of_counts() -> None:
    least = examples_needed(0.2, rate=0.19)
    assert binom.ppf(0.05, least, 0.2) >= math.ceil(0.19 * least - 1e-9) > 1024 / 2
    assert least == pytest.approx(1.645**2 * 0.16 / 0.01**2, rel=0.05)  # the normal approximation


def test_examples_to_test_are_as_many_as_are_of_use() -> None:
    assert [examples_to_test(n, 0.01) for n in (100, 299, 300, 351, 500, 1500)] == [100, 299, 299, 299, 299, 1182]
    assert allowed(1182, 0.01) == allowed(1275, 0.01) == allowed(1181, 0.01) + 1
    assert examples_to_test(1000, 0.01, most=0.3) == 299


@given(st.integers(0, 20_000), bounds, confidences)
def test_testing_on_fewer_allows_as_many_events(examples: int, bound: float, confidence: float) -> None:
    testing = examples_to_test(examples, bound, confidence=confidence)
    assert 0 <= testing <= examples
    if testing < examples:
        within = allowed(testing, bound, confidence=confidence)
        assert within >= max(0, allowed(math.floor(0.85 * examples), bound, confidence=confidence))
        assert allowed(testing - 1, bound, confidence=confidence) < within


@pytest.mark.parametrize("bound", [0.02, 0.2, 0.5, 0.9])
def test_means_at_the_bound_rarely_pass(bound: float) -> None:
    random = np.random.default_rng(0)
    repetitions = 400
    passed = 0
    for repetition in range(repetitions):
        # A mean of exactly `bound`, in two ways: hit or miss, and spread out.
        hits = (random.random(150) < bound).astype(np.float64)
        spread = random.beta(2 * bound, 2 * (1 - bound), 150)
        passed += p_value_of_mean(hits if repetition % 2 else spread, bound) <= 0.05
    assert passed / repetitions <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / repetitions)


def test_means_below_the_bound_pass() -> None:
    random = np.random.default_rng(1)
    values = random.beta(5, 15, 1000)  # mean 0.25, standard deviation 0.09
    assert p_value_of_mean(values, 0.28) < 0.001  # adapts to the variance
    assert p_value_of_mean(values, 0.24) == pytest.approx(1, abs=0.5)


def test_a_gambler_wins_step_by_step() -> None:
    # ln(1/level) = 2 at level e^-2: the first bet is sqrt(2 * 2 / (2 * 1/4)), cut to 1; capital 1 - (0 - 0.5) = 1.5.
    # Mean estimate 1/4, variance (1/4 + 1/16) / 2; the second is cut to 1 too.
    assert p_value_of_mean([0, 0], 0.5, level=math.exp(-2)) == pytest.approx(1 / 1.5**2)
    # A loss afterwards takes nothing away: what counts is the richest moment.
    assert p_value_of_mean([0, 0, 1], 0.5, level=math.exp(-2)) == pytest.approx(1 / 1.5**2)
    # Of 100 values bets are smaller: 0.4 for the first, as sqrt(2 * 2 / (100 * 1/4)).
    first = p_value_of_mean([0] + [1] * 99, 0.5, level=math.exp(-2))
    assert first == pytest.approx(1 / (1 + 0.4 * 0.5))
    assert p_value_of_mean([], 0.5) == 1


@pytest.mark.parametrize("value", [0, 1, -0.1, math.nan, 2])
def test_bounds_lie_inside(value: float) -> None:
    rule = "must be above 0 and below 1, was"
    with pytest.raises(OptionError, match=f"^bound {rule}"):
        p_value(0, 1, value)
    with pytest.raises(OptionError, match=f"^bound {rule}"):
        p_value_of_mean([0.5], value)
    with pytest.raises(OptionError, match=f"^level {rule}"):
        p_value_of_mean([0.5], 0.5, level=value)
    with pytest.raises(OptionError, match=f"^confidence {rule}"):
        upper_bound(0, 1, confidence=value)
    with pytest.raises(OptionError, match=f"^bound {rule}"):
        allowed(1, value)
    with pytest.raises(OptionError, match=f"^confidence {rule}"):
        examples_needed(0.01, confidence=value)
    with pytest.raises(OptionError, match=f"^most {rule}"):
        examples_to_test(1000, 0.01, most=value)


@pytest.mark.parametrize(("events", "examples"), [(-1, 5), (6, 5)])
def test_counts_that_cannot_be(events: int, examples: int) -> None:
    with pytest.raises(OptionError, match=f"at most the number of examples, were: {events} of {examples}; count each"):
        p_value(events, examples, 0.01)
    with pytest.raises(OptionError, match="count each example once"):
        upper_bound(events, examples)


def test_counts_that_are_none() -> None:
    rates: IntArray = np.array([0.5])
    with pytest.raises(OptionError, match="must be whole numbers, were: float64, int64; count them"):
        p_value(rates, 5, 0.01)
    with pytest.raises(OptionError, match="examples must be a whole number of at least 0, was: -1"):
        allowed(-1, 0.01)
    with pytest.raises(OptionError, match="examples must be a whole number of at least 0, was: -1"):
        examples_to_test(-1, 0.01)


@pytest.mark.parametrize("rate", [0.01, 0.02, -0.1, math.nan])
def test_a_rate_that_no_number_of_examples_certifies(rate: float) -> None:
    with pytest.raises(OptionError, match=r"^rate must be at least 0 and below the bound 0.01, was: .*; no number of"):
        examples_needed(0.01, rate=rate)


@pytest.mark.parametrize("values", [[0.5, 1.5], [-0.1], [math.nan], [[0.5]]])
def test_values_outside_the_unit_interval(values: list[float]) -> None:
    with pytest.raises(OptionError, match=r"values must be a row of numbers in \[0, 1\], were: shape .*divide them by"):
        p_value_of_mean(values, 0.5)

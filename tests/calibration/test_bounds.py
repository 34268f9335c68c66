"""Exact tests of rates: against brute force, and simulated examples."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from cascade.calibration.certify.bounds import examples_needed, fixed_sequence, p_value, upper_limit
from cascade.exceptions import OptionError

bounds = st.floats(0.005, 0.5)
confidences = st.sampled_from((0.8, 0.9, 0.95, 0.99))


def test_a_p_value_is_the_binomial_tail() -> None:
    # No event in two examples: (1 - 0.2) ** 2; at most one of two: 1 - 0.2 ** 2.
    assert p_value(np.array([0, 1, 2]), 2, 0.2) == pytest.approx([0.64, 0.96, 1])
    assert p_value(0, np.array([0, 1, 2]), 0.2) == pytest.approx([1, 0.8, 0.64])
    assert float(p_value(4, 1000, 0.01)) == pytest.approx(0.0287, abs=1e-4)


@given(st.integers(1, 2000), st.data(), confidences)
def test_the_upper_limit_is_where_the_p_value_reaches_the_level(
    examples: int, data: st.DataObject, confidence: float
) -> None:
    events = data.draw(st.integers(0, examples - 1))
    limit = float(upper_limit(events, examples, confidence=confidence))
    assert float(p_value(events, examples, limit)) == pytest.approx(1 - confidence, rel=1e-6)
    assert upper_limit(np.array([events, examples]), examples, confidence=confidence) == pytest.approx([limit, 1])


def test_the_upper_limit_of_nothing_is_everything() -> None:
    assert upper_limit(0, 0) == 1
    assert upper_limit(0, 1, confidence=0.95) == pytest.approx(0.95)
    # The rule of three: no event in n examples, at most about 3 / n.
    assert upper_limit(0, 1000) == pytest.approx(3 / 1000, rel=0.01)


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


@pytest.mark.parametrize("value", [0, 1, -0.1, math.nan, True])
def test_bounds_lie_inside(value: float) -> None:
    rule = "must be above 0 and below 1, got"
    with pytest.raises(OptionError, match=f"^bound {rule}"):
        p_value(0, 1, value)
    with pytest.raises(OptionError, match=f"^confidence {rule}"):
        upper_limit(0, 1, confidence=value)
    with pytest.raises(OptionError, match=f"^confidence {rule}"):
        examples_needed(0.01, confidence=value)
    with pytest.raises(OptionError, match=f"^level {rule}"):
        fixed_sequence([0.5], level=value)


@pytest.mark.parametrize("rate", [0.01, 0.02, -0.1, math.nan])
def test_a_rate_that_no_number_of_examples_certifies(rate: float) -> None:
    with pytest.raises(OptionError, match=r"^rate must be at least 0 and below the bound 0.01, got .*; lower"):
        examples_needed(0.01, rate=rate)


@pytest.mark.parametrize(
    ("p_values", "passed"),
    [
        ([], 0),
        ([0.2, 0.001], 0),
        ([0.001, 0.01, 0.04, 0.2, 0.6], 3),  # the last that passes, not the first that fails
        ([0.05, 0.05], 2),  # at most the level
        ([0.01, math.nan, 0.01], 1),
    ],
)
def test_leading_points_pass(p_values: list[float], passed: int) -> None:
    assert fixed_sequence(p_values, level=0.05) == passed


def test_no_more_is_tested_than_needed() -> None:
    seen = []

    def tests() -> Iterator[float]:
        for p in (0.01, 0.02, 0.5, 0.01):
            seen.append(p)
            yield p

    assert fixed_sequence(tests()) == 2
    assert seen == [0.01, 0.02, 0.5]


def test_an_unsafe_point_passes_rarely_however_long_the_order() -> None:
    # Rates cross the bound half-way; every repetition certifies its last passing point of the same 1,000 examples.
    random = np.random.default_rng(0)
    rates = np.linspace(0, 0.1, 41)
    worst = random.random((2000, 1000))
    events = np.stack([np.count_nonzero(worst < rate, axis=1) for rate in rates], axis=1)
    tests = p_value(events, 1000, 0.05)
    last = np.array([fixed_sequence(row, level=0.05) for row in tests.tolist()]) - 1
    assert (last >= 0).all()
    wrong = float((rates[last] >= 0.05).mean())
    assert 0.005 < wrong <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)

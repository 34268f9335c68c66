"""Testing one after the other."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.calibration.bounds import p_value
from cascade.calibration.sequence import fixed_sequence
from cascade.exceptions import OptionError


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


@given(st.lists(st.floats(0, 1)), st.floats(0.01, 0.5))
def test_the_first_failure_ends_it(p_values: list[float], level: float) -> None:
    passed = fixed_sequence(p_values, level=level)
    assert all(p <= level for p in p_values[:passed])
    assert passed == len(p_values) or p_values[passed] > level


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


def test_options_that_cannot_be() -> None:
    with pytest.raises(OptionError, match=r"^level must be above 0 and below 1, was: 1; "):
        fixed_sequence([0.5], level=1)

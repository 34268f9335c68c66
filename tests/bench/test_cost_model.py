"""Knees, arrays and expectations; what else a fit has to do is in test_bench_profile.py."""

from __future__ import annotations

import numpy as np
import pytest

from cascade.exceptions import OptionError
from cascade_bench.cost_model import Size, fit

SIZES = [Size(rows, rows * longest, longest) for rows in (1, 4, 16, 64) for longest in (8, 20, 32)]


def test_a_knee_is_found() -> None:
    def seconds(size: Size) -> float:
        return 1e-4 + 5e-6 * size.tokens + 2e-6 * max(size.tokens - 256, 0)

    model = fit(SIZES, list(map(seconds, SIZES)), knees=(128, 256, 4096))
    assert model.knee == 256
    assert model.per_token_beyond == pytest.approx(2e-6)
    assert model(Size(10, 1000, 100)) == pytest.approx(seconds(Size(10, 1000, 100)))


def test_a_knee_needs_two_points_beyond_it() -> None:
    seconds = [1e-6 * size.tokens for size in SIZES]
    seconds[-1] *= 3
    assert fit(SIZES, seconds, knees=(2000,)).knee == 0


def test_what_runs_with_a_chance() -> None:
    model = fit(SIZES, [1e-3 + 1e-6 * size.tokens for size in SIZES])
    rows, tokens, longest = np.array([1, 0.5]), np.array([8, 4]), np.array([8, 8])
    expected = [1e-3 + 8e-6, 0.5e-3 + 4e-6]
    np.testing.assert_allclose(model.seconds(rows, tokens, longest, np.array([1, 0.5])), expected, rtol=1e-6)


def test_too_few_points() -> None:
    few = [SIZES[number] for number in (0, 1, 3, 9, 10, 11)]
    assert fit(few, [1e-6 * size.tokens**1.5 for size in few], knees=(256,)).knee == 0
    with pytest.raises(OptionError, match="a cost model needs at least 5 points of the grid, had 4; give more sizes"):
        fit(few[:4], [1.0] * 4, knees=(256,))

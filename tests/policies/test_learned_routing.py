from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.core.confidence import max_probability
from cascade.core.rows import FloatArray
from cascade.exceptions import OptionError
from cascade.policies import routing
from cascade.policies.learned_routing import Learned, features
from cascade.policies.routing import RoutingState

SEEN = ((0.7, 0.2, 0.1), (0.4, 0.35, 0.25), (0.05, 0.9, 0.05))


def state(rows: npt.ArrayLike, lengths: npt.ArrayLike | None = None, *, multi_label: bool = False) -> RoutingState:
    values = np.array(rows, dtype=np.float32)
    tokens = np.full(len(values), 8) if lengths is None else np.array(lengths)
    return RoutingState(values, max_probability(values, multi_label=multi_label), tokens, multi_label)


def test_worked_example() -> None:
    # Log-odds of help: 3 less the log-odds of the answer, so 1 - P(help) is odds / (odds + e^3).
    router = Learned(0.5, (-1.0, 0.0, 0.0, 0.0), 3.0)
    odds = np.array([0.7 / 0.3, 0.4 / 0.6, 9.0])
    np.testing.assert_allclose(router.score(state(SEEN)), odds / (odds + math.e**3), rtol=1e-5)
    np.testing.assert_array_equal(routing.decide(Learned(0.2, router.weights, 3.0), state(SEEN)), [True, True, False])
    np.testing.assert_array_equal(routing.decide(Learned(0.0, router.weights, 3.0), state(SEEN)), [False] * 3)


def test_length_counts() -> None:
    router = Learned(0.5, (0.0, 0.0, 0.0, 1.0), -math.log(10))
    np.testing.assert_array_equal(router(state(SEEN, [5, 9, 11])), [False, False, True])


def test_what_it_looks_at() -> None:
    columns = features(state([[0.2, 0.7, 0.1]], [6]), top=2)
    entropy = -sum(p * math.log(p) for p in (0.2, 0.7, 0.1))
    wanted = [math.log(7 / 3), math.log(0.2), 1 - entropy / math.log(3), 0.5, math.log(6)]
    np.testing.assert_allclose(np.concatenate(columns), wanted, rtol=1e-5)


def test_of_several_labels_the_least_sure_come_first() -> None:
    columns = features(state([[0.9, 0.4, 0.2]], multi_label=True), top=2)
    np.testing.assert_allclose(np.concatenate(columns)[:2], [math.log(1.5), math.log(4)], rtol=1e-5)
    one = features(state([[0.1]]), top=1)
    np.testing.assert_allclose(one[0], [math.log(9)], rtol=1e-5)


def rows_of(seed: int, rows: int) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(5, 0.3), size=rows).astype(np.float32), rng.integers(3, 60, size=rows)


@given(seed=st.integers(0, 999), count=st.integers(1, 40))
def test_neighbours_and_order_change_nothing(seed: int, count: int) -> None:
    values, lengths = rows_of(seed, 40)
    router = Learned(0.6, (-0.7, 0.3, 0.2, -1.1, 0.4, 0.5), 0.3)
    chosen = np.random.default_rng(seed).permutation(40)[:count]
    whole = router.score(state(values, lengths))
    np.testing.assert_array_equal(router.score(state(values[chosen], lengths[chosen])), whole[chosen])


def test_nan_is_deferred_and_0_and_1_are_numbers() -> None:
    router = Learned(0.5, (-1.0, 0.1, 0.1, 0.0, 0.0, 0.0), -2.0)
    sure = router.score(state([[math.nan] * 3, [1.0, 0.0, 0.0]]))
    assert np.isnan(sure[0])
    assert np.isfinite(sure[1])
    np.testing.assert_array_equal(router(state([[math.nan] * 3, [1.0, 0.0, 0.0]])), [True, False])


@pytest.mark.parametrize(
    ("weights", "bias"),
    [
        ((1.0, 0.0, 0.0), 0.0),
        (0.5, 0.0),
        (("1", 0.0, 0.0, 0.0), 0.0),
        ((True, 0.0, 0.0, 0.0), 0.0),
        ((math.nan, 0.0, 0.0, 0.0), 0.0),
        ((1.0, 0.0, 0.0, 0.0), math.inf),
    ],
)
def test_impossible_weights(weights: Any, bias: float) -> None:
    with pytest.raises(OptionError, match=r"weights and bias must be finite numbers, at least 4 weights, got .*; let"):
        Learned(0.5, weights, bias)


def test_other_impossible_values() -> None:
    with pytest.raises(OptionError, match=r"threshold must be in \[0, 1\], got 2; "):
        Learned(2, (1.0, 0.0, 0.0, 0.0), 0.0)
    with pytest.raises(OptionError, match="at most 5 weights for 2 labels, got 6; take a router that was learned"):
        Learned(0.5, (1.0,) * 6, 0.0)(state([[0.5, 0.5]]))

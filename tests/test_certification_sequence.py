"""Testing one after the other, and a bootstrap of whole sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.certification.bounds import p_value
from cascade.certification.sequence import bootstrap_p_value, fixed_sequence
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


@pytest.mark.parametrize(("harmed", "examples"), [(0, 300), (1, 473), (4, 1000), (12, 2000), (30, 2000)])
def test_sentences_of_one_word_give_the_exact_test(harmed: int, examples: int) -> None:
    events = np.zeros(examples, dtype=np.int64)
    events[:harmed] = 1
    exact = float(p_value(harmed, examples, 0.01))
    found = bootstrap_p_value(events, np.ones(examples, dtype=np.int64), 0.01, seed=0)
    assert found == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 2000) + 1 / 2000)
    assert found == bootstrap_p_value(events.astype(np.bool_), np.ones(examples, dtype=np.int64), 0.01, seed=0)


def test_words_harmed_together_say_less() -> None:
    words = np.full(1000, 10)
    apart, together = np.zeros(1000, dtype=np.int64), np.zeros(1000, dtype=np.int64)
    apart[:60], together[:6] = 1, 10
    scattered = bootstrap_p_value(apart, words, 0.01, seed=0)
    assert scattered < 0.05
    assert bootstrap_p_value(together, words, 0.01, seed=0) > 3 * scattered


def test_few_sentences_without_harm_certify_nothing() -> None:
    ten = np.full(10, 20)
    assert bootstrap_p_value(np.zeros(10, dtype=np.int64), ten, 0.01, seed=0) > 0.5
    assert bootstrap_p_value(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), 0.01, seed=0) == 1
    assert bootstrap_p_value(np.zeros(3, dtype=np.int64), np.zeros(3, dtype=np.int64), 0.01, seed=0) == 1


def test_many_sentences_are_drawn_in_parts() -> None:
    # 3 parts of 4 million weights: the same generator goes on, so the p-value is that of 2,000 weightings in all.
    words = np.full(6000, 3)
    harmed = np.zeros(6000, dtype=np.int64)
    harmed[:150] = 1
    assert bootstrap_p_value(harmed, words, 0.01, seed=0) < 0.05
    assert bootstrap_p_value(harmed, words, 0.005, seed=0) == 1


def test_harm_that_clusters_passes_rarely() -> None:
    # A tenth of the sentences is hard, and loses a fifth of its words: 2 % of words in all, and that is the bound.
    random = np.random.default_rng(0)
    passed = 0
    for seed in range(200):
        words = random.integers(1, 30, 200)
        hard = random.random(200) < 0.1
        harmed = random.binomial(words, np.where(hard, 0.2, 0.0))
        passed += bootstrap_p_value(harmed, words, 0.02, seed=seed, repetitions=400) <= 0.05
    assert passed / 200 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)


def test_options_that_cannot_be() -> None:
    one = np.ones(3, dtype=np.int64)
    with pytest.raises(OptionError, match=r"^level must be above 0 and below 1, was: 1; "):
        fixed_sequence([0.5], level=1)
    with pytest.raises(OptionError, match=r"^bound must be above 0 and below 1, was: 0; "):
        bootstrap_p_value(one, one, 0, seed=0)
    with pytest.raises(OptionError, match=r"^repetitions must be a whole number of at least 1, was: 0; 2000 give"):
        bootstrap_p_value(one, one, 0.01, seed=0, repetitions=0)


@pytest.mark.parametrize(
    ("harmed", "words"), [([2], [1]), ([-1], [1]), ([1], [1, 1]), ([[1]], [[1]])], ids=["more", "less", "few", "table"]
)
def test_counts_of_words_that_cannot_be(harmed: list[int], words: list[int]) -> None:
    with pytest.raises(OptionError, match=r"one count per sentence, harmed words being at most its words.*count each"):
        bootstrap_p_value(np.array(harmed), np.array(words), 0.01, seed=0)

"""Rates of words where whole sentences are drawn: worked examples, properties, and how often bounds fail."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from cascade.calibration import word_bootstrap
from cascade.calibration.sequence import fixed_sequence
from cascade.calibration.word_answers import WordAnswers
from cascade.calibration.word_bootstrap import p_value_of_rate, sentences_needed, upper_rate
from cascade.core.rows import IntArray
from cascade.exceptions import OptionError
from tests.models.toy_answers import toy_answers


@pytest.fixture(scope="module")
def answers() -> WordAnswers:
    return toy_answers()


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 20)), min_size=1, max_size=60),
    st.floats(0.6, 0.99),
)
@settings(max_examples=40, deadline=None)
def test_the_upper_rate_is_where_the_p_value_crosses(counts: list[tuple[int, int]], confidence: float) -> None:
    words = np.array([size for _, size in counts])
    events = np.minimum([event for event, _ in counts], words)
    upper = upper_rate(events, words, confidence=confidence, seed=3)
    assert events.sum() / words.sum() <= upper <= 1
    if upper < 0.999:  # both ends are draws or rounded
        assert p_value_of_rate(events, words, upper * 1.0001, seed=3) <= 1 - confidence + 1e-9
    assert p_value_of_rate(events, words, upper * 0.9999, seed=3) > 1 - confidence - 1e-9


def test_of_sentences_of_one_word_it_is_the_exact_test() -> None:
    events = np.zeros(300, dtype=np.int64)
    events[:4] = 1
    exact = float(binom.cdf(4, 300, 0.03))
    assert p_value_of_rate(events, np.ones(300, dtype=np.int64), 0.03, seed=0) == pytest.approx(exact, abs=0.02)


def test_harm_that_was_not_seen_is_not_ruled_out() -> None:
    none, words = np.zeros(100, dtype=np.int64), np.full(100, 50)
    # 5,000 words without harm; but were one sentence of a hundred wholly harmed, none might be among them.
    assert p_value_of_rate(none, words, 0.01, seed=0) == pytest.approx(0.99**100)
    assert upper_rate(none, words, confidence=0.95, seed=0) == pytest.approx(1 - 0.05**0.01)
    assert p_value_of_rate(none[:0], words[:0], 0.01, seed=0) == 1
    assert upper_rate(none[:0], words[:0], confidence=0.95, seed=0) == 1
    assert p_value_of_rate(none, none, 0.01, seed=0) == 1
    assert sentences_needed(none, words, 0.01, confidence=0.95, seed=0) == pytest.approx(299, abs=4)


def test_the_number_that_would_do(answers: WordAnswers) -> None:
    rng = np.random.default_rng(0)
    words = rng.integers(5, 30, 200)
    events = rng.binomial(words, 0.03)
    need = sentences_needed(events, words, 0.04, confidence=0.95, seed=0)
    assert need is not None
    for times, enough in ((1.3, True), (0.7, False)):
        copies = rng.permutation(np.resize(np.arange(200), int(times * need)))
        assert (p_value_of_rate(events[copies], words[copies], 0.04, seed=1) <= 0.05) is enough
    assert sentences_needed(events, words, 0.02, confidence=0.95, seed=0) is None
    assert sentences_needed(events, words, events.sum() / words.sum() + 1e-5, confidence=0.95, seed=0) is None


def test_counts_that_cannot_be() -> None:
    with pytest.raises(OptionError, match=r"events and words must be one count per sentence.*count each word once"):
        p_value_of_rate(np.array([2]), np.array([1]), 0.1, seed=0)
    with pytest.raises(OptionError, match="bound must be above 0 and below 1, was: 1"):
        p_value_of_rate(np.array([1]), np.array([1]), 1.0, seed=0)
    with pytest.raises(OptionError, match="confidence must be above 0 and below 1"):
        upper_rate(np.array([1]), np.array([1]), confidence=1.0, seed=0)


def population(kind: str, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Words of 4,000 sentences and, per setting of a path of five, how many are harmed."""
    words = np.minimum(1 + rng.gamma(1.5, 9, 4000).astype(np.int64), 90)
    rising = np.array([0.3, 0.6, 0.9, 1.05, 1.3]) * 0.03
    if kind == "whole":  # sentences are harmed in all words or in none
        return words, np.where(rng.random(4000) < rising[:, None], words, 0)
    hard = rng.gamma(0.4, 2.5, 4000) if kind == "clustered" else np.ones(4000)
    return words, binom.ppf(rng.random(4000), words, np.minimum(rising[:, None] * hard, 1)).astype(np.int64)


@pytest.mark.parametrize("sentences", [60, 150])
@pytest.mark.parametrize("kind", ["independent", "clustered", "whole"])
def test_bounds_that_do_not_hold_are_certified_rarely(
    kind: str, sentences: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(word_bootstrap, "REPETITIONS", 200)
    rng = np.random.default_rng(7)
    words, harmed = population(kind, rng)
    true = harmed.sum(axis=1) / words.sum()
    bound, runs, wrong = float(np.nextafter(true[3], 0)), 300, 0
    for seed in range(runs):
        sample = rng.integers(0, len(words), sentences)
        p_values = (p_value_of_rate(row[sample], words[sample], bound, seed=seed) for row in harmed)
        passed = fixed_sequence(p_values, level=0.05)
        wrong += passed > 0 and bool(true[passed - 1] > bound)
    assert wrong <= runs * 0.05 + 3 * np.sqrt(runs * 0.05 * 0.95)

from __future__ import annotations

import io
from contextlib import redirect_stderr
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.core.rows import BoolArray, FloatArray, Units
from cascade.engine.tiers import Progress, Scores
from cascade.engine.word_cascade import WordCascade, cut
from cascade.exceptions import OptionError
from cascade.policies.exits import never
from cascade.policies.routing import Budget, Router, RoutingState, Threshold, defer_all, defer_none
from cascade.policies.unit_exits import TokenExit
from cascade.policies.windows import Spans, Windows, WindowState, whole_sentences
from tests.core.test_rows import check, read
from tests.models.toy_tagging import ToyTagger, sentences_of

PIECES = st.lists(st.lists(st.integers(1, 3), max_size=9), max_size=8)
ROUTERS = st.sampled_from([Threshold(0.9), Threshold(1.0), Budget(0.2), Budget(0.5), defer_all, defer_none])
WINDOWS = st.sampled_from([Windows(), Windows(1), Windows(0, 1.0), Windows(2, 0.4, context_layers=2), whole_sentences])
WORDS = sentences_of([[1, 2, 1], [], [3, 1], [1] * 8, [1], [2, 2, 1, 1, 1], [1, 1, 1, 1]])


class Untouched:
    """A tier that must not be run."""

    max_length = 1

    def score(
        self,
        words: Units,
        *,
        targets: BoolArray | None = None,
        context_layers: int | None = None,
        prior: FloatArray | None = None,
        progress: Progress | None = None,
    ) -> Scores:
        raise AssertionError("this tier must not be run")


def cascade(router: Router, windows: Any = None, **options: Any) -> WordCascade:
    toy = ToyTagger()
    return WordCascade(toy.tier1(), toy.tier2(exit_policy=TokenExit(0.02)), router, windows or Windows(1), **options)


@settings(deadline=None)
@given(PIECES, ROUTERS, WINDOWS, st.integers(0, 3))
def test_unsure_words_have_tier_2s_answers_and_the_others_tier_1s(
    pieces: list[list[int]], router: Router, windows: Windows, seed: int
) -> None:
    words = sentences_of(pieces, seed)
    engine = cascade(router, windows)
    outcome = engine.score(words)
    first = engine.tier1.score(words)
    unsure = router(RoutingState(first.probabilities, first.confidence, words.n_tokens))
    np.testing.assert_array_equal(outcome.routes.tier, np.where(unsure, 2, 1))
    expected, exits = first.probabilities.copy(), np.zeros(len(words), dtype=np.int64)
    spans = whole_sentences if router is defer_all else windows
    found = spans(WindowState(unsure, words.offsets, words.n_tokens))
    for row, start, stop in zip(found.rows, found.starts, found.stops, strict=True):  # one window at a time
        window = words.spans(np.array([row]), np.array([start]), np.array([stop]))
        second = engine.tier2.score(window, targets=unsure[start:stop], context_layers=spans.context_layers)
        mine = start + np.flatnonzero(unsure[start:stop])
        expected[mine], exits[mine] = second.probabilities[mine - start], second.exit_layer[mine - start]
    np.testing.assert_array_equal(outcome.routes.exit_layer, exits)
    np.testing.assert_allclose(outcome.probabilities, expected, atol=2e-4)
    np.testing.assert_allclose(outcome.routes.confidence, expected.max(axis=1, initial=0), atol=2e-4)
    np.testing.assert_allclose(outcome.probabilities.sum(axis=1), np.ones(len(words)), atol=1e-5)


@settings(deadline=None)
@given(PIECES.filter(bool), st.sampled_from([Threshold(0.9), defer_all, defer_none]), WINDOWS, st.booleans())
def test_neighbours_change_nothing(pieces: list[list[int]], router: Router, windows: Windows, short: bool) -> None:
    words = sentences_of(pieces)
    engine = cascade(router, windows, overlap=3)
    if short:
        engine = replace(engine, tier1=ToyTagger().tier1(max_length=6), tier2=ToyTagger().tier2(max_length=7))
    together = engine.score(words)
    for row in range(words.n_rows):
        mine = slice(words.offsets[row], words.offsets[row + 1])
        alone = engine.score(words.select(np.array([row])))
        np.testing.assert_allclose(together.probabilities[mine], alone.probabilities, atol=2e-4)
        np.testing.assert_array_equal(together.routes.exit_layer[mine], alone.routes.exit_layer)
        np.testing.assert_array_equal(together.routes.tier[mine], alone.routes.tier)


def test_whole_sentences_and_full_depth_are_the_plain_model() -> None:
    toy = ToyTagger()
    plain = toy.oracle(WORDS, np.full(len(WORDS), 6))[:, -1]
    everything = WordCascade(Untouched(), toy.tier2(exit_policy=never), defer_all).score(WORDS)
    np.testing.assert_allclose(everything.probabilities, plain, atol=2e-4)
    np.testing.assert_array_equal(everything.routes.tier, np.full(len(WORDS), 2))
    np.testing.assert_array_equal(everything.routes.exit_layer, np.full(len(WORDS), 6))
    np.testing.assert_array_equal(everything.routes.confidence, everything.probabilities.max(axis=1))
    assert list(everything.stats.seconds) == ["tier2"]
    some = WordCascade(toy.tier1(), toy.tier2(), Budget(0.5), whole_sentences).score(WORDS)
    second = some.routes.tier == 2
    np.testing.assert_allclose(some.probabilities[second], plain[second], atol=2e-4)


def test_windows_are_what_tier_2_reads() -> None:
    toy, words = ToyTagger(), sentences_of([[1] * 20, [1] * 5])

    def two(state: RoutingState) -> BoolArray:
        return np.isin(np.arange(len(state.lengths)), [9, 22])

    WordCascade(toy.tier1(), toy.tier2(), two, Windows(margin=2)).score(words)
    assert toy.tokens == 4 * (7 + 7)  # five words of each, between two special tokens
    toy = ToyTagger()
    WordCascade(toy.tier1(), toy.tier2(), two, Windows(margin=2, context_layers=4)).score(words)
    assert (toy.tokens, toy.actives) == (4 * (7 + 7), 2 * (7 + 7) + 2 * (3 + 3))
    toy = ToyTagger()
    WordCascade(toy.tier1(), toy.tier2(), two, whole_sentences).score(words)
    assert toy.tokens == 4 * (22 + 7)


def test_a_blend_multiplies_the_answers_of_both_tiers() -> None:
    engine = replace(cascade(Threshold(0.9), whole_sentences, blend=0.5), tier2=ToyTagger().tier2(exit_policy=never))
    outcome = engine.score(WORDS)
    first = engine.tier1.score(WORDS).probabilities.astype(np.float64)
    both = engine.tier2.score(WORDS).probabilities * np.sqrt(np.maximum(first, 1e-6))
    both /= both.sum(axis=1, keepdims=True)
    deferred = outcome.routes.tier == 2
    assert 0 < deferred.sum() < len(WORDS)
    np.testing.assert_allclose(outcome.probabilities[deferred], both[deferred], atol=1e-5)
    np.testing.assert_allclose(outcome.probabilities[~deferred], first[~deferred], atol=1e-6)


def test_stats() -> None:
    outcome = cascade(Budget(0.5)).score(WORDS)
    stats = outcome.stats
    assert (stats.texts, stats.units, stats.tokens, stats.deferred) == (7, 23, len(WORDS.rows.ids), 11)
    assert sum(stats.exits.values()) == 11
    assert all(stats.exits[layer] == (outcome.routes.exit_layer == layer).sum() for layer in stats.exits)
    assert list(stats.seconds) == ["tier1", "route", "tier2", "merge"]


@pytest.mark.parametrize("router", [defer_none, Threshold(0.0)])
def test_tier_2_is_not_run_if_nothing_is_deferred(router: Router) -> None:
    toy = ToyTagger()
    outcome = WordCascade(toy.tier1(), Untouched(), router).score(WORDS)
    np.testing.assert_array_equal(outcome.probabilities, toy.tier1().score(WORDS).probabilities)
    np.testing.assert_array_equal(outcome.routes.exit_layer, np.zeros(len(WORDS)))
    assert outcome.stats.exits == {}


@pytest.mark.parametrize("pieces", [[], [[]], [[], []]])
@pytest.mark.parametrize("router", [Threshold(0.8), Budget(0.5), defer_all, defer_none])
def test_no_words(router: Router, pieces: list[list[int]]) -> None:
    outcome = cascade(router).score(sentences_of(pieces))
    assert outcome.probabilities.shape == (0, 3)
    assert len(outcome.routes) == 0
    assert (outcome.stats.texts, outcome.stats.units) == (len(pieces), 0)


def test_what_policies_return_is_checked() -> None:
    with pytest.raises(OptionError, match=r"the router .* must return bools of shape \(23,\), returned: float32"):
        cascade(lambda state: state.confidence).score(WORDS)  # type: ignore[arg-type,return-value]  # wrong on purpose
    nothing = np.empty(0, dtype=np.int64)
    with pytest.raises(OptionError, match=r"the windows .* must have every unsure word exactly once, had 11 never"):
        cascade(Budget(0.5), lambda state: Spans(nothing, nothing, nothing)).score(WORDS)
    with pytest.raises(OptionError, match="overlap must be a whole number of at least 0, was: -1; 0 cuts long"):
        cascade(defer_all, overlap=-1)


def test_progress_bars() -> None:
    drawn = io.StringIO()
    with redirect_stderr(drawn):
        cascade(Budget(0.5)).score(WORDS, show_progress=True)
        cascade(defer_all).score(WORDS, show_progress=True)
    assert "tier 1: 100%" in drawn.getvalue()
    assert "11/11" in drawn.getvalue()
    assert drawn.getvalue().count("23/23") >= 2


def test_cut_worked_example() -> None:
    """Room for 5 tokens beside two special ones, at most 2 of them shared."""
    words = sentences_of([[1, 1, 1, 1, 1, 1, 1, 1], [1, 1], [2, 2, 2], [9]])
    rows, numbers = cut(words, 7, 2)
    check(rows)
    assert [numbers[a:b].tolist() for a, b in zip(rows.offsets[:-1], rows.offsets[1:], strict=True)] == [
        [0, 1, 2, 3, 4],
        [3, 4, 5, 6, 7],
        [8, 9],
        [10, 11],
        [11, 12],
        [13],
    ]
    assert rows.rows.lengths.max() == 7
    assert rows.n_tokens[-1] == 5


def test_nothing_to_cut() -> None:
    rows, numbers = cut(WORDS, 10, 3)
    assert rows is WORDS
    np.testing.assert_array_equal(numbers, np.arange(len(WORDS)))


LONG = st.lists(st.lists(st.integers(1, 9), max_size=20), max_size=5)


@settings(deadline=None)
@given(LONG, st.integers(3, 20), st.integers(0, 12), st.integers(0, 1))
def test_cut_rows_have_whole_words_and_every_one(
    pieces: list[list[int]], max_length: int, overlap: int, suffix: int
) -> None:
    words = sentences_of(pieces, suffix=suffix)
    rows, numbers = cut(words, max_length, overlap)
    check(rows)
    room = max_length - 1 - suffix
    assert (rows.rows.lengths <= max_length).all()
    assert sorted(set(numbers.tolist())) == list(range(len(words)))
    whole = read(words)
    last_row, last_stop = -1, 0
    for (before, own, after), start, stop in zip(read(rows), rows.offsets[:-1], rows.offsets[1:], strict=True):
        mine = numbers[start:stop].tolist()
        if not mine:
            assert not after
            continue
        assert mine == list(range(mine[0], mine[-1] + 1))
        row = int(words.row_of[mine[0]])
        assert (before, after) == (whole[row][0], whole[row][2])
        spelt = [whole[row][1][word - words.offsets[row]] for word in mine]
        assert own == [word[:room] for word in spelt]
        if row == last_row:
            shared = sum(len(word) for word, number in zip(own, mine, strict=True) if number <= last_stop)
            assert mine[0] <= last_stop + 1 <= mine[-1]
            assert shared <= min(overlap, room // 2)
        last_row, last_stop = row, mine[-1]


@settings(deadline=None)
@given(LONG, st.sampled_from([defer_all, defer_none]), st.integers(5, 20), st.integers(0, 12))
def test_long_sentences_are_averaged(pieces: list[list[int]], router: Router, max_length: int, overlap: int) -> None:
    words, toy = sentences_of(pieces), ToyTagger()
    tiers = toy.tier1(max_length=max_length), toy.tier2(max_length=max_length, exit_policy=TokenExit(0.02))
    outcome = WordCascade(*tiers, router, overlap=overlap).score(words)
    rows, numbers = cut(words, max_length, overlap)
    scores = tiers[router is defer_all].score(rows)
    for word in range(len(words)):
        mine = numbers == word
        np.testing.assert_allclose(outcome.probabilities[word], scores.probabilities[mine].mean(axis=0), atol=2e-4)
        assert outcome.routes.exit_layer[word] == scores.exit_layer[mine].max()
    np.testing.assert_allclose(outcome.routes.confidence, outcome.probabilities.max(axis=1, initial=0), rtol=1e-6)


def test_tiers_of_different_lengths() -> None:
    words = sentences_of([[1] * 30, [12, 1, 1]])
    toy = ToyTagger()
    engine = WordCascade(toy.tier1(max_length=8), toy.tier2(max_length=16), Threshold(1.0), Windows(20))
    outcome = engine.score(words)
    assert outcome.probabilities.shape == (33, 3)
    second = outcome.routes.tier == 2
    expected = WordCascade(Untouched(), toy.tier2(max_length=16), defer_all).score(words)
    np.testing.assert_allclose(outcome.probabilities[second], expected.probabilities[second], atol=2e-4)
    assert second.sum() > 20


def test_no_room_for_a_word() -> None:
    with pytest.raises(
        OptionError, match="max_length must leave room for a word, was: 2 for 2 special tokens; raise it"
    ):
        cut(WORDS, 2, 0)

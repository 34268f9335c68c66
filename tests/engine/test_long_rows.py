"""Texts and sentences that are longer than a tier takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.core.confidence import max_probability
from cascade.core.rows import Encoded
from cascade.engine.cascade import Cascade
from cascade.engine.inputs import Inputs
from cascade.engine.long_rows import cut
from cascade.engine.tier import Scores
from cascade.exceptions import OptionError
from cascade.policies import MaxProbability, Threshold, TokenExit, Windows
from tests.core.test_rows import check, read
from tests.models.batching import FixedSize
from tests.models.kinds import SENTENCES
from tests.models.toy import Toy, batch_of
from tests.models.toy_tagging import ToyTagger, sentences_of

SEVERAL = sentences_of(SENTENCES)
LONG = st.lists(st.lists(st.integers(1, 9), max_size=20), max_size=5)


def test_cut_worked_example() -> None:
    """Room for 5 tokens beside two special ones, at most 2 of them shared."""
    words = sentences_of([[1, 1, 1, 1, 1, 1, 1, 1], [1, 1], [2, 2, 2], [9]])
    rows, numbers = cut(words, 7, 2)
    check(rows)
    found = [numbers[a:b].tolist() for a, b in zip(rows.offsets[:-1], rows.offsets[1:], strict=True)]
    assert found == [[0, 1, 2, 3, 4], [3, 4, 5, 6, 7], [8, 9], [10, 11], [11, 12], [13]]
    assert rows.rows.lengths.max() == 7
    assert rows.n_tokens[-1] == 5


def test_nothing_to_cut() -> None:
    rows, numbers = cut(SEVERAL, 10, 3)
    assert rows is SEVERAL
    np.testing.assert_array_equal(numbers, np.arange(len(SEVERAL)))
    with pytest.raises(OptionError, match="max_length must leave room for a word, got 2 for 2 special tokens"):
        cut(SEVERAL, 2, 0)


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


@given(LONG, st.integers(5, 20), st.integers(0, 12), st.booleans())
def test_long_sentences_are_averaged(pieces: list[list[int]], max_length: int, overlap: int, first: bool) -> None:
    words, toy = sentences_of(pieces), ToyTagger()
    options: dict[str, Any] = {"max_length": max_length, "overlap": overlap}
    tier = toy.tier1(**options) if first else toy.tier2(exit_policy=TokenExit(0.02), **options)
    done: list[int] = []
    scores = tier.score(words, progress=done.append)
    assert sum(done) == len(words)
    rows, numbers = cut(words, max_length, overlap)
    apart: Scores = tier.score(rows)
    for word in range(len(words)):
        mine = numbers == word
        np.testing.assert_allclose(scores.probabilities[word], apart.probabilities[mine].mean(axis=0), atol=2e-4)
        assert scores.exit_layer[word] == apart.exit_layer[mine].max()
    np.testing.assert_array_equal(scores.confidence, max_probability(scores.probabilities))


def test_tiers_of_different_lengths() -> None:
    words, toy = sentences_of([[1] * 30, [12, 1, 1]]), ToyTagger()
    tier2 = toy.tier2(max_length=16)
    scores = Cascade(toy.tier1(max_length=8), tier2, Threshold(1.0), windows=Windows(20)).score(words)
    second = scores.tier == 2
    assert second.sum() > 20
    np.testing.assert_allclose(scores.probabilities[second], tier2.score(words).probabilities[second], atol=2e-4)


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=3), min_size=1, max_size=6), st.booleans())
def test_long_texts_are_averaged_and_exit_at_the_deepest_row(rows: list[list[int]], multi_label: bool) -> None:
    units = batch_of([length for own in rows for length in own])
    numbers = np.repeat(np.arange(len(rows)), [len(own) for own in rows])
    long = Inputs.encoded(Encoded(units, numbers))
    assert (long.n_units, long.n_items) == (len(rows), len(rows))
    assert long.lengths.tolist() == [sum(own) for own in rows]
    policy = MaxProbability(0.7)
    for tier in (
        Toy().tier1(multi_label=multi_label),
        Toy().tier2(exit_policy=policy, multi_label=multi_label, batching=FixedSize(2)),
    ):
        done: list[int] = []
        apart, scores = tier.score(units), tier.score(long, progress=done.append)
        assert sum(done) == len(rows)
        for number in range(len(rows)):
            own = numbers == number
            np.testing.assert_allclose(scores.probabilities[number], apart.probabilities[own].mean(axis=0), atol=1e-5)
            assert scores.exit_layer[number] == apart.exit_layer[own].max()
        sure = max_probability(scores.probabilities, multi_label=multi_label)
        np.testing.assert_array_equal(scores.confidence, sure)

"""Which answers are sampled, and what of them is compared."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cascade.core.results import Routes, TagPrediction
from cascade.monitoring.sampling import Sampler, ShadowSample


@pytest.mark.parametrize("by_word", [False, True])
def test_numbers_are_drawn_in_blocks_and_the_sample_is_as_if_one_by_one(
    by_word: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    class Generator:
        def __init__(self) -> None:
            self.inner = np.random.default_rng(5)

        def random(self, count: int) -> Any:
            sizes.append(count)
            return self.inner.random(count)

    words = np.random.default_rng(0).integers(0, 9, 9000)
    sampler = Sampler(share=0.1, by_word=by_word, seed=0)
    monkeypatch.setattr(sampler, "_random", Generator())
    found: list[tuple[int, int | None]] = []
    for row in range(5000):
        sampled, word = sampler.draw_one(int(words[row]))
        found += [(row, word)] * sampled
    found += [(row + 5000, word) for row, word in sampler.draw(words[5000:])]
    numbers = np.random.default_rng(5).random(9000)
    chances = np.minimum(0.1 * words, 1) if by_word else np.full(9000, 0.1)
    rows = np.flatnonzero(numbers < chances)
    places = (numbers[rows] / chances[rows] * words[rows]).astype(int).tolist() if by_word else [None] * len(rows)
    assert found == list(zip(rows.tolist(), places, strict=True))
    assert len(sizes) <= 3


def test_words_have_the_same_chance_in_sentences_of_any_length() -> None:
    lengths = np.tile(np.array([1, 5, 20, 0]), 25_000)
    rows, words = zip(*Sampler(share=0.02, by_word=True, seed=0).draw(lengths), strict=True)
    drawn = np.array([lengths[row] for row in rows])
    share = np.array([(drawn == length).sum() / (25_000 * length) for length in (1, 5, 20)])
    np.testing.assert_allclose(share, 0.02, rtol=0.15)
    places = np.bincount(np.array(words)[drawn == 20], minlength=20)
    assert len(places) == 20
    np.testing.assert_allclose(places / places.sum(), 0.05, rtol=0.25)


def test_a_short_cut_of_the_share_of_long_sentences() -> None:
    drawn = list(Sampler(share=1, by_word=True, seed=0).draw(np.full(50, 7)))
    assert [row for row, _ in drawn] == list(range(50))  # each once
    assert {word for _, word in drawn} == set(range(7))


def test_one_word_is_compared() -> None:
    chances, routes = np.zeros((2, 1), dtype=np.float32), Routes(np.ones(2), np.zeros(2), np.ones(2))  # type: ignore[arg-type]  # of no account
    answer = TagPrediction(["A", "B"], chances, routes)
    again = replace(answer, tags=["A", "C"])
    assert [ShadowSample(1, None, answer, word).differs(again) for word in (0, 1, None)] == [False, True, True]

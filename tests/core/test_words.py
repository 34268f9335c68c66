from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cascade.core.batch import Batch, cumulated, ranges
from cascade.core.words import WordBatch
from tests.models.toy_tagging import sentences_of

PIECES = st.lists(st.lists(st.integers(1, 3), max_size=5), max_size=6)
Sentence = tuple[list[int], list[list[int]], list[int]]


def read(words: WordBatch) -> list[Sentence]:
    """Each row as its special tokens before, the tokens of each word, and its special tokens after."""
    rows = []
    for row in range(len(words)):
        begin, end = words.batch.offsets[row : row + 2].tolist()
        numbers = range(words.offsets[row], words.offsets[row + 1])
        spelt = [(int(words.firsts[word]), int(words.firsts[word] + words.pieces[word])) for word in numbers]
        first, last = (spelt[0][0], spelt[-1][1]) if spelt else (end, end)
        tokens = words.batch.ids.tolist()
        rows.append((tokens[begin:first], [tokens[a:b] for a, b in spelt], tokens[last:end]))
    return rows


def check(words: WordBatch) -> None:
    """What every batch of words promises."""
    assert words.words == len(words.pieces) == words.offsets[-1]
    assert (words.pieces >= 1).all()
    assert (words.firsts[1:] >= (words.firsts + words.pieces)[:-1]).all()
    assert (words.batch.offsets[words.rows] <= words.firsts).all()
    assert (words.firsts + words.pieces <= words.batch.offsets[words.rows + 1]).all()
    for array in (words.firsts, words.pieces, words.offsets, words.batch.ids, words.batch.types, words.batch.offsets):
        assert array.dtype == np.int64


def test_ranges_worked_example() -> None:
    np.testing.assert_array_equal(ranges(np.array([5, 0, 9]), np.array([2, 3, 0])), [5, 6, 0, 1, 2])
    np.testing.assert_array_equal(cumulated(np.array([2, 3, 0])), [0, 2, 5, 5])
    np.testing.assert_array_equal(cumulated(np.array([True, False, True])), [0, 1, 1, 2])
    assert len(ranges(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))) == 0


def example() -> WordBatch:
    """[CLS]=1, [SEP]=2: "1 10 11 20 2", "1 2", "1 30 40 41 42 50 2"."""
    ids = np.array([1, 10, 11, 20, 2, 1, 2, 1, 30, 40, 41, 42, 50, 2])
    return WordBatch(
        batch=Batch(ids=ids, types=np.arange(14), offsets=np.array([0, 5, 7, 14])),
        firsts=np.array([1, 3, 8, 9, 12]),
        pieces=np.array([2, 1, 1, 3, 1]),
        offsets=np.array([0, 2, 2, 5]),
    )


def test_worked_example() -> None:
    words = example()
    assert (len(words), words.words) == (3, 5)
    np.testing.assert_array_equal(words.rows, [0, 0, 2, 2, 2])
    np.testing.assert_array_equal(words.counts, [2, 0, 3])
    np.testing.assert_array_equal(words.first_ids, [10, 20, 30, 40, 50])
    assert read(words) == [([1], [[10, 11], [20]], [2]), ([1, 2], [], []), ([1], [[30], [40, 41, 42], [50]], [2])]
    prefixes, suffixes = words.frames(np.arange(3))
    np.testing.assert_array_equal(prefixes, [1, 2, 1])
    np.testing.assert_array_equal(suffixes, [1, 0, 1])


def test_spans_worked_example() -> None:
    spans = example().spans(np.array([2, 0, 1, 2]), np.array([3, 0, 2, 2]), np.array([4, 2, 2, 4]))
    check(spans)
    assert read(spans) == [
        ([1], [[40, 41, 42]], [2]),
        ([1], [[10, 11], [20]], [2]),
        ([1, 2], [], []),
        ([1], [[30], [40, 41, 42]], [2]),
    ]
    np.testing.assert_array_equal(spans.batch.types[:5], [7, 9, 10, 11, 13])


def test_tokens_between_words_stay_between_them() -> None:
    words = example()
    gap = WordBatch(words.batch, words.firsts[[0, 2, 4]], words.pieces[[0, 2, 4]], np.array([0, 1, 1, 3]))
    spans = gap.spans(np.array([2]), np.array([1]), np.array([3]))
    np.testing.assert_array_equal(spans.batch.ids, [1, 30, 40, 41, 42, 50, 2])
    np.testing.assert_array_equal(spans.firsts, [1, 5])


def test_shorten_worked_example() -> None:
    short = example().shorten(np.array([1, 1, 5, 2, 5]))
    check(short)
    assert read(short) == [([1], [[10], [20]], [2]), ([1, 2], [], []), ([1], [[30], [40, 41], [50]], [2])]
    np.testing.assert_array_equal(short.batch.types, [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13])


@given(PIECES, st.integers(0, 2), st.integers(0, 2), st.data())
def test_select_and_whole_spans_are_the_rows_themselves(
    pieces: list[list[int]], prefix: int, suffix: int, data: Any
) -> None:
    words = sentences_of(pieces, prefix=prefix, suffix=suffix)
    check(words)
    rows = np.array(data.draw(st.lists(st.integers(0, len(pieces) - 1), max_size=8) if pieces else st.just([])), int)
    expected = [read(words)[row] for row in rows]
    chosen = words.select(rows)
    spans = words.spans(rows, words.offsets[rows], words.offsets[rows + 1])
    for same in (chosen, spans):
        check(same)
        assert read(same) == expected
    np.testing.assert_array_equal(chosen.batch.types, spans.batch.types)


@given(PIECES.filter(any), st.data())
def test_spans_equal_a_loop(pieces: list[list[int]], data: Any) -> None:
    words = sentences_of(pieces)
    rows, starts, stops, expected = [], [], [], []
    for row in data.draw(st.lists(st.sampled_from([row for row, own in enumerate(pieces) if own]), max_size=6)):
        start = data.draw(st.integers(0, len(pieces[row]) - 1))
        stop = data.draw(st.integers(start + 1, len(pieces[row])))
        rows.append(row)
        starts.append(start + int(words.offsets[row]))
        stops.append(stop + int(words.offsets[row]))
        before, own, after = read(words)[row]
        expected.append((before, own[start:stop], after))
    spans = words.spans(np.array(rows, dtype=int), np.array(starts, dtype=int), np.array(stops, dtype=int))
    check(spans)
    assert read(spans) == expected


@given(PIECES, st.data())
def test_shorten_equals_a_loop(pieces: list[list[int]], data: Any) -> None:
    words = sentences_of(pieces)
    most = np.array(data.draw(st.lists(st.integers(1, 4), min_size=words.words, max_size=words.words)), dtype=int)
    short = words.shorten(most)
    check(short)
    for number, ((before, own, after), (old, spelt, rest)) in enumerate(zip(read(short), read(words), strict=True)):
        limits = most[words.offsets[number] : words.offsets[number + 1]]
        assert (before, after) == (old, rest)
        assert own == [word[:limit] for word, limit in zip(spelt, limits, strict=True)]

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cascade.core.rows import Rows, Units, offsets_of, ranges
from tests.models.kinds import arrays_of
from tests.models.toy_tagging import sentences_of

PIECES = st.lists(st.lists(st.integers(1, 3), max_size=5), max_size=6)
Sentence = tuple[list[int], list[list[int]], list[int]]


def read(words: Units) -> list[Sentence]:
    """Each row as its special tokens before, the tokens of each word, and its special tokens after."""
    rows = []
    for row in range(words.n_rows):
        begin, end = words.rows.offsets[row : row + 2].tolist()
        numbers = range(words.offsets[row], words.offsets[row + 1])
        spelt = [
            (int(words.first_token[word]), int(words.first_token[word] + words.n_tokens[word])) for word in numbers
        ]
        first, last = (spelt[0][0], spelt[-1][1]) if spelt else (end, end)
        tokens = words.rows.ids.tolist()
        rows.append((tokens[begin:first], [tokens[a:b] for a, b in spelt], tokens[last:end]))
    return rows


def check(words: Units) -> None:
    """What every batch of words promises."""
    assert len(words) == len(words.n_tokens) == words.offsets[-1]
    assert (words.n_tokens >= 1).all()
    assert (words.first_token[1:] >= (words.first_token + words.n_tokens)[:-1]).all()
    assert (words.rows.offsets[words.row_of] <= words.first_token).all()
    assert (words.first_token + words.n_tokens <= words.rows.offsets[words.row_of + 1]).all()
    assert {array.dtype for array in arrays_of(words)} == {np.dtype(np.int64)}


def test_ranges_worked_example() -> None:
    np.testing.assert_array_equal(ranges(np.array([5, 0, 9]), np.array([2, 3, 0])), [5, 6, 0, 1, 2])
    np.testing.assert_array_equal(offsets_of(np.array([2, 3, 0])), [0, 2, 5, 5])
    np.testing.assert_array_equal(offsets_of(np.array([True, False, True])), [0, 1, 1, 2])
    assert len(ranges(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))) == 0


def example() -> Units:
    """[CLS]=1, [SEP]=2: "1 10 11 20 2", "1 2", "1 30 40 41 42 50 2"."""
    ids = np.array([1, 10, 11, 20, 2, 1, 2, 1, 30, 40, 41, 42, 50, 2])
    return Units(
        rows=Rows(ids=ids, types=np.arange(14), offsets=np.array([0, 5, 7, 14])),
        first_token=np.array([1, 3, 8, 9, 12]),
        n_tokens=np.array([2, 1, 1, 3, 1]),
        offsets=np.array([0, 2, 2, 5]),
    )


def test_worked_example() -> None:
    words = example()
    assert (words.n_rows, len(words)) == (3, 5)
    np.testing.assert_array_equal(words.row_of, [0, 0, 2, 2, 2])
    np.testing.assert_array_equal(words.counts, [2, 0, 3])
    np.testing.assert_array_equal(words.first_ids, [10, 20, 30, 40, 50])
    assert read(words) == [([1], [[10, 11], [20]], [2]), ([1, 2], [], []), ([1], [[30], [40, 41, 42], [50]], [2])]
    prefixes, suffixes = words.special(np.arange(3))
    np.testing.assert_array_equal(prefixes, [1, 2, 1])
    np.testing.assert_array_equal(suffixes, [1, 0, 1])


def test_tokens_between_words_stay_between_them() -> None:
    words = example()
    gap = Units(words.rows, words.first_token[[0, 2, 4]], words.n_tokens[[0, 2, 4]], np.array([0, 1, 1, 3]))
    spans = gap.spans(np.array([2]), np.array([1]), np.array([3]))
    np.testing.assert_array_equal(spans.rows.ids, [1, 30, 40, 41, 42, 50, 2])
    np.testing.assert_array_equal(spans.first_token, [1, 5])


def test_shorten_worked_example() -> None:
    short = example().shorten(np.array([1, 1, 5, 2, 5]))
    check(short)
    assert read(short) == [([1], [[10], [20]], [2]), ([1, 2], [], []), ([1], [[30], [40, 41], [50]], [2])]
    np.testing.assert_array_equal(short.rows.types, [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13])


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
    np.testing.assert_array_equal(chosen.rows.types, spans.rows.types)


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
    most = np.array(data.draw(st.lists(st.integers(1, 4), min_size=len(words), max_size=len(words))), dtype=int)
    short = words.shorten(most)
    check(short)
    for number, ((before, own, after), (old, spelt, rest)) in enumerate(zip(read(short), read(words), strict=True)):
        limits = most[words.offsets[number] : words.offsets[number + 1]]
        assert (before, after) == (old, rest)
        assert own == [word[:limit] for word, limit in zip(spelt, limits, strict=True)]

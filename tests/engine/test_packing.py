from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.core.rows import Rows, concatenate
from cascade.engine.packing import MASKED, Packing, compact, neighbours, padded
from cascade.exceptions import InputError
from tests.models.toy import batch_of

LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=12)


def test_worked_example() -> None:
    """Two heads; a padding place, `-40` in the bias, holds its own row's first token."""
    packing = Packing.of(np.array([2, 3, 1]), heads=2)
    np.testing.assert_array_equal(packing.firsts, [0, 2, 5])
    np.testing.assert_array_equal(packing.mask, [[1, 1, 0], [1, 1, 1], [1, 0, 0]])
    np.testing.assert_array_equal(packing.gather, [[0, 1, 0], [2, 3, 4], [5, 5, 5]])
    np.testing.assert_array_equal(packing.weights, [[[1, 1, 0]], [[1, 1, 1]], [[1, 0, 0]]])
    np.testing.assert_array_equal(packing.counts, [[2], [3], [1]])
    np.testing.assert_array_equal(packing.bias, [[[[0, 0, -40]]], [[[0, 0, 0]]], [[[0, -40, -40]]]])
    np.testing.assert_array_equal(
        packing.head_gather, [[[0, 2, 0], [1, 3, 1]], [[4, 6, 8], [5, 7, 9]], [[10, 10, 10], [11, 11, 11]]]
    )
    np.testing.assert_array_equal(packing.head_scatter, [[0, 3], [1, 4], [6, 9], [7, 10], [8, 11], [12, 15]])
    np.testing.assert_array_equal(packing.position_ids(), [0, 1, 0, 1, 2, 0])
    np.testing.assert_array_equal(packing.position_ids(2), [2, 3, 2, 3, 4, 2])


@given(LENGTHS, st.integers(1, 4))
def test_indices_equal_a_loop(lengths: list[int], heads: int) -> None:
    """Each place of the grid by itself, and then the way back to the tokens."""
    feeds = Packing.of(np.array(lengths, dtype=np.int64), heads=heads).feeds
    rows, longest = len(lengths), max(lengths)
    assert feeds["head_gather"].shape == (rows, heads, longest)
    assert feeds["bias"].shape == (rows, 1, 1, longest)
    assert feeds["head_scatter"].shape == (sum(lengths), heads)
    assert feeds["weights"].shape == (rows, 1, longest)
    first = 0
    for row, length in enumerate(lengths):
        for column in range(longest):
            real = column < length
            token = first + column if real else first
            assert feeds["gather"][row, column] == token
            assert feeds["weights"][row, 0, column] == real
            assert feeds["bias"][row, 0, 0, column] == (0 if real else MASKED)
            for head in range(heads):
                assert feeds["head_gather"][row, head, column] == token * heads + head
                if real:
                    place = (row * heads + head) * longest + column
                    assert feeds["head_scatter"][token, head] == place
        assert (feeds["firsts"][row], feeds["counts"][row, 0]) == (first, length)
        first += length
    floats = {"bias", "weights", "counts"}
    assert {name: array.dtype for name, array in feeds.items()} == {
        name: np.float32 if name in floats else np.int64 for name in feeds
    }


@given(LENGTHS, st.integers(1, 4))
def test_gather_then_scatter_is_the_identity(lengths: list[int], heads: int) -> None:
    packing = Packing.of(np.array(lengths, dtype=np.int64), heads=heads)
    hidden = np.arange(sum(lengths) * heads * 2, dtype=np.float32).reshape(-1, heads, 2)
    grid = hidden.reshape(-1, 2)[packing.head_gather]
    np.testing.assert_array_equal(grid.reshape(-1, 2)[packing.head_scatter], hidden)


@given(LENGTHS, st.integers(-3, 3))
def test_position_ids(lengths: list[int], offset: int) -> None:
    positions = Packing.of(np.array(lengths, dtype=np.int64)).position_ids(offset)
    assert positions.dtype == np.int64
    assert positions.tolist() == [place + offset for length in lengths for place in range(length)]


def test_arrays_are_made_once() -> None:
    packing = Packing.of(np.array([2, 1]), heads=2)
    assert all(packing.feeds[name] is array for name, array in packing.feeds.items())


@given(LENGTHS.filter(lambda lengths: len(set(lengths)) > 1), st.integers(0, 1000))
def test_places_that_are_masked_weigh_nothing(lengths: list[int], seed: int) -> None:
    """A row's largest weight is at least 1 before the division, so what is masked is lost in rounding."""
    packing = Packing.of(np.array(lengths, dtype=np.int64))
    scores = (30 * np.random.default_rng(seed).normal(size=sum(lengths))).astype(np.float32)[packing.gather]
    scores = scores + packing.bias[:, 0, 0]
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    assert (scores.max(axis=1) == np.where(packing.mask, scores, -np.inf).max(axis=1)).all()
    masked = np.where(packing.mask, 0, weights)
    assert (np.float32(1) + 512 * masked == 1).all()
    assert (masked[~packing.mask] < 5e-18).all()


@given(LENGTHS, st.data())
def test_compaction_keeps_whole_rows(lengths: list[int], data: st.DataObject) -> None:
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths))))
    row = np.repeat(np.arange(len(lengths)), lengths)
    hidden = np.stack((row, np.arange(len(row))), axis=1).astype(np.float32)
    left = compact(hidden, np.array(lengths), keep)
    np.testing.assert_array_equal(left, hidden[np.isin(row, np.flatnonzero(keep))])
    assert left.flags.c_contiguous
    assert left.base is None or left.base is not hidden


def test_a_row_without_tokens_is_refused() -> None:
    with pytest.raises(InputError, match="each row must have at least 1 token, row 1 had 0; use a tokenizer that adds"):
        Packing.of(np.array([3, 0]))


@given(LENGTHS, st.integers(1, 14))
def test_padded_equals_a_loop(lengths: list[int], max_length: int) -> None:
    batch = batch_of(lengths)
    ids, mask, types = padded(batch, max_length=max_length, pad_id=99)
    longest = min(max(lengths), max_length)
    assert ids.shape == mask.shape == types.shape == (len(lengths), longest)
    for row, (begin, end) in enumerate(zip(batch.offsets, batch.offsets[1:], strict=False)):
        own, kinds = batch.ids[begin:end].tolist(), batch.types[begin:end].tolist()
        if len(own) > max_length:
            own = own[: max_length - 1] + own[-1:]
            kinds = kinds[: max_length - 1] + kinds[-1:]
        padding = longest - len(own)
        assert ids[row].tolist() == own + [99] * padding
        assert types[row].tolist() == kinds + [0] * padding
        assert mask[row].tolist() == [1] * len(own) + [0] * padding


def test_padded_rows_without_any_token() -> None:
    ids, mask, types = padded(batch_of([0, 0]), max_length=8, pad_id=4)
    np.testing.assert_array_equal(ids, [[4], [4]])
    np.testing.assert_array_equal(mask, [[0], [0]])
    np.testing.assert_array_equal(types, [[0], [0]])


@given(st.lists(st.lists(st.integers(0, 5), max_size=4), max_size=4))
def test_concatenate(parts: list[list[int]]) -> None:
    batches = [batch_of(lengths, seed) for seed, lengths in enumerate(parts)]
    whole = concatenate(batches)
    assert whole.lengths.tolist() == [length for lengths in parts for length in lengths]
    assert whole.offsets.dtype == np.int64
    first = 0
    for batch in batches:
        part: Rows = whole.select(np.arange(first, first + len(batch)))
        np.testing.assert_array_equal(part.ids, batch.ids)
        np.testing.assert_array_equal(part.types, batch.types)
        first += len(batch)


def test_neighbours_worked_example() -> None:
    # Tokens and rows: at most 10 and 3 together; what is larger by itself stays alone.
    sizes = [(4, 1), (5, 1), (2, 1), (2, 1), (2, 1), (2, 1), (12, 1), (1, 1)]
    found = neighbours(sizes, (10, 3))
    assert [list(range(8))[part] for part in found] == [[0, 1], [2, 3, 4], [5], [6], [7]]
    assert neighbours([], (10, 3)) == []


@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 20))
def test_neighbours_are_as_many_as_fit(sizes: list[int], most: int) -> None:
    groups = [sizes[part] for part in neighbours([(size,) for size in sizes], (most,))]
    assert [size for group in groups for size in group] == sizes
    assert all(sum(group) <= most or len(group) == 1 for group in groups)
    assert all(sum(group) + following[0] > most for group, following in pairwise(groups))

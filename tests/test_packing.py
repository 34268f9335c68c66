from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.batch import Batch
from cascade.exceptions import InputError
from cascade.packing import Packing, compact, concatenate, neighbours, padded
from tests.toy import batch_of

LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=12)


def test_worked_example() -> None:
    packing = Packing.of(np.array([2, 3, 1]))
    np.testing.assert_array_equal(packing.gather, [[0, 1, 0], [2, 3, 4], [5, 0, 0]])
    np.testing.assert_array_equal(packing.mask, [[1, 1, 0], [1, 1, 1], [1, 0, 0]])
    np.testing.assert_array_equal(packing.scatter, [0, 1, 3, 4, 5, 6])
    np.testing.assert_array_equal(packing.position_ids(), [0, 1, 0, 1, 2, 0])
    np.testing.assert_array_equal(packing.position_ids(2), [2, 3, 2, 3, 4, 2])


@given(LENGTHS)
def test_gather_then_scatter_is_the_identity(lengths: list[int]) -> None:
    packing = Packing.of(np.array(lengths, dtype=np.int64))
    hidden = np.arange(sum(lengths) * 2, dtype=np.float32).reshape(-1, 2)
    grid = hidden[packing.gather]
    assert grid.shape == (len(lengths), max(lengths), 2)
    np.testing.assert_array_equal(grid.reshape(-1, 2)[packing.scatter], hidden)
    for array in (packing.gather, packing.scatter, packing.position_ids()):
        assert array.dtype == np.int64
    assert packing.mask.dtype == np.bool_
    assert (packing.gather[~packing.mask] == 0).all()


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
        part: Batch = whole.select(np.arange(first, first + len(batch)))
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

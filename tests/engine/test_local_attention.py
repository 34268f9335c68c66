"""Which token sees which in a local layer, found by loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.engine.local_attention import HALF, LOCAL, OUT_OF_REACH
from cascade.engine.packing import MASKED, Actives, Packing

HEADS = 2
SHORT, ONE_BLOCK, BLOCKS = HALF + 1, 3 * HALF, 5 * HALF
LENGTHS = st.lists(st.sampled_from([1, 2, 63, 64, 65, 66, 128, 129, 191, 192, 193, 257]), min_size=1, max_size=4)


def arrays_of(lengths: list[int], active: np.ndarray) -> tuple[Packing, dict[str, np.ndarray]]:
    grid = Packing.of(np.array(lengths), heads=HEADS)
    own = Packing.of(np.add.reduceat(active, grid.firsts, dtype=np.int64), heads=HEADS)
    actives = Actives(grid, own, np.flatnonzero(active))
    return grid, {name: actives.array(name) for name in LOCAL}


@given(LENGTHS, st.integers(0, 1000), st.sampled_from([0.05, 0.5, 1.0]))
@settings(deadline=None, max_examples=25)
def test_each_token_sees_its_neighbours(lengths: list[int], seed: int, share: float) -> None:
    """Read as the layer does: the keys of a query's line, by the numbers in both grids, and the way back."""
    active = np.random.default_rng(seed).random(sum(lengths)) < share
    active[np.cumsum([0, *lengths[:-1]])] = True  # a live row has its special tokens
    grid, found = arrays_of(lengths, active)
    numbers = np.flatnonzero(active)
    keys, queries = found["local_head_gather"] // HEADS, found["local_query_head_gather"] // HEADS
    for name in ("local_head_gather", "local_query_head_gather"):
        assert (found[name] % HEADS == np.arange(HEADS)[:, None]).all()
    blocks, _, width = queries.shape
    bias = np.broadcast_to(found["local_bias"], (blocks, 1, width, keys.shape[2]))
    for number, token in enumerate(numbers):
        row = int(np.searchsorted(grid.firsts, token, side="right")) - 1
        first, end = grid.firsts[row], grid.firsts[row] + lengths[row]
        for head in range(HEADS):
            line, column = divmod(int(found["local_head_scatter"][number, head]), width)
            block, own_head = divmod(line, HEADS)
            assert own_head == head
            assert numbers[queries[block, head, column]] == token
        seen = keys[block, 0][bias[block, 0, column] == 0]
        np.testing.assert_array_equal(seen, np.arange(max(first, token - HALF), min(end, token + HALF + 1)))
        assert ((keys[block] >= first) & (keys[block] < end)).all(), "nothing of another row is read"
    # Every place of the grid of queries, those without one included, sees at least itself.
    assert (bias == 0).any(axis=-1).all()


@pytest.mark.parametrize(
    ("longest", "shape", "low"),
    [(SHORT, (2, 1, 1, SHORT), MASKED), (ONE_BLOCK, (2, 1, ONE_BLOCK, ONE_BLOCK), OUT_OF_REACH),
     (BLOCKS, (6, 1, HALF, 3 * HALF), OUT_OF_REACH)],
)  # fmt: skip
def test_long_rows_are_cut_into_blocks(longest: int, shape: tuple[int, ...], low: np.float32) -> None:
    packing = Packing.of(np.array([longest, 3]), heads=HEADS)
    found = packing.feeds(LOCAL)
    assert found["local_bias"].shape == shape
    assert found["local_bias"].min() == low
    assert found["local_head_gather"].shape == (shape[0], HEADS, shape[3])
    whole = packing.array("head_gather") is found["local_head_gather"] is found["local_query_head_gather"]
    assert whole == (longest == SHORT), "in short rows a local layer is a global one"
    assert {name: array.dtype for name, array in found.items()} == {
        name: np.float32 if name == "local_bias" else np.int64 for name in LOCAL
    }
    assert all(packing.array(name) is array for name, array in found.items())


def test_blocks_in_which_nobody_asks_are_left_out() -> None:
    active = np.zeros(BLOCKS, dtype=np.bool_)
    active[[0, 2, 200]] = True
    _, found = arrays_of([BLOCKS], active)
    assert found["local_query_head_gather"][:, 0].tolist() == [[0, 2], [4, 4]]
    assert found["local_head_scatter"].tolist() == [[0, 2], [1, 3], [4, 6]]

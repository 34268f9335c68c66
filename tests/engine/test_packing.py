from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.core.rows import Units
from cascade.engine.live import PER_UNIT, Halting, Live
from cascade.engine.packing import FEEDS, MASKED, Packing, neighbours, padded
from cascade.exceptions import InputError
from tests.models.toy import batch_of
from tests.models.toy_tagging import sentences_of

LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=12)
PIECES = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=5), min_size=1, max_size=5)
HEADS = 2


@given(LENGTHS, st.integers(1, 4))
def test_indices_equal_a_loop(lengths: list[int], heads: int) -> None:
    """Each place of the grid by itself, and then the way back to the tokens."""
    feeds = Packing.of(np.array(lengths, dtype=np.int64), heads=heads).feeds(FEEDS)
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
    packing = Packing.of(np.array(lengths), heads=heads)
    np.testing.assert_array_equal(packing.mask, feeds["weights"][:, 0])
    assert packing.position_ids(2).tolist() == [2 + place for length in lengths for place in range(length)]
    floats = {"bias", "local_bias", "weights", "counts"}
    assert {name: array.dtype for name, array in feeds.items()} == {
        name: np.float32 if name in floats else np.int64 for name in feeds
    }


def test_feeds_are_made_once_and_by_name() -> None:
    packing = Packing.of(np.array([2, 1]), heads=2)
    feeds = packing.feeds(["hidden", "bias", "firsts"])
    assert list(feeds) == ["bias", "firsts"]
    assert set(packing._made) == {"bias", "firsts"}  # nothing that no graph asked for
    assert all(packing.feeds(FEEDS)[name] is array for name, array in feeds.items())


@given(LENGTHS.filter(lambda lengths: len(set(lengths)) > 1), st.integers(0, 1000))
def test_places_that_are_masked_weigh_nothing(lengths: list[int], seed: int) -> None:
    """A row's largest weight is at least 1 before the division, so what is masked is lost in rounding."""
    packing = Packing.of(np.array(lengths, dtype=np.int64))
    scores = (30 * np.random.default_rng(seed).normal(size=sum(lengths))).astype(np.float32)[packing.array("gather")]
    scores = scores + packing.array("bias")[:, 0, 0]
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    assert (scores.max(axis=1) == np.where(packing.mask, scores, -np.inf).max(axis=1)).all()
    masked = np.where(packing.mask, 0, weights)
    assert (np.float32(1) + 512 * masked == 1).all()
    assert (masked[~packing.mask] < 5e-18).all()


def test_a_row_without_tokens_is_refused() -> None:
    with pytest.raises(InputError, match="each row must have at least 1 token, row 1 had 0; use a tokenizer that adds"):
        Packing.of(np.array([3, 0]))


@given(st.lists(st.integers(0, 12), min_size=1, max_size=12), st.integers(1, 14))
def test_padded_equals_a_loop(lengths: list[int], max_length: int) -> None:
    rows = batch_of(lengths).rows
    ids, mask, types = padded(rows, max_length=max_length)
    longest = max(min(max(lengths), max_length), 1)
    assert ids.shape == mask.shape == types.shape == (len(lengths), longest)
    for row, (begin, end) in enumerate(pairwise(rows.offsets)):
        own, kinds = rows.ids[begin:end].tolist(), rows.types[begin:end].tolist()
        if len(own) > max_length:
            own = own[: max_length - 1] + own[-1:]
            kinds = kinds[: max_length - 1] + kinds[-1:]
        padding = longest - len(own)
        assert ids[row].tolist() == own + [0] * padding
        assert types[row].tolist() == kinds + [0] * padding
        assert mask[row].tolist() == [1] * len(own) + [0] * padding


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


def live_of(units: Units, first: int = 100, *, words: bool = True) -> Live:
    """Rows in which each token's hidden state is its number."""
    numbers = np.arange(len(units)) + first
    hidden = np.arange(units.rows.tokens, dtype=np.float32)[:, None]
    grid = Packing.of(units.rows.lengths, heads=HEADS)
    history = numbers[:, None, None].astype(np.float32)
    return Live(grid, numbers, hidden, history, Halting.of(units) if words else None)


def of_words(live: Live) -> Halting:
    assert live.halting is not None
    return live.halting


def test_nothing_is_copied_until_a_row_leaves_and_halted_states_stay() -> None:
    """Sentences "[CLS] a a b [SEP]" and "[CLS] c [SEP]"; b leaves."""
    whole = live_of(sentences_of([[2, 1], [1]]))
    feeds = whole.feeds(PER_UNIT)
    assert feeds["query_head_gather"] is feeds["head_gather"]
    one = whole.leave(np.array([False, True, False]))
    assert one.grid is whole.grid
    assert one.hidden is whole.hidden
    assert all(one.feeds(PER_UNIT)[name] is array for name, array in one.feeds(PER_UNIT).items())  # made once
    assert one.size == (7 + 1 // 4,)
    after = one.after(np.full((7, 1), -1, dtype=np.float32))
    np.testing.assert_array_equal(after.hidden[:, 0], [-1, -1, -1, 3, -1, -1, -1, -1])


def test_finished() -> None:
    live = live_of(sentences_of([[1, 2], [1], [1, 1]]))
    staying = np.array([False, True, False, False, False])
    np.testing.assert_array_equal(live.finished(staying), [False, False, True, True, True])
    whole = live_of(batch_of([3, 4]), words=False)
    np.testing.assert_array_equal(whole.finished(np.array([False, True])), [True, False])


@given(LENGTHS, st.data())
def test_whole_rows_leave_with_their_tokens(lengths: list[int], data: st.DataObject) -> None:
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths)).filter(any)))
    live = live_of(batch_of(lengths), words=False)
    assert live.size == (sum(lengths), len(lengths))
    row = np.repeat(np.arange(len(lengths)), lengths)
    left = live.leave(~keep)
    np.testing.assert_array_equal(left.hidden, live.hidden[np.isin(row, np.flatnonzero(keep))])
    np.testing.assert_array_equal(left.inside, live.units[keep])
    assert left.history is not None
    np.testing.assert_array_equal(left.history[:, 0, 0], left.inside)
    np.testing.assert_array_equal(left.grid.lengths, np.array(lengths)[keep])
    assert left.hidden.flags.c_contiguous


@given(PIECES, st.data())
def test_leaving_equals_a_loop(pieces: list[list[int]], data: Any) -> None:
    """Step by step, with every token known by its number in the beginning."""
    words = sentences_of(pieces)
    live = live_of(words)
    steps = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(words), max_size=len(words))))
    row_of_word, row_of_token = words.row_of, np.repeat(np.arange(words.n_rows), words.rows.lengths)
    inside = np.ones(len(words), dtype=np.bool_)
    active = np.ones(words.rows.tokens, dtype=np.bool_)
    for step in range(steps.max()):
        numbers = np.flatnonzero(inside)
        gone = steps[numbers] == step
        before = of_words(live).is_active.copy()
        rest = live.leave(gone)
        np.testing.assert_array_equal(of_words(live).is_active, before)
        live, hidden = rest, rest.hidden[:, 0].astype(np.int64)
        inside[numbers[gone]] = False
        for word in numbers[gone]:
            active[words.first_token[word] : words.first_token[word] + words.n_tokens[word]] = False
        rows = np.unique(row_of_word[inside])

        live_words = np.flatnonzero(np.isin(row_of_word, rows))
        halting = of_words(live)
        np.testing.assert_array_equal(hidden, np.flatnonzero(np.isin(row_of_token, rows)))
        np.testing.assert_array_equal(live.units, live_words + 100)
        np.testing.assert_array_equal(live.inside, np.flatnonzero(inside) + 100)
        np.testing.assert_array_equal(hidden[halting.first_token], words.first_token[live_words])
        np.testing.assert_array_equal(halting.n_tokens, words.n_tokens[live_words])
        np.testing.assert_array_equal(rows[halting.rows], row_of_word[live_words])
        np.testing.assert_array_equal(live.grid.lengths, words.rows.lengths[rows])

        feeds = live.feeds(PER_UNIT)
        active_now = hidden[feeds["active"]]
        np.testing.assert_array_equal(active_now, np.flatnonzero(active & np.isin(row_of_token, rows)))
        np.testing.assert_array_equal(active_now[feeds["words"]], words.first_token[inside])
        places = feeds["query_head_gather"]
        grid = active_now[places[:, 0] // HEADS]
        np.testing.assert_array_equal(places, places[:, :1] + np.arange(HEADS)[:, None])
        row, column = np.divmod(feeds["head_scatter"][:, 0], HEADS * grid.shape[1])
        np.testing.assert_array_equal(grid[row, column], active_now)
        np.testing.assert_array_equal(rows[row], row_of_token[active_now])  # each in the line of its own sentence
        everything = hidden[feeds["head_gather"][:, 0] // HEADS]
        row, column = np.divmod(feeds["placed_head_scatter"][:, 0], HEADS * everything.shape[1])
        np.testing.assert_array_equal(everything[row, column], active_now)  # each where all tokens have it
        placed = feeds["placed_query_head_gather"]
        np.testing.assert_array_equal(active_now[placed[row, 1, column] // HEADS], active_now)
        np.testing.assert_array_equal(placed, placed[:, :1] + np.arange(HEADS)[:, None])
        for line, own_row in enumerate(rows):
            own = np.flatnonzero(row_of_token == own_row)
            there = feeds["bias"][line, 0, 0] == 0
            np.testing.assert_array_equal(everything[line][there], own)
            assert (everything[line][~there] == own[0]).all()
        for name in PER_UNIT - {"hidden"}:
            assert feeds[name].dtype == (np.float32 if name in ("bias", "local_bias") else np.int64)


@given(st.lists(PIECES, min_size=1, max_size=4), st.booleans(), st.data())
def test_joined_parts_are_one(parts: list[list[list[int]]], words: bool, data: Any) -> None:
    """Leaving part by part and joining equals joining and leaving."""
    lives, masks, first = [], [], 0
    for seed, pieces in enumerate(parts):
        units = sentences_of(pieces, seed) if words else batch_of([sum(row) for row in pieces], seed)
        lives.append(live_of(units, first, words=words))
        masks.append(np.array(data.draw(st.lists(st.booleans(), min_size=len(units), max_size=len(units)))))
        masks[-1][data.draw(st.integers(0, len(units) - 1))] = False
        first += len(units)
    early = Live.join([live.leave(gone) for live, gone in zip(lives, masks, strict=True)])
    late = Live.join(lives).leave(np.concatenate(masks))
    for name in ("units", "inside", "hidden", "history"):
        np.testing.assert_array_equal(getattr(early, name), getattr(late, name))
    names = PER_UNIT if words else FEEDS
    for name, array in early.feeds(names).items():
        np.testing.assert_array_equal(array, late.feeds(names)[name])

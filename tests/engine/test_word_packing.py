from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cascade.engine.packing import MASKED
from cascade.engine.word_packing import WordPacking
from tests.models.toy_tagging import sentences_of

HEADS = 2
PIECES = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=5), min_size=1, max_size=5)


def packing_of(pieces: list[list[int]]) -> WordPacking:
    words = sentences_of(pieces)
    return WordPacking.of(words, np.arange(len(words)) + 100, heads=HEADS)


def test_heads() -> None:
    """Every head of a token stands where the token would, in a line of its own."""
    one, _ = packing_of([[2, 1], [1]]).leave(np.array([False, True, False]))
    assert one.feeds["head_gather"].shape == (2, HEADS, 5)
    np.testing.assert_array_equal(one.feeds["query_head_gather"][1], [[8, 10, 12, 8], [9, 11, 13, 9]])
    np.testing.assert_array_equal(one.feeds["head_scatter"][:5], [[0, 4], [1, 5], [2, 6], [3, 7], [8, 12]])
    two, _ = one.leave(np.array([False, True]))
    joined = WordPacking.join([one, two])
    assert two.grid.heads == two.active.grid.heads == joined.grid.heads == joined.active.grid.heads == HEADS


def test_worked_example() -> None:
    """Sentences "[CLS] a a b [SEP]" and "[CLS] c [SEP]"; first b leaves, then c."""
    whole = packing_of([[2, 1], [1]])
    assert whole.all_active
    np.testing.assert_array_equal(whole.active.tokens, np.arange(8))
    np.testing.assert_array_equal(whole.feeds["words"], [1, 3, 6])
    assert whole.feeds["query_head_gather"] is whole.feeds["head_gather"]

    one, tokens = whole.leave(np.array([False, True, False]))
    assert tokens is None
    assert one.grid is whole.grid
    feeds = first_heads(one)
    np.testing.assert_array_equal(feeds["head_gather"], [[0, 1, 2, 3, 4], [5, 6, 7, 5, 5]])
    np.testing.assert_array_equal(feeds["bias"], [[0, 0, 0, 0, 0], [0, 0, 0, MASKED, MASKED]])
    np.testing.assert_array_equal(feeds["active"], [0, 1, 2, 4, 5, 6, 7])
    np.testing.assert_array_equal(feeds["query_head_gather"], [[0, 1, 2, 3], [4, 5, 6, 4]])
    np.testing.assert_array_equal(feeds["head_scatter"], [0, 1, 2, 3, 4, 5, 6])
    np.testing.assert_array_equal(one.feeds["words"], [1, 5])
    np.testing.assert_array_equal(one.places, [0, 2])

    two, tokens = one.leave(np.array([False, True]))
    np.testing.assert_array_equal(tokens, [0, 1, 2, 3, 4])
    np.testing.assert_array_equal(two.words, [100, 101])
    np.testing.assert_array_equal(two.feeds["active"], [0, 1, 2, 4])
    np.testing.assert_array_equal(two.feeds["words"], [1])


def test_what_is_computed_once() -> None:
    packing = packing_of([[2, 1], [1]])
    assert packing.active is packing.active
    packing, _ = packing.leave(np.array([True, False, False]))
    assert packing.active is packing.active


def test_finished() -> None:
    packing = packing_of([[1, 2], [1], [1, 1]])
    np.testing.assert_array_equal(
        packing.finished(np.array([False, True, False, False, False])), [False, False, True, True, True]
    )


def first_heads(packing: WordPacking) -> dict[str, Any]:
    """What a stage reads, with numbers and places of tokens in place of those of their heads."""
    feeds: dict[str, Any] = dict(packing.feeds)
    for name in ("head_gather", "query_head_gather"):
        feeds[name] = feeds[name][:, 0] // HEADS
        np.testing.assert_array_equal(packing.feeds[name], feeds[name][:, None] * HEADS + np.arange(HEADS)[:, None])
    longest = feeds["query_head_gather"].shape[1]
    row, column = np.divmod(feeds["head_scatter"][:, 0], HEADS * longest)
    feeds["head_scatter"] = row * longest + column
    places = packing.feeds["head_scatter"]
    np.testing.assert_array_equal(places, (row * HEADS * longest + column)[:, None] + np.arange(HEADS) * longest)
    feeds["bias"] = feeds["bias"][:, 0, 0]
    return feeds


@given(PIECES, st.data())
def test_leaving_equals_a_loop(pieces: list[list[int]], data: Any) -> None:
    """Step by step, with every token known by its number in the beginning."""
    words = sentences_of(pieces)
    packing = packing_of(pieces)
    steps = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(words), max_size=len(words))))
    row_of_word, row_of_token = words.row_of, np.repeat(np.arange(words.n_rows), words.rows.lengths)
    hidden = np.arange(words.rows.tokens)
    inside = np.ones(len(words), dtype=np.bool_)
    going = np.ones(words.rows.tokens, dtype=np.bool_)
    for step in range(steps.max()):
        numbers = np.flatnonzero(inside)
        gone = steps[numbers] == step
        before = packing.going.copy()
        rest, tokens = packing.leave(gone)
        np.testing.assert_array_equal(packing.going, before)
        packing, hidden = rest, hidden if tokens is None else hidden[tokens]
        inside[numbers[gone]] = False
        for word in numbers[gone]:
            going[words.first_token[word] : words.first_token[word] + words.n_tokens[word]] = False
        rows = np.unique(row_of_word[inside])

        live_tokens = np.flatnonzero(np.isin(row_of_token, rows))
        live_words = np.flatnonzero(np.isin(row_of_word, rows))
        np.testing.assert_array_equal(hidden, live_tokens)
        np.testing.assert_array_equal(packing.words, live_words + 100)
        np.testing.assert_array_equal(packing.words[packing.places], np.flatnonzero(inside) + 100)
        np.testing.assert_array_equal(hidden[packing.firsts], words.first_token[live_words])
        np.testing.assert_array_equal(packing.pieces, words.n_tokens[live_words])
        np.testing.assert_array_equal(rows[packing.sentences], row_of_word[live_words])
        np.testing.assert_array_equal(packing.grid.lengths, words.rows.lengths[rows])

        feeds = first_heads(packing)
        active = hidden[feeds["active"]]
        np.testing.assert_array_equal(active, np.flatnonzero(going & np.isin(row_of_token, rows)))
        np.testing.assert_array_equal(active[feeds["words"]], words.first_token[inside])
        grid = active[feeds["query_head_gather"]]
        np.testing.assert_array_equal(grid.ravel()[feeds["head_scatter"]], active)
        np.testing.assert_array_equal(
            np.repeat(rows, grid.shape[1])[feeds["head_scatter"]], row_of_token[active]
        )  # each active token is in the line of its own sentence
        everything = hidden[feeds["head_gather"]]
        for line, row in enumerate(rows):
            own = np.flatnonzero(row_of_token == row)
            there = feeds["bias"][line] == 0
            np.testing.assert_array_equal(everything[line][there], own)
            assert (everything[line][~there] == own[0]).all()
            assert (feeds["bias"][line][~there] == MASKED).all()
        for name, array in packing.feeds.items():
            assert array.dtype == (np.float32 if name == "bias" else np.int64)


@given(st.lists(PIECES, min_size=1, max_size=4), st.data())
def test_joined_parts_are_one_packing(parts: list[list[list[int]]], data: Any) -> None:
    """Leaving part by part and joining equals joining and leaving."""
    packings, masks, first = [], [], 0
    for seed, pieces in enumerate(parts):
        words = sentences_of(pieces, seed)
        packings.append(WordPacking.of(words, np.arange(len(words)) + first))
        masks.append(np.array(data.draw(st.lists(st.booleans(), min_size=len(words), max_size=len(words)))))
        masks[-1][data.draw(st.integers(0, len(words) - 1))] = False
        first += len(words)
    early = WordPacking.join([packing.leave(gone)[0] for packing, gone in zip(packings, masks, strict=True)])
    late, _ = WordPacking.join(packings).leave(np.concatenate(masks))
    for name in ("words", "sentences", "firsts", "pieces", "places", "going"):
        np.testing.assert_array_equal(getattr(early, name), getattr(late, name))
    for name, array in early.feeds.items():
        np.testing.assert_array_equal(array, late.feeds[name])

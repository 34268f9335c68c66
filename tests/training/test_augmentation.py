"""New rows for distillation: well-formed, seeded, near the old ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.training import augmentation
from cascade.training.augmentation import neighbours, new_rows

SIMILAR = np.arange(50)[:, None] + np.array([[100, 200]])
ROWS = st.lists(st.lists(st.integers(5, 49), min_size=1, max_size=12).map(lambda b: [2, *b, 3]), min_size=1, max_size=6)


@given(ROWS, st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_rows_keep_their_special_tokens_and_length(rows: list[list[int]], copies: int, seed: int) -> None:
    new = new_rows(rows, copies, similar=SIMILAR, max_length=10, rng=np.random.default_rng(seed))
    assert len(new) == copies * len(rows)
    for row in new:
        assert row[0] == 2
        assert row[-1] == 3
        assert 3 <= len(row) <= 10
        assert all(5 <= token % 100 < 50 for token in row[1:-1])


def test_the_seed_decides() -> None:
    rows = [[2, *range(5, 15), 3]] * 5

    def make(seed: int) -> list[list[int]]:
        return new_rows(rows, 2, similar=SIMILAR, max_length=64, rng=np.random.default_rng(seed))

    assert make(1) == make(1)
    assert make(1) != make(2)


def test_without_replacing_and_dropping_tokens_come_from_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [[2, 5, 6, 7, 8, 9, 3], [2, 20, 21, 3]]
    monkeypatch.setattr(augmentation, "REPLACE", 0)
    monkeypatch.setattr(augmentation, "DROP", 0)
    new = new_rows(rows, 20, similar=SIMILAR, max_length=64, rng=np.random.default_rng(0))
    assert {token for row in new for token in row[1:-1]} <= {5, 6, 7, 8, 9, 20, 21}


def test_neighbours_are_the_nearest_others() -> None:
    table = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9], [-1, 0]], dtype=np.float32)
    assert neighbours(table, k=1)[:, 0].tolist()[:4] == [1, 0, 3, 2]


def test_in_place_no_token_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    """For taggers: half of the tokens give way to a neighbour, the special ones stay, lengths too."""
    rows = [[2, *range(10, 50), 3], [2, 10, 3]]
    similar = np.arange(60)[:, None] + np.array([[100, 200]])
    monkeypatch.setattr(augmentation, "REPLACE", 0.5)
    new = new_rows(rows, 3, similar=similar, rng=np.random.default_rng(1), max_length=None)
    assert [len(row) for row in new] == [42, 3] * 3
    for row, old in zip(new, rows * 3, strict=True):
        assert (row[0], row[-1]) == (2, 3)
        assert {after - before for after, before in zip(row, old, strict=True)} <= {0, 100, 200}
    changed = np.mean(np.array(new[0]) != np.array(rows[0]))
    assert 0.25 < changed < 0.75
    assert new_rows(rows, 0, similar=similar, rng=np.random.default_rng(1), max_length=None) == []

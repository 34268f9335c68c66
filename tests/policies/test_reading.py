"""Reading policies: the order of a text's rows, and after which of them its answer stands."""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.exceptions import OptionError
from cascade.policies import InOrder
from cascade.policies.reading import ReadingState, rounds


def read(owners: list[int], said: list[list[float]], threshold: float) -> list[list[int]]:
    table = np.array(said, dtype=np.float32)
    return [part.tolist() for part in rounds(InOrder(threshold), np.array(owners), table.__getitem__)]


def test_worked_example() -> None:
    """The first text leads by .2, then .3 of what 1 may differ by; the second by .8, above .6 times the root of 2."""
    sure, unsure, against = [0.9, 0.1], [0.6, 0.4], [0.45, 0.55]
    owners = [0, 0, 0, 5, 5, 5, 7]
    said = [unsure, against, unsure, sure, sure, sure, unsure]
    assert read(owners, said, 0.5) == [[0, 3, 6], [2], [1]]
    assert read(owners, said, 0.7) == [[0, 3, 6], [2, 5], [1]]
    assert read(owners, said, 0.1) == [[0, 3, 6]]


@given(st.lists(st.integers(1, 9), max_size=6), st.integers(0, 10**6))
def test_nothing_is_read_twice_and_all_of_it_where_nothing_is_enough(sizes: list[int], seed: int) -> None:
    owners = np.repeat(np.arange(len(sizes)), sizes)
    said = np.random.default_rng(seed).dirichlet(np.ones(3), len(owners)).astype(np.float32)
    found = [part.tolist() for part in rounds(InOrder(1e9), owners, said.__getitem__)]
    assert sorted(chain(*found)) == list(range(len(owners)))
    assert all(part == sorted(part) for part in found)
    some = [part.tolist() for part in rounds(InOrder(0.3), owners, said.__getitem__)]
    assert [set(part) <= set(whole) for part, whole in zip(some, found, strict=False)] == [True] * len(some)
    alone = set[int]()
    for begin, size in zip(np.cumsum(sizes) - sizes, sizes, strict=True):
        own = said[begin : begin + size]
        alone |= {
            int(begin + row)
            for part in rounds(InOrder(0.3), np.zeros(size, dtype=np.int64), own.__getitem__)
            for row in part
        }
    assert alone == set(chain(*some))


def test_several_labels_at_once_are_as_sure_as_the_least_sure_one() -> None:
    state = ReadingState(np.array([[0.9, 0.9], [0.9, 0.6]], dtype=np.float32), 1, np.array([1, 1]), multi_label=True)
    assert InOrder(0.5)(state).tolist() == [True, False]


@pytest.mark.parametrize("threshold", [0, -1, float("nan"), float("inf"), "1", None])
def test_impossible_thresholds(threshold: Any) -> None:
    with pytest.raises(OptionError, match=r"threshold must be above 0 and finite, got .*; give a number like 0.6"):
        InOrder(threshold)


def test_what_is_no_mask() -> None:
    said = np.full((2, 2), 0.5, dtype=np.float32)
    with pytest.raises(OptionError, match=r"the reading policy .* must return"):
        list(rounds(lambda _state: [1], np.zeros(2, dtype=np.int64), said.__getitem__))  # type: ignore[arg-type,return-value]

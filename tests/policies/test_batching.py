from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.core.rows import IntArray
from cascade.exceptions import OptionError
from cascade.policies.batching import (
    BatchingPolicy,
    TokenBudget,
    batches,
    for_tier2,
    waves,
)

POLICIES = st.one_of(
    st.builds(TokenBudget, st.integers(1, 200)),
    st.builds(TokenBudget, st.integers(1, 200), st.integers(1, 4), st.integers(1, 90)),
)


def ints(*values: int) -> IntArray:
    return np.array(values, dtype=np.int64)


def lists(policy: BatchingPolicy, *lengths: int) -> list[list[int]]:
    return [rows.tolist() for rows in policy(ints(*lengths))]


@given(POLICIES, st.lists(st.integers(0, 90), max_size=60))
def test_every_row_exactly_once(policy: BatchingPolicy, lengths: list[int]) -> None:
    groups = batches(policy, ints(*lengths))
    assert sorted(row for rows in groups for row in rows.tolist()) == list(range(len(lengths)))
    assert all(len(rows) for rows in groups)


def test_worked_examples() -> None:
    lengths = (3, 9, 4, 20, 3)
    assert lists(TokenBudget(13), *lengths) == [[3], [1], [2, 0, 4]]
    assert lists(TokenBudget(2), 0, 0, 0) == [[0], [1, 2]]  # rows of no tokens still count


@pytest.mark.parametrize(
    "option",
    ["max_tokens", "ways", "least_tokens"],
)
def test_sizes_are_checked(option: str) -> None:
    for bad in (0, -3, 2.0, True, None):
        with pytest.raises(OptionError, match=f"{option} must be a whole number of at least 1, got {bad}; give"):
            TokenBudget(**{option: bad})  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("given_rows", [[[0]], [[0, 1], [1]], [[0, 2]], []])
def test_a_policy_that_loses_or_doubles_rows(given_rows: list[list[int]]) -> None:
    def policy(_: IntArray) -> Iterator[IntArray]:
        return (ints(*rows) for rows in given_rows)

    with pytest.raises(OptionError, match=r"a batching policy must give each of 2 rows exactly once, .*cover 0 to 1"):
        batches(policy, ints(5, 5))
    groups = batches(lambda lengths: iter([ints(), np.arange(len(lengths)), ints()]), ints(5, 5))
    assert [rows.tolist() for rows in groups] == [[0, 1]]  # empty ones are dropped


@given(
    st.integers(1, 100), st.integers(1, 4), st.integers(1, 50), st.lists(st.integers(1, 90), min_size=1, max_size=60)
)
def test_even_batches(budget: int, ways: int, least: int, lengths: list[int]) -> None:
    array = ints(*lengths)
    sizes = [int(array[rows].sum()) for rows in batches(TokenBudget(budget, ways, least), array)]
    assert max(sizes) <= budget + max(lengths)
    assert max(sizes) - min(sizes) <= 2 * max(lengths)


def test_even_batches_are_as_many_as_keep_all_threads_busy() -> None:
    lengths = [10] * 110
    assert [len(rows) for rows in TokenBudget(1024, ways=2)(ints(*lengths))] == [55, 55]
    assert [len(rows) for rows in TokenBudget(500, ways=2)(ints(*lengths))] == [27, 28, 27, 28]
    assert [len(rows) for rows in TokenBudget(500, ways=2, least_tokens=300)(ints(*lengths))] == [37, 36, 37]
    assert lists(TokenBudget(1024, ways=2), 3, 9, 4, 20, 3) == [[3], [1, 2, 0, 4]]
    assert lists(TokenBudget(1024, ways=2, least_tokens=20), 3, 9, 4, 20, 3) == [[3, 1, 2, 0, 4]]


def test_waves() -> None:
    waiting = [ints(number) for number in range(5)]

    def sizes(*, together: int, threads: int) -> list[int]:
        return [len(wave) for wave in waves(waiting, together=together, threads=threads)]

    assert sizes(together=1, threads=1) == [1] * 5
    assert sizes(together=16, threads=1) == [5]
    assert sizes(together=16, threads=2) == [2, 3]
    assert sizes(together=2, threads=2) == [1, 1, 1, 2]  # four, so that both threads have as many
    assert sizes(together=16, threads=8) == [5]  # too few batches for all threads: one after the other, on all of them
    assert waves([], together=16, threads=2) == []


def test_the_default_of_tier2_gives_each_thread_a_batch_where_there_is_enough_for_them() -> None:
    def cut(texts: int, threads: int = 2) -> list[int]:
        return [len(rows) for rows in for_tier2(threads)(np.full(texts, 24))]

    assert cut(7) == [7]  # 168 tokens: two batches would be below 96
    assert cut(8) == [4, 4]
    assert cut(60) == [30, 30]
    assert cut(60, threads=1) == [30, 30]  # 1,440 tokens
    assert cut(8, threads=4) == [4, 4]

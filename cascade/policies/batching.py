"""Batching policies: which rows run together.

A policy is called with the lengths of all rows and gives arrays of row numbers, every row exactly once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from cascade.core.checks import check_whole
from cascade.core.rows import IntArray
from cascade.exceptions import OptionError

BatchingPolicy: TypeAlias = Callable[[IntArray], Iterator[IntArray]]
"""From lengths of shape `(rows,)` to arrays of row numbers, every row exactly once."""

POOL_FROM = (384, 128)
"""Of tier 1 and of tier 2, tokens from which a batch that runs alone gets all threads.

Below, dividing each small operator costs more than it brings: two threads took 1.24 times as long as one over one text
in tier 1, 1.20 in tier 2; they were even at 400 and at 160 tokens (models/sentiment, medians of 200 runs).
"""
LEAST_TOKENS = 96


def batches(policy: BatchingPolicy, lengths: IntArray) -> list[IntArray]:
    """Ask a policy and check what it gave: a row that is missing, doubled or unknown is an `OptionError`.

    `lengths`: tokens of each row. Shape `(rows,)`.
    """
    if len(lengths) == 1:  # there is one way
        return [np.zeros(1, dtype=np.int64)]
    groups = [np.asarray(rows, dtype=np.int64) for rows in policy(lengths)]
    groups = [rows for rows in groups if len(rows)]
    together = np.sort(np.concatenate(groups)) if groups else np.empty(0, dtype=np.int64)
    if not np.array_equal(together, np.arange(len(lengths))):
        raise OptionError(
            f"a batching policy must give each of {len(lengths)} rows exactly once, {policy!r} gave "
            f"{len(together)} numbers, {len(np.unique(together))} of them distinct; cover 0 to {len(lengths) - 1}"
        )
    return groups


def waves(waiting: Sequence[IntArray], *, together: int, threads: int) -> list[Sequence[IntArray]]:
    """Groups of neighbouring batches that are under way together, at most `together` of them in a group.

    `threads` groups run at once, and there are as many as keep all of them busy to the end.
    """
    if len(waiting) == 1:
        return [waiting]
    count = -(-len(waiting) // together)
    if len(waiting) >= threads > 1:
        count = min(-(-count // threads) * threads, len(waiting))
    bounds = np.linspace(0, len(waiting), count + 1).astype(np.int64)
    return [waiting[begin:end] for begin, end in itertools.pairwise(bounds)]


@dataclass(frozen=True)
class TokenBudget:
    """Rows sorted by length, longest first, in batches of about equally many tokens.

    There are as many as `max_tokens` asks for, and then as many more as make their number a multiple of `ways`, as
    long as each holds `least_tokens`. So no thread has nothing to do while another works on the last batch. Longest
    first, so that memory reaches its peak in the first batch and later ones reuse it.

    Example: TokenBudget(1024, ways=2) makes two batches of 550 tokens of 1100, TokenBudget(2048) one.

    Attributes:
        max_tokens: tokens of a batch, but for the rest of a row, at least 1. Enough for a batch of its own to keep one
            thread busy, while its hidden states (1024 tokens of width 384: 1.5 MiB) stay in cache.
        ways: threads that run batches, at least 1.
        least_tokens: tokens of a batch that are worth a thread of their own, at least 1.
    """

    max_tokens: int = 1024
    ways: int = 1
    least_tokens: int = 1

    def __post_init__(self) -> None:
        check_whole("max_tokens", self.max_tokens, "give a number such as 1024")
        check_whole("ways", self.ways, "give the number of threads")
        check_whole("least_tokens", self.least_tokens, "give a number such as 64")

    def __call__(self, lengths: IntArray) -> Iterator[IntArray]:
        order = np.argsort(-lengths, kind="stable").astype(np.int64, copy=False)
        ends = np.cumsum(np.maximum(lengths[order], 1))
        tokens = int(ends[-1]) if len(ends) else 0
        needed = -(-tokens // self.max_tokens)
        even = min(-(-needed // self.ways) * self.ways, max(tokens // self.least_tokens, needed))
        # Where a row lies across a bound it goes to the side on which most of it is.
        bounds = np.searchsorted(ends - np.diff(ends, prepend=0) / 2, np.arange(1, even) * (tokens / max(even, 1)))
        for begin, end in itertools.pairwise([0, *bounds.tolist(), len(order)]):
            if end > begin:
                yield order[begin:end]


def for_tier2(threads: int) -> TokenBudget:
    """The default of tier 2: even batches, one for each thread where a call has enough for them.

    From 200 tokens on, halves on two threads took 0.88 of the time of one thread and 0.86 of that of one batch with
    both threads, from 400 on 0.70 and 0.83. A batch of tier 1 is over before a second thread has begun.
    """
    return TokenBudget(ways=threads, least_tokens=LEAST_TOKENS)

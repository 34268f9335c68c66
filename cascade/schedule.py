"""What a call costs, from what its parts cost: the same batches, waves and merging as in the tiers, without the graphs.

Who leaves is known as a share after each exit, so batches shrink evenly; everything else is followed as `tiers` and
`staged` do it. It leaves to others: what the parts cost (`measuring`), choosing between ways to run (`planner`).
"""

from __future__ import annotations

import heapq
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from cascade.batch import IntArray
from cascade.batching import BatchingPolicy, batches, waves
from cascade.cost_model import CostModel, Floats
from cascade.host_costs import GraphCosts, HostCosts
from cascade.packing import neighbours

__all__ = ["finished", "inside", "tier1_seconds", "tier2_seconds"]

_Kind: TypeAlias = Callable[[GraphCosts], CostModel]


def inside(exits: Sequence[float]) -> Floats:
    """The share of rows that each stage still has to run.

    Args:
        exits: share of the rows that leave at each exit, together 1.

    Example: [0.5, 0.25, 0.25] -> [1, 0.5, 0.25]
    """
    left = np.concatenate(([0.0], np.cumsum(np.asarray(exits, dtype=np.float64))[:-1]))
    found: Floats = np.clip(1 - left, 0.0, 1.0)
    return found


def finished(seconds: Sequence[float], threads: int) -> float:
    """When the last of several pieces of work is done, each thread taking the next one in order.

    Example: finished([3, 1, 1, 1], 2) -> 3
    """
    busy = [0.0] * threads
    for one in seconds:
        heapq.heapreplace(busy, busy[0] + one)
    return max(busy)


def tier1_seconds(costs: HostCosts, lengths: IntArray, batching: BatchingPolicy, *, pool_from: int = 0) -> float:
    """Of tier 1 on rows of these lengths. Shape `(rows,)`. `pool_from`: see `tiers.SingleExit`."""
    groups = batches(batching, lengths)
    if not groups:
        return 0.0
    rows = np.array([len(group) for group in groups])
    longest = np.array([lengths[group].max() for group in groups])
    model = _kind(costs, len(groups), lengths, pool_from)(costs.tier1)
    return _start(costs, len(groups)) + finished(model.seconds(rows, rows * longest, longest).tolist(), costs.threads)


def tier2_seconds(
    costs: HostCosts,
    lengths: IntArray,
    batching: BatchingPolicy,
    *,
    remaining: Floats | None = None,
    together: int = 1,
    pool_from: int = 0,
) -> float:
    """Of tier 2 on rows of these lengths.

    Args:
        costs: of the parts.
        lengths: tokens of each row. Shape `(rows,)`.
        batching: which rows start together.
        remaining: share of the rows that each stage has to run (`inside`); nobody leaves early if left out. Shape
            `(stages,)`.
        together: batches of a wave; nothing is merged if nobody leaves early.
        pool_from: see `Staged`.
    """
    leaving = remaining is not None
    shares = np.ones(len(costs.stages)) if remaining is None else remaining
    groups = waves(batches(batching, lengths), together=together if leaving else 1, threads=costs.threads)
    kind = _kind(costs, len(groups), lengths, pool_from)
    taken = [_wave(costs, [lengths[rows] for rows in wave], shares, kind, leaving=leaving) for wave in groups]
    return _start(costs, len(groups)) + finished(taken, costs.threads) if taken else 0.0


@dataclass(frozen=True, eq=False)
class _Live:
    """Batches under way: rows and tokens expected in each, tokens of its longest row, rows that it had at first."""

    rows: Floats
    tokens: Floats
    longest: Floats
    begun: Floats

    def shrunk(self, share: float) -> _Live:
        return _Live(self.rows * share, self.tokens * share, self.longest, self.begun)

    def merged(self, most: tuple[int, int]) -> _Live:
        sizes = list(
            zip(np.ceil(self.tokens).astype(int).tolist(), np.ceil(self.rows).astype(int).tolist(), strict=True)
        )
        starts = [group.start for group in neighbours(sizes, most)]
        add = np.add.reduceat
        return _Live(
            add(self.rows, starts),
            add(self.tokens, starts),
            np.maximum.reduceat(self.longest, starts),
            add(self.begun, starts),
        )


def _wave(costs: HostCosts, rows: Sequence[IntArray], remaining: Floats, kind: _Kind, *, leaving: bool) -> float:
    live = _Live(
        np.array([len(lengths) for lengths in rows], dtype=np.float64),
        np.array([lengths.sum() for lengths in rows], dtype=np.float64),
        np.array([lengths.max() for lengths in rows], dtype=np.float64),
        np.array([len(lengths) for lengths in rows], dtype=np.float64),
    )
    most = int(live.tokens.max()), int(live.rows.max())

    def seconds(of: GraphCosts, share: float) -> float:
        runs = 1 - (1 - share) ** live.begun  # the probability that one of them is still there
        return float(kind(of).seconds(live.rows, live.tokens, live.longest, runs).sum())

    total = seconds(costs.embed, 1.0)
    for index, stage in enumerate(costs.stages):
        share = float(remaining[index])
        if index and share < remaining[index - 1]:
            live = live.shrunk(share / float(remaining[index - 1]))
        if share == 0:
            break
        if index and leaving and len(live.rows) > 1:
            live = live.merged(most)
        last = index == len(costs.stages) - 1
        total += seconds(stage, share) + seconds(costs.stop if leaving and not last else costs.between, share)
    return total


def _start(costs: HostCosts, count: int) -> float:
    return costs.start if costs.threads > 1 and count > 1 else 0.0


def _kind(costs: HostCosts, count: int, lengths: IntArray, pool_from: int) -> _Kind:
    """Which of its costs a part has; on one thread all are the same."""
    if costs.threads == 1 or (count < 2 and int(lengths.sum()) >= pool_from):
        return operator.attrgetter("alone")
    return operator.attrgetter("beside" if count > 1 else "lone")

"""Recorded answers of tiers that never ran: texts of known difficulty."""

from __future__ import annotations

import numpy as np

from cascade.calibration.costs import Costs, TierCosts
from cascade.calibration.texts import TextAnswers, TierAnswers
from cascade.core.confidence import probabilities
from cascade.core.rows import FloatArray, IntArray
from cascade.policies.exits import ExitPolicy, never
from cascade.policies.routing import Router
from cascade.policies.settings import Policies


def costs_of(tier1: float, stages: tuple[float, ...], *, always: float = 0.0) -> Costs:
    """Of two tiers, the first without exits."""
    return Costs((TierCosts((tier1,)), TierCosts(stages)), always)


COSTS = costs_of(0.05, (0.3, 0.3, 0.3), always=0.02)
COLD = ((1.0,), (1.0, 1.0, 1.0))


def policies(router: Router, exit_policy: ExitPolicy, blend: float = 0.0) -> Policies:
    return Policies((router,), (never, exit_policy), COLD, blend=(blend,))


def told(
    tier1: FloatArray,
    tier2: FloatArray,
    truth: IntArray | None,
    costs: Costs = COSTS,
    *,
    lengths: IntArray | None = None,
    layers: tuple[int, ...] = (),
    multi_label: bool = False,
) -> TextAnswers:
    """Texts of one row each, of 10 tokens if nothing else is said, and an exit after every layer."""
    rows, exits, _ = tier2.shape
    tokens = np.full(rows, 10) if lengths is None else lengths
    first = TierAnswers(tier1[:, None], np.arange(rows), tokens)
    second = TierAnswers(tier2, np.arange(rows), tokens, layers or tuple(range(1, exits + 1)))
    return TextAnswers(
        tiers=(first, second),
        lengths=tokens,
        truth=truth,
        temperatures=((1.0,), (1.0,) * exits),
        costs=costs,
        multi_label=multi_label,
    )


def recorded(
    items: int,
    *,
    labels: int = 3,
    multi_label: bool = False,
    windows: int = 1,
    labelled: bool = True,
    noise: float = 1.0,
    seed: int = 0,
    costs: Costs = COSTS,
) -> TextAnswers:
    """Each head sees the truth through noise, tier 1 through most and the last exit through least.

    `windows`: of each item at most; with more than one the items have 1 to so many.
    """
    random = np.random.default_rng(seed)
    counts = random.integers(1, windows + 1, items) if windows > 1 else np.ones(items, dtype=np.int64)
    owner = np.repeat(np.arange(items, dtype=np.int64), counts)
    rows = len(owner)
    if multi_label or labels == 1:
        truth = random.integers(0, 2, (items, labels))
        signal = (4.0 * truth - 2.0)[owner]
    else:
        truth = random.integers(0, labels, items)
        signal = 4.0 * np.eye(labels)[truth][owner]
    shared = random.normal(size=(rows, labels))
    heads = [
        probabilities(
            (signal + noise * shared + own * random.normal(size=(rows, labels))).astype(np.float32),
            multi_label=multi_label,
        )
        for own in (1.5, 1.2, 0.7, 0.0)
    ]
    counts = np.bincount(owner, minlength=items)
    starts = np.cumsum(counts) - counts
    first = (np.add.reduceat(heads[0], starts, axis=0) / counts[:, None]).astype(np.float32)
    lengths = random.integers(5, 40, rows)
    whole = np.bincount(owner, weights=lengths).astype(np.int64)
    second = TierAnswers(np.stack(heads[1:], axis=1), owner, lengths, (2, 4, 6))
    return TextAnswers(
        tiers=(TierAnswers(first[:, None], np.arange(items), whole), second),
        lengths=whole,
        truth=truth if labelled else None,
        temperatures=COLD,
        costs=costs,
        multi_label=multi_label,
    )

"""Running both tiers once on labelled examples: what they answer, and how long each part takes per token.

The costs are those of this machine at this moment, from a single pass after a warm-up:
good enough to compare thresholds, not to publish.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from cascade.calibration.examples import Costs, Examples
from cascade.core.rows import FloatArray, IntArray, Rows
from cascade.engine.tiers import MultiExit, Progress, SingleExit
from cascade.runtime.timing import Timed

__all__ = ["observe", "run_both"]

WARM_UP = 64  # rows


def observe(
    tier1: SingleExit,
    tier2: MultiExit,
    batch: Rows,
    truth: IntArray,
    *,
    tokenize_seconds: float = 0.0,
    progress: Progress | None = None,
) -> tuple[Examples, Costs]:
    """Score rows with tier 1 and with every exit of tier 2.

    Args:
        tier1: the cheap tier.
        tier2: the accurate one; nobody leaves it early, whatever its policy.
        batch: the rows. Windows of a long document count as one example each.
        truth: see `Examples.of`.
        tokenize_seconds: what making the batch took; everyone pays it.
        progress: called with the number of rows done, twice for each row: once per tier.

    Returns:
        The examples, and costs in seconds per token.
    """
    first, second, costs = run_both(tier1, tier2, batch, tokenize_seconds=tokenize_seconds, progress=progress)
    examples = Examples.of(
        first,
        second,
        truth,
        lengths=batch.lengths,
        layers=tier2.layers,
        multi_label=tier2.multi_label,
    )
    return examples, costs


def run_both(
    tier1: SingleExit,
    tier2: MultiExit,
    batch: Rows,
    *,
    tokenize_seconds: float = 0.0,
    progress: Progress | None = None,
) -> tuple[FloatArray, FloatArray, Costs]:
    """What both tiers say, nobody leaving early, and what each part costs; needs no labels.

    Args:
        tier1: see `observe`, as of the others.
        tier2: the accurate tier.
        batch: the rows.
        tokenize_seconds: what making the batch took.
        progress: called with the number of rows done.

    Returns:
        Probabilities of tier 1, shape `(rows, labels)`; at every exit of tier 2, shape `(rows, exits, labels)`; costs
        in seconds per token.
    """
    embed, stages = Timed(tier2.embed), [Timed(stage) for stage in tier2.stages]
    timed = replace(tier2, embed=embed, stages=stages)
    start = batch.select(np.arange(min(WARM_UP, len(batch))))
    # Graphs for runs side by side are made when first asked for: now, not while the clock runs.
    for first_tier, second_tier in ((tier1, tier2), (replace(tier1, backend=tier1.backend.serial), tier2.serial)):
        first_tier.score(start)
        second_tier.all_exits(start)
    begin = time.perf_counter()
    first = tier1.score(batch, progress=progress)
    middle = time.perf_counter()
    second = timed.all_exits(batch, progress=progress)
    seconds1, seconds2 = middle - begin, time.perf_counter() - middle
    parts = np.array([stage.seconds for stage in stages])
    parts[0] += embed.seconds
    # What happens between the graphs (index arithmetic, softmax) is shared out in proportion to them.
    parts *= seconds2 / parts.sum() / batch.tokens
    costs = Costs(tier1=seconds1 / batch.tokens, stages=tuple(parts.tolist()), always=tokenize_seconds / batch.tokens)
    return first.probabilities, second, costs

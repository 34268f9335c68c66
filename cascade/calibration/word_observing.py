"""How long each part of a tagger takes per token on this machine: tier 1, and each stage for active and halted tokens.

A stage is run with all tokens active and with ever fewer, and a line is fitted: seconds = a * active + b * live.
Single passes after a warm-up: good enough to
compare policies, not to publish.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cascade.calibration.words import HALTED, WordCosts
from cascade.core.rows import BoolArray, Units
from cascade.engine.tiers import Progress
from cascade.engine.word_tiers import WordMultiExit, WordSingleExit
from cascade.policies.exits import ExitState
from cascade.runtime.timing import Run, Timed

__all__ = ["observe_costs"]

WARM_UP = 64  # rows
STAY = (0.7, 0.25)  # shares of the words that go on after each exit, in the passes with halted words


def observe_costs(
    tier1: WordSingleExit,
    tier2: WordMultiExit,
    words: Units,
    *,
    encode_seconds: float = 0.0,
    progress: Progress | None = None,
) -> WordCosts:
    """Time both tiers.

    Args:
        tier1: the cheap tier.
        tier2: the accurate one, whatever its policy.
        words: sentences that fit both tiers, at least one with a word.
        encode_seconds: what making them took; everyone pays it.
        progress: called with the number of words done, once for each word and pass (one of tier 1, three of tier 2).

    Returns:
        Seconds per token.
    """
    start = words.select(np.arange(min(WARM_UP, words.n_rows)))
    # Graphs for runs side by side are made when first asked for: now, not while the clock runs.
    for first_tier, second_tier in ((tier1, tier2), (replace(tier1, backend=tier1.backend.serial), tier2.serial)):
        first_tier.score(start)
        second_tier.all_exits(start)
    begin = time.perf_counter()
    tier1.score(words, progress=progress)
    seconds1 = time.perf_counter() - begin
    embed, stages = Timed(tier2.embed), [Timed(stage) for stage in tier2.stages]
    timed = replace(tier2, embed=embed, stages=stages)
    for number, stay in enumerate((1.0, *STAY)):
        halting = replace(timed, exit_policy=_AtRandom(stay, seed=number))
        begin = time.perf_counter()
        halting.score(words, progress=progress)
        if number == 0:
            wall = time.perf_counter() - begin
            inside = sum(part.seconds for part in (embed, *stages))
    # What happens between the graphs (index arithmetic, softmax) is shared out in proportion to them, and so is what
    # graphs side by side save.
    more = wall / inside
    fitted = [_line(stage.runs) for stage in stages]
    tokens = words.rows.tokens
    return WordCosts(
        tier1=seconds1 / tokens,
        active=tuple(more * active for active, _ in fitted),
        live=tuple(more * live for _, live in fitted),
        embed=more * embed.seconds / (tokens * (1 + len(STAY))),
        always=encode_seconds / tokens,
    )


@dataclass(frozen=True)
class _AtRandom:
    """An exit policy by which a share of the words stays at each exit."""

    stay: float
    seed: int

    def __call__(self, state: ExitState) -> BoolArray:
        rng = np.random.default_rng((self.seed, state.exit_index, len(state.probabilities)))
        gone: BoolArray = rng.random(len(state.probabilities)) >= self.stay
        return gone


def _line(runs: Sequence[Run]) -> tuple[float, float]:
    """Seconds for each active and for each live token, neither below 0."""
    seconds = np.array([run.seconds for run in runs])
    both = np.array([(run.active, run.live) for run in runs], dtype=np.float64)
    slopes, _, rank, _ = np.linalg.lstsq(both, seconds, rcond=None)
    if rank < 2 or slopes.min() < 0:  # too few runs, or too noisy ones, to tell them apart
        active, live = both.sum(axis=0)
        whole = seconds.sum() / ((1 - HALTED) * active + HALTED * live)
        return float(whole * (1 - HALTED)), float(whole * HALTED)
    return float(slopes[0]), float(slopes[1])

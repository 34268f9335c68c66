"""How long each part of a tagger takes per token on this machine: tier 1, and each stage for active and halted tokens.

A stage is run with all tokens active and with ever fewer, and a line is fitted: seconds = a * active + b * live. It
leaves to others: what the tiers answer, and choosing (`word_thresholds`). Single passes after a warm-up: good enough to
compare policies, not to publish.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from cascade.backend import Array, Backend
from cascade.batch import BoolArray
from cascade.calibration.words import HALTED, WordCosts
from cascade.exits import ExitState
from cascade.tiers import Progress
from cascade.word_tiers import WordMultiExit, WordSingleExit
from cascade.words import WordBatch

__all__ = ["observe_costs"]

WARM_UP = 64  # rows
STAY = (0.7, 0.25)  # shares of the words that go on after each exit, in the passes with halted words


def observe_costs(
    tier1: WordSingleExit,
    tier2: WordMultiExit,
    words: WordBatch,
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
    start = words.select(np.arange(min(WARM_UP, len(words))))
    tier1.score(start)
    tier2.all_exits(start)
    begin = time.perf_counter()
    tier1.score(words, progress=progress)
    seconds1 = time.perf_counter() - begin
    embed, stages = _Timed(tier2.embed), [_Timed(stage) for stage in tier2.stages]
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
    fitted = [stage.line() for stage in stages]
    tokens = words.batch.tokens
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
        rng = np.random.default_rng((self.seed, state.exit, len(state.probabilities)))
        gone: BoolArray = rng.random(len(state.probabilities)) >= self.stay
        return gone


@dataclass(frozen=True, eq=False)
class _Timed:
    """A backend that notes of each run how long it took, and of how many active and live tokens.

    Attributes:
        backend: what runs.
        runs: seconds, active tokens, live tokens; shared with `serial`.
    """

    backend: Backend
    runs: list[tuple[float, int, int]] = field(default_factory=list)

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.backend.inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.backend.outputs

    @property
    def serial(self) -> _Timed:
        return _Timed(self.backend.serial, self.runs)

    @property
    def seconds(self) -> float:
        """Of all runs; of runs side by side the sum."""
        return sum(seconds for seconds, _, _ in self.runs)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        begin = time.perf_counter()
        made = self.backend.run(feeds)
        seconds = time.perf_counter() - begin
        if "active" in feeds:
            self.runs.append((seconds, len(feeds["active"]), len(feeds["hidden"])))
        else:
            self.runs.append((seconds, len(feeds["input_ids"]), len(feeds["input_ids"])))
        return made

    def line(self) -> tuple[float, float]:
        """Seconds for each active and for each live token, neither below 0."""
        seconds, active, live = np.array(self.runs, dtype=np.float64).T
        both = np.stack((active, live), axis=1)
        slopes, _, rank, _ = np.linalg.lstsq(both, seconds, rcond=None)
        if rank < 2 or slopes.min() < 0:  # too few runs, or too noisy ones, to tell them apart
            whole = seconds.sum() / ((1 - HALTED) * active.sum() + HALTED * live.sum())
            return float(whole * (1 - HALTED)), float(whole * HALTED)
        return float(slopes[0]), float(slopes[1])

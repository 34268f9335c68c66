"""What is run when a classifier is measured: both tiers on one batch, with the times of all their parts.

It leaves to others: over which batches, how often, and what follows from it (`measuring`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from cascade.batch import Batch, BoolArray, FloatArray, IntArray, cumulated
from cascade.batching import FixedSize
from cascade.calibration.timing import Timed
from cascade.exits import ExitPolicy, ExitState, never
from cascade.routing import RoutingState
from cascade.tiers import MultiExit, Progress, Scores, SingleExit

__all__ = ["MOST_STOPPED", "SHORTEST", "Clock", "Ready", "Trial", "every_second", "rows_of", "text_of"]

MOST_STOPPED = 1024  # tokens: on larger batches stops are not timed, what they cost grows evenly
SHORTEST = 1e-9  # seconds: a difference of two times may come out below 0
SENTENCE = "a gripping film and not one minute too long though its quiet second half asks for some patience"

Clock: TypeAlias = Callable[[], float]


@dataclass(frozen=True, eq=False)
class Trial:
    """Both tiers for one thread, in a form in which they take one batch at a time and note what takes how long."""

    tier1: SingleExit
    tier2: MultiExit
    embed: Timed
    stages: list[Timed]

    @classmethod
    def of(cls, tier1: SingleExit, tier2: MultiExit, clock: Clock) -> Trial:
        embed, stages = Timed(tier2.embed, clock=clock), [Timed(stage, clock=clock) for stage in tier2.stages]
        whole = FixedSize(1 << 30)
        second = replace(tier2, embed=embed, stages=stages, batching=whole, threads=1)
        return cls(replace(tier1, batching=whole, threads=1), second, embed, stages)

    def run(self, batch: Batch, clock: Clock) -> dict[str, float]:
        """Seconds by part; `never` and `leaving`: of all that is around the graphs without and with stops."""
        begin = clock()
        self.tier1.score(batch)
        found = {"tier1": clock() - begin}
        if batch.tokens <= MOST_STOPPED:
            found["leaving"], _ = self._around(_one_leaves, batch, clock)
        found["never"], graphs = self._around(never, batch, clock)
        return {**found, **graphs}

    def _around(self, policy: ExitPolicy, batch: Batch, clock: Clock) -> tuple[float, dict[str, float]]:
        for timed in (self.embed, *self.stages):
            timed.runs.clear()
        tier2 = replace(self.tier2, exit_policy=policy)
        begin = clock()
        tier2.score(batch)
        total = clock() - begin
        graphs = {"embed": self.embed.seconds, **{f"stage {n}": s.seconds for n, s in enumerate(self.stages)}}
        return max(total - sum(graphs.values()), SHORTEST), graphs


@dataclass(frozen=True)
class Ready:
    """A tier that has its answers already."""

    labels: int

    def score(self, batch: Batch, *, prior: FloatArray | None = None, progress: Progress | None = None) -> Scores:
        """Of no interest."""
        answers = np.full((len(batch), self.labels), 0.5, dtype=np.float32)
        return Scores(answers, answers[:, 0], np.zeros(len(batch), dtype=np.int64))


def every_second(state: RoutingState) -> BoolArray:
    """A router."""
    deferred: BoolArray = np.arange(len(state.confidence)) % 2 == 0
    return deferred


def _one_leaves(state: ExitState) -> BoolArray:
    """So that the others are packed anew, and hardly fewer than before."""
    gone = np.zeros(len(state.probabilities), dtype=np.bool_)
    gone[: len(gone) > 1] = True
    return gone


def rows_of(ids: IntArray, rows: int, tokens: int) -> Batch:
    """Rows of equally many tokens, of these ids again and again."""
    lengths = np.full(rows, tokens, dtype=np.int64)
    return Batch(np.resize(ids, rows * tokens), np.zeros(rows * tokens, dtype=np.int64), cumulated(lengths))


def text_of(words: int, start: int) -> str:
    """So many words, beginning with a different one for each `start`."""
    known = SENTENCE.split()
    return " ".join(known[(start + number) % len(known)] for number in range(words))

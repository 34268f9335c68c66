"""A plan: how a workload is best cut into batches on one host, what that takes, and whether a cascade pays at all.

A plan never changes an answer, only how fast it comes: budgets, waves, buffers. Whether to run tier 2 alone, which
would change answers, it says and does not do. It leaves to others: making one (`planner`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from cascade.batching import BatchingPolicy
from cascade.streaming import StreamOptions

__all__ = ["TOGETHER", "Plan", "Seconds", "Stop", "Verdict", "judge"]

TOGETHER = 16
"""Batches of a wave, where no plan says otherwise (`Staged.together`)."""


class Verdict(Enum):
    """Which way to run a bundle is predicted to be fastest."""

    CASCADE = "cascade"
    EXITS = "tier 2 with exits"
    FULL = "tier 2 at full depth"


@dataclass(frozen=True)
class Seconds:
    """What a workload is predicted to take, by part; `call`: routing, merging, naming."""

    tokenize: float
    tier1: float
    tier2: float
    call: float

    @property
    def total(self) -> float:
        """Of all parts."""
        return self.tokenize + self.tier1 + self.tier2 + self.call


@dataclass(frozen=True)
class Stop:
    """An exit of tier 2, as a place at which the rows that go on are packed anew.

    Attributes:
        layer: of the exit.
        leaving: share of the rows there that leave.
        costs: seconds of asking and packing, of a full batch.
        saves: seconds of the next stage that those who leave would have taken.
    """

    layer: int
    leaving: float
    costs: float
    saves: float

    @property
    def pays(self) -> bool:
        """Whether it saves more than it costs."""
        return self.saves > self.costs


@dataclass(frozen=True)
class Plan:
    """How to run a workload. `Classifier.with_plan` runs by it.

    Attributes:
        tier1, tier2: how rows are cut into batches.
        together: batches of tier 2 that are under way together, so that what remains of them can be merged.
        pool_from: of tier 1 and of tier 2, tokens from which a batch that runs alone gets all threads.
        stream: how much `stream` holds back.
        predicted: of the workload, run like this.
        default: of the workload, run without a plan.
        exits: of tier 2 alone with its exits, run like this.
        full: of tier 2 alone at full depth, run like this.
        merging_saves: seconds of `predicted` that merging what remains of batches spares.
        stops: tier 2's exits but the last.
        verdict: which of the three is fastest.
        reason: why, in a sentence.
        error: relative; the fit's own at batches that it had not seen.
    """

    tier1: BatchingPolicy
    tier2: BatchingPolicy
    together: int
    pool_from: tuple[int, int]
    stream: StreamOptions
    predicted: Seconds = field(kw_only=True)
    default: Seconds = field(kw_only=True)
    exits: Seconds = field(kw_only=True)
    full: Seconds = field(kw_only=True)
    merging_saves: float = field(kw_only=True)
    stops: tuple[Stop, ...] = field(kw_only=True)
    verdict: Verdict = field(kw_only=True)
    reason: str = field(kw_only=True)
    error: float = field(kw_only=True)

    @property
    def pays(self) -> bool:
        """Whether the cascade is faster than tier 2 alone, with exits or without."""
        return self.verdict is Verdict.CASCADE

    @property
    def is_default(self) -> bool:
        """Whether nothing would run otherwise than without a plan."""
        return self.predicted == self.default


def judge(cascade: Seconds, exits: Seconds, full: Seconds, *, share: float) -> tuple[Verdict, str]:
    """Which way is fastest, and why. `share`: of the rows that tier 1 defers."""
    by_verdict = {Verdict.CASCADE: cascade, Verdict.EXITS: exits, Verdict.FULL: full}
    best = min(by_verdict, key=lambda verdict: by_verdict[verdict].total)
    said = ", ".join(f"{verdict.value} {seconds.total:.3g} s" for verdict, seconds in by_verdict.items())
    if best is Verdict.CASCADE:
        other = min(exits.total, full.total)
        return (
            best,
            f"the cascade is predicted to be {other / cascade.total:.2f} times as fast as tier 2 alone ({said})",
        )
    return best, (
        f"a cascade does not pay here: tier 1 takes {cascade.tier1:.3g} s and still defers {share:.0%} of the rows "
        f"({said}); use with_router(defer_all)"
    )

"""Estimated seconds tied to a few settings that really ran.

Costs per token know nothing of calls, of batches that get smaller and of what a call of `predict` does around the
tiers. So seven settings run end to end: tier 2 at full depth, tier 1 alone, and cascades from light to heavy. Fixed
depths are scaled like the first; cascades begin where tier 1 alone ends, and their second tier takes what those around
it took, interpolated: a small one is dearer per token than a large one. What comes out are estimates still, and say so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cascade.policies.routing import defer_all
from cascade_bench.plane import Estimate, Setting, Sweep

__all__ = ["Anchors", "anchored"]

TURNS = 3  # of each; the fastest run counts
SHARES = (0.02, 0.06, 0.15, 0.3, 0.5)  # seconds of tier 2 in the cascades, as shares of full depth

Run = Callable[[Setting], float]


@dataclass(frozen=True)
class Anchors:
    """How estimates become those of end-to-end runs.

    Attributes:
        full: seconds of tier 2 at full depth, over those estimated.
        first: seconds of tier 1 alone.
        guess: those estimated.
        guesses: seconds that were estimated for the second tiers of the cascades, rising, above 0.
        taken: those that they took, never falling.
    """

    full: float
    first: float
    guess: float
    guesses: tuple[float, ...]
    taken: tuple[float, ...]

    def seconds(self, point: Estimate) -> float:
        """Of a place, as it would be run."""
        if point.kind in {"full", "cut"}:
            return point.seconds * self.full
        if point.kind != "setting":
            return self.first + (point.seconds - self.guess) * self.full
        assert point.setting is not None  # noqa: S101  # only bounds have none
        if point.setting.router == defer_all:
            return self.second(point.seconds)
        return self.first + self.second(max(point.seconds - self.guess, 0.0))

    def second(self, guess: float) -> float:
        """Of a second tier. Beyond the first and the last cascade it is as much dearer than estimated as theirs."""
        if not self.guesses:
            return guess * self.full
        if guess <= self.guesses[0]:
            return guess * self.taken[0] / self.guesses[0]
        if guess >= self.guesses[-1]:
            return guess * self.taken[-1] / self.guesses[-1]
        return float(np.interp(guess, self.guesses, self.taken))


def anchored(sweep: Sweep, run: Run) -> Sweep:
    """Run the anchors of one batching policy and place everything anew.

    Args:
        sweep: as costs per token place it.
        run: seconds of one pass over the data with a setting.
    """
    full = next(point for point in sweep.points if point.kind == "full")
    first = next(point for point in sweep.points if point.kind == "tier1")
    cascades = [point for point in sweep.points if point.kind == "setting" and not _alone(point)]
    wanted = [first.seconds + share * full.seconds for share in SHARES] if cascades else []
    some = {point.seconds: point for point in (_nearest(cascades, seconds) for seconds in wanted)}
    some = {seconds: point for seconds, point in sorted(some.items()) if seconds > first.seconds}
    settings = [point.setting for point in (full, first, *some.values()) if point.setting is not None]
    turns = [[run(setting) for setting in settings] for _ in range(TURNS)]
    taken = [min(runs) for runs in zip(*turns, strict=True)]
    guesses = np.array([seconds - first.seconds for seconds in some])
    scale = taken[0] / full.seconds
    more = np.array(taken[2:]) - taken[1]
    # Where noise says that a second tier costs nothing, it costs what was estimated; a larger one costs no less.
    more = np.maximum.accumulate(np.where(more > 0, more, guesses * scale))
    anchors = Anchors(scale, taken[1], first.seconds, tuple(guesses.tolist()), tuple(more.tolist()))

    def moved(point: Estimate) -> Estimate:
        seconds = anchors.seconds(point)
        return replace(point, seconds=seconds, speed_up=taken[0] / seconds)

    return replace(
        sweep,
        points=tuple(map(moved, sweep.points)),
        oracle=moved(sweep.oracle),
        random=tuple(map(moved, sweep.random)),
    )


def _alone(point: Estimate) -> bool:
    return point.setting is None or point.setting.router == defer_all


def _nearest(points: Sequence[Estimate], seconds: float) -> Estimate:
    return min(points, key=lambda point: abs(point.seconds - seconds))

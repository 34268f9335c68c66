"""Estimated seconds tied to a few settings that really ran.

Costs per token know nothing of calls, of batches that get smaller and of what a call of `predict` does around the
tiers. So four settings run end to end: tier 2 at full depth, tier 1 alone, a light and a heavy cascade. Fixed depths
are scaled like the first; cascades begin where tier 1 alone ends, and their second tier takes `call + rate * estimate`,
the line through the two cascades. What comes out are estimates still, and say so.

It leaves to others: placing settings (`sweep`), timing what is published (`curve`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cascade.routing import defer_all
from cascade_bench.plane import Estimate, Setting, Sweep

__all__ = ["Anchors", "anchored"]

TURNS = 3  # of each; the fastest run counts
LIGHT, HEAVY = 0.08, 0.45  # seconds of tier 2 in the two cascades, as shares of full depth

Run = Callable[[Setting], float]


@dataclass(frozen=True)
class Anchors:
    """How estimates become those of end-to-end runs.

    Attributes:
        full: seconds of tier 2 at full depth, over those estimated.
        first: seconds of tier 1 alone.
        guess: those estimated.
        call: seconds that any second tier of a cascade takes beyond those estimated.
        rate: its seconds for each one estimated.
    """

    full: float
    first: float
    guess: float
    call: float
    rate: float

    def seconds(self, point: Estimate) -> float:
        """Of a place, as it would be run."""
        if point.kind in {"full", "cut"}:
            return point.seconds * self.full
        if point.kind != "setting":
            return self.first + (point.seconds - self.guess) * self.full
        assert point.setting is not None  # noqa: S101  # only bounds have none
        if point.setting.router == defer_all:
            return self.call + self.rate * point.seconds
        return self.first + self.call + self.rate * max(point.seconds - self.guess, 0.0)


def anchored(sweep: Sweep, run: Run) -> Sweep:
    """Run the anchors of one batching policy and place everything anew.

    Args:
        sweep: as costs per token place it.
        run: seconds of one pass over the data with a setting.
    """
    full = next(point for point in sweep.points if point.kind == "full")
    first = next(point for point in sweep.points if point.kind == "tier1")
    cascades = [point for point in sweep.points if point.kind == "setting" and not _alone(point)]
    some = [_nearest(cascades, first.seconds + share * full.seconds) for share in (LIGHT, HEAVY)] if cascades else []
    settings = [point.setting for point in (full, first, *some) if point.setting is not None]
    turns = [[run(setting) for setting in settings] for _ in range(TURNS)]
    taken = [min(runs) for runs in zip(*turns, strict=True)]
    call, rate = _line([point.seconds - first.seconds for point in some], [one - taken[1] for one in taken[2:]])
    anchors = Anchors(taken[0] / full.seconds, taken[1], first.seconds, call, rate)

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


def _line(guesses: Sequence[float], seconds: Sequence[float]) -> tuple[float, float]:
    """Through both points, or through zero where that would promise a second tier that costs nothing."""
    if not guesses or sum(guesses) <= 0 or sum(seconds) <= 0:
        return 0.0, 1.0
    wide = guesses[1] - guesses[0]
    rate = (seconds[1] - seconds[0]) / wide if wide > 0 else 0.0
    call = seconds[0] - rate * guesses[0]
    return (call, rate) if rate > 0 and call >= 0 else (0.0, sum(seconds) / sum(guesses))

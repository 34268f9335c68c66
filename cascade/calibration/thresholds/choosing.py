"""Which of a tagger's replayed points to take: the cheapest ones are run, until some keep the bound.

A replay is near, not exact (`leaving`); a point that loses more than was allowed is stepped back from. The choice is
empirical: it meets the bound on these sentences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cascade.calibration.thresholds.points import Point
from cascade.core.checks import check_share

__all__ = ["Tried", "choose_words"]

TRIES = 16
ENOUGH = 5


@dataclass(frozen=True)
class Tried:
    """A point that was run.

    Attributes:
        point: which.
        score: what was measured: the accuracy, or what else the caller bounds.
        seconds: of the run.
        within: whether the score keeps the bound.
    """

    point: Point
    score: float
    seconds: float
    within: bool


def choose_words(
    points: Sequence[Point],
    run: Callable[[Point], tuple[float, float]],
    *,
    full: float,
    max_drop: float,
    tries: int = TRIES,
    enough: int = ENOUGH,
) -> list[Tried]:
    """Run the cheapest points until some keep the bound.

    A point that loses more than was allowed makes the replay's drop count for as much less from then on: what halted
    words do to the others is not in it.

    Args:
        points: of `replay_words`.
        run: what a point scores on the examples, and how many seconds that took.
        full: what tier 2 at full depth scores.
        max_drop: how much less is allowed.
        tries: points that are run at most.
        enough: points that have to keep the bound; of one router, windows and blend only one is looked for.

    Returns:
        Those that were run, in order; the fastest one within the bound is `min(..., key=seconds)` of them. May be none.
    """
    check_share("max_drop", max_drop, "0.005 is half a point")
    allowed, tried = max_drop, list[Tried]()
    done: set[tuple[str, str, float]] = set()
    waiting = sorted(points, key=lambda point: (point.cost, -point.accuracy))
    while len(tried) < tries and sum(one.within for one in tried) < enough:
        fits = (point for point in waiting if point.drop <= allowed + 1e-9 and _kind(point) not in done)
        point = next(fits, None)
        if point is None:
            break
        waiting.remove(point)
        score, seconds = run(point)
        missing = full - max_drop - score
        tried.append(Tried(point, score, seconds, missing <= 1e-9))
        if missing <= 1e-9:
            done.add(_kind(point))
        else:
            bound = min(allowed, point.drop)
            # Never more than half at once: a score of another kind, such as F1, may fall several times as fast.
            allowed = bound - (min(missing, bound / 2) if bound > 0 else missing)
    return tried


def _kind(point: Point) -> tuple[str, str, float]:
    return repr(point.router), repr(point.windows), point.blend

"""Operating points: policies, and what they did on examples; which of a tagger's to take.

A tagger's replay is near, not exact (`leaving`), so the cheapest points are run until some keep the bound; a point that
loses more than was allowed is stepped back from. The choice is empirical: it meets the bound on these sentences.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cascade.policies.settings import Policies

TRIES = 16
ENOUGH = 5


@dataclass(frozen=True, kw_only=True)
class Point:
    """Policies, and what they did in a replay, NaN where that is not known.

    `accuracy`: of texts or words; `drop`: of the last tier at full depth less this one; `deferred`: share that another
    tier than the first answers; `mean_layer`: of what the last one answers, 0 of none; `cost`: relative to the last
    tier at full depth, no other being run.
    """

    policies: Policies
    accuracy: float = math.nan
    drop: float = math.nan
    deferred: float = math.nan
    mean_layer: float = math.nan
    cost: float = math.nan

    @property
    def predicted_speed_up(self) -> float:
        """Over the last tier at full depth; infinite where nothing is paid."""
        return 1 / self.cost if self.cost else math.inf


def front(points: Iterable[Point]) -> list[Point]:
    """The points that no other beats in both accuracy and cost, cheapest first (the Pareto front)."""
    found: list[Point] = []
    for point in sorted(points, key=lambda point: (point.cost, point.drop)):
        if not found or point.drop < found[-1].drop:
            found.append(point)
    return found


@dataclass(frozen=True)
class Tried:
    """A point that was run: its accuracy (or what else is bounded), seconds, and whether it keeps the bound."""

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
    """Run the cheapest points until `enough` keep the bound, at most `tries`; those that were run, in order.

    A point that loses more than was allowed makes the replay's drop count for as much less from then on: what halted
    words do to the others is not in it. Of one router, windows and blend only one point is looked for.

    `run`: what a point scores, and how many seconds that took; `full`: what tier 2 at full depth scores; `max_drop`:
    how much less is allowed.
    """
    allowed, tried = max_drop, list[Tried]()
    done: set[str] = set()
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


def _kind(point: Point) -> str:
    own = point.policies
    return repr((own.routers, own.windows, own.blend))

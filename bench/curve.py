"""The curve of a bundle: points of the front and fixed depths really timed, in turns, beside what was estimated.

A speed-up with an interval is a ratio of seconds that were measured within the same repeat; everything else is an
estimate and says so.
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from statistics import median

from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger
from cascade.policies.routing import defer_all
from cascade_bench.contenders import FULL, Contender
from cascade_bench.contenders import runner as text_runner
from cascade_bench.curve_data import Given
from cascade_bench.plane import Axes, Estimate, Sweep, configured, front
from cascade_bench.sweep import sweep
from cascade_bench.table import Row, Table, measure
from cascade_bench.taggers import runner as word_runner

__all__ = ["Curve", "Timed", "curve", "spread"]


@dataclass(frozen=True)
class Timed:
    """A setting that really ran.

    Attributes:
        row: what was measured.
        estimate: where the replay had placed it.
        letter: what it is called in the figure; empty for fixed settings.
        ahead: no other timed setting is both faster and at least as accurate.
    """

    row: Row
    estimate: Estimate
    letter: str
    ahead: bool

    @property
    def error(self) -> float:
        """How far the estimated speed-up is off: 0.1 where it is a tenth too high."""
        return self.estimate.speed_up / self.row.over_full.median - 1


@dataclass(frozen=True, eq=False)
class Curve:
    """What was placed and what was timed.

    Attributes:
        given: the data.
        sweep: all places, estimated.
        table: all measurements.
        timed: in the order of the table.
    """

    given: Given
    sweep: Sweep
    table: Table
    timed: tuple[Timed, ...]

    @property
    def errors(self) -> tuple[float, float]:
        """Median and largest error of estimated speed-ups, without signs; of tier 2 at full depth there is none."""
        found = [abs(one.error) for one in self.timed if one.row.key != FULL]
        return median(found), max(found)


def curve(
    model: Classifier | Tagger,
    given: Given,
    *,
    axes: Axes,
    count: int,
    repeats: int,
    like: Collection[str] | None = None,
    progress: Callable[[str], object] | None = None,
) -> Curve:
    """Place all settings, then time tier 2 whole and cut, tier 1, and some points of the front.

    Args:
        model: the bundle.
        given: what it answers.
        axes: which settings are placed.
        count: points of the front that are timed at most.
        repeats: see `interleaving.interleave`.
        like: settings that are timed instead of points of the front, as `str` says them; those of another sweep are
            passed over.
        progress: called with what runs now.
    """
    placed = sweep(model, given.data, axes, progress=progress)
    if like is None:
        chosen = spread([point for point in front(placed.points) if point.kind == "setting"], count)
    else:
        chosen = [point for point in placed.points if point.kind == "setting" and str(point.setting) in like]
        chosen.sort(key=lambda point: point.seconds)
    base = [point for point in placed.fixed if point.setting is not None and point.setting.batching == axes.batching[0]]
    keys = [*map(_key, base), *(str(point.setting) for point in chosen)]
    letters = ["" for _ in base] + [_letter(number) for number in range(len(chosen))]
    unique = dict(zip(keys, zip([*base, *chosen], letters, strict=True), strict=True))
    who = [_contender(model, key, point, letter) for key, (point, letter) in unique.items()]
    table = measure(who, given.data, repeats=repeats, progress=progress)
    timed = []
    for row in table.rows:
        point, letter = unique[row.key]
        timed.append(Timed(row, point, letter, _ahead(row, table.rows)))
    return Curve(given, placed, table, tuple(timed))


def spread(points: Sequence[Estimate], count: int) -> list[Estimate]:
    """At most so many points, far from each other in the plane, in order: both ends first, then what is farthest."""
    if len(points) <= count:
        return list(points)
    places = _scaled(points)
    taken = [len(points) - 1, 0][:count]
    while len(taken) < count:
        gaps = [min(math.dist(place, places[other]) for other in taken) for place in places]
        taken.append(max(range(len(points)), key=gaps.__getitem__))
    return [points[number] for number in sorted(taken)]


def _scaled(points: Sequence[Estimate]) -> list[tuple[float, float]]:
    """Both axes from 0 to 1; seconds as logarithms, as they are drawn."""
    across, up = [math.log(point.seconds) for point in points], [point.accuracy for point in points]
    wide, high = max(across) - min(across) or 1.0, max(up) - min(up) or 1.0
    return [((x - min(across)) / wide, (y - min(up)) / high) for x, y in zip(across, up, strict=True)]


def _key(point: Estimate) -> str:
    return f"cut-{point.mean_layer:.0f}" if point.kind == "cut" else point.kind


def _letter(number: int) -> str:
    """A to Z, then A1, B1 and so on."""
    turn, place = divmod(number, len(string.ascii_uppercase))
    return string.ascii_uppercase[place] + (str(turn) if turn else "")


def _contender(model: Classifier | Tagger, key: str, point: Estimate, letter: str) -> Contender:
    assert point.setting is not None  # noqa: S101  # only bounds have none, and they cannot run
    made = configured(model, point.setting)
    run = word_runner(made) if isinstance(made, Tagger) else text_runner(made)
    cut = int(point.mean_layer) if point.kind in {"full", "cut"} else None
    adaptive = "tier 2 with exits" if point.setting.router == defer_all else "cascade"
    name = {
        "full": "tier 2, full depth",
        "cut": f"tier 2 cut after layer {point.mean_layer:.0f}",
        "tier1": "tier 1 alone",
    }.get(point.kind, f"{letter}: {adaptive}")
    return Contender(key, name, run, cut)


def _ahead(row: Row, rows: Sequence[Row]) -> bool:
    mine = row.over_full.median, row.accuracy
    return not any(
        (other.over_full.median, other.accuracy) != mine
        and other.over_full.median >= mine[0]
        and other.accuracy >= mine[1]
        for other in rows
    )

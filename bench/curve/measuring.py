"""The run of a curve: every candidate once, then some of the front in turns with fixed depths, tier 1 and the bundle.

Accuracies are of real runs. Seconds of the single passes only choose; speed-ups come from the turns.
"""

from __future__ import annotations

import string
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from cascade_bench.curve.settings import Setting, Tried, candidates, front, spread
from cascade_bench.systems.local import Model, System, answered, systems
from cascade_bench.table.data import Data
from cascade_bench.table.measuring import Row, Table, measure
from cascade_bench.timing.interleaving import Clock, Progress, quiet


@dataclass(frozen=True)
class Timed:
    """A line of the table; fixed depths, tier 1 and the bundle as configured have neither setting nor letter.

    `ahead`: no other line is at least as fast and at least as accurate, and better in one of them.
    """

    row: Row
    setting: Setting | None
    letter: str
    ahead: bool


@dataclass(frozen=True, eq=False)
class Curve:
    """What was tried once, and what was timed in turns, in the order of the table."""

    tried: tuple[Tried, ...]
    table: Table
    timed: tuple[Timed, ...]


def curve(
    model: Model,
    data: Data,
    *,
    deferrals: int = 8,
    exits: int = 4,
    points: int = 6,
    repeats: int = 7,
    progress: Progress = quiet,
    clock: Clock = time.perf_counter,
) -> Curve:
    """Try all candidates once, then time at most `points` of their front."""
    tried = []
    for setting in candidates(model, data.items, deferrals=deferrals, exits=exits):
        progress(f"trying {setting}")
        made = setting.of(model)
        begin = clock()
        labels = answered(made, data.items).labels
        tried.append(Tried(setting, data.accuracy(labels), clock() - begin))
    best = spread(front(tried), points)
    named = {str(one.setting): (_letter(number), one.setting) for number, one in enumerate(best)}
    fixed = [system for system in systems(model) if system.key != "exits"]
    chosen = [
        System(key, f"{letter}: {key}", partial(answered, setting.of(model)))
        for key, (letter, setting) in named.items()
    ]
    table = measure([*fixed, *chosen], data, repeats=repeats, progress=progress, clock=clock)
    timed = []
    for row in table.rows:
        letter, found = named.get(row.key, ("", None))
        timed.append(Timed(row, found, letter, _ahead(row, table.rows)))
    return Curve(tuple(tried), table, tuple(timed))


def _letter(number: int) -> str:
    """A to Z, then A1, B1 and so on."""
    turn, place = divmod(number, len(string.ascii_uppercase))
    return string.ascii_uppercase[place] + (str(turn) if turn else "")


def _ahead(row: Row, rows: Sequence[Row]) -> bool:
    mine = row.over_full.median, row.accuracy
    others = [(other.over_full.median, other.accuracy) for other in rows]
    return not any(other != mine and other[0] >= mine[0] and other[1] >= mine[1] for other in others)

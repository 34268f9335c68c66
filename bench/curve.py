"""`cascade-bench curve`: every candidate setting runs once, then some of the front in turns with fixed depths.

Accuracies are of real runs. Seconds of the single passes only choose; speed-ups come from the turns.
"""

from __future__ import annotations

import importlib
import math
import string
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np

from cascade.core.files import check_output
from cascade.pipelines.tagger import Tagger
from cascade.policies.exits import ExitPolicy, MaxProbability, never
from cascade.policies.routing import Router, Threshold, defer_all
from cascade.policies.unit_exits import TokenExit
from cascade_bench.options import FILE, Asked, count_option, labelled_file_options
from cascade_bench.systems.local import Model, System, answered, confidence, systems
from cascade_bench.table.data import Data
from cascade_bench.table.measuring import Row, Table, measure
from cascade_bench.table.showing import cells, entries
from cascade_bench.timing import machine
from cascade_bench.timing.interleaving import Clock, Progress, quiet
from cascade_bench.timing.report import bar, grid, write_json

LEAST, MOST = 0.02, 0.7  # shares of the units that candidates defer
SUREST, LOOSEST = 0.005, 0.6  # doubt that candidates let pass at an exit


@click.command(short_help="Accuracy over speed: settings tried once, those on the front timed beside fixed depths.")
@labelled_file_options
@count_option("--deferrals", 8, "Thresholds of tier 1; of tier 2 of three half as many, and so on.")
@count_option("--exits", 4, "Of all exits.")
@count_option("--points", 6, "Of the front, timed.")
@click.option("--png", "png_file", type=FILE, metavar="FILE", help="Draw it (extra: bench).")
def curve(asked: Asked, *, deferrals: int, exits: int, points: int, png_file: Path | None) -> None:
    """Sweep deferral and exit thresholds: what each setting is right about, and how fast the best of them are.

    MODEL is a folder or a Hub id, of a classifier or a tagger. Every choice of thresholds runs once. Some settings of
    the front, the last tier whole and cut after each exit, every tier alone, of more than two every pair, and the
    bundle as configured are then timed in turns. Without labels, agreement with full depth takes the place of accuracy.

    \b
    Example:
      cascade-bench curve models/sentiment --data dev.jsonl --threads 2
      cascade-bench curve models/sentiment --data dev.jsonl --json curve.json --png curve.png
    """
    check_output("--png", png_file, asked.file)
    # It guards its own door, before minutes of work.
    plot = None if png_file is None else importlib.import_module("cascade_bench.plot")
    pipeline, data, before, _ = asked.open()
    with bar() as step:
        found = sweep(
            pipeline, data, deferrals=deferrals, exits=exits, points=points, repeats=asked.repeats, progress=step
        )
    head, lines = cells(found.table)
    marks = ("*" if row.key in found.ahead else "" for row in found.table.rows)
    shown = grid(["front", *head], [[mark, *line] for mark, line in zip(marks, lines, strict=True)], left=2)
    click.echo("\n".join([shown, "", *data.notes, *_method(found), machine.in_words(before)]))
    write_json(asked.json_file, before, entries(found.table), details=asked.details, notes=data.notes)
    if plot is not None:
        plot.write_png(found, png_file)


def _method(made: Curve) -> list[str]:
    table = made.table
    timed = (
        f"{len(table.data)} {table.data.unit}, end to end with tokenisation, {len(table.turns.orders)} interleaved "
        "repeats; a speed-up is the median of ratios of seconds within a repeat, over full depth, in "
        "brackets its 95 % interval (another coverage is named). *: nothing else is both faster and as good."
    )
    return [timed, f"Lettered settings: of the front of {len(made.tried)} that ran once, chosen on these rows."]


@dataclass(frozen=True)
class Tried:
    """A setting that ran once: accuracy in [0, 1], and the seconds of that pass, good enough to choose by."""

    system: System
    accuracy: float
    seconds: float


def candidates(model: Model, items: Sequence[Any], *, deferrals: int, exits: int) -> list[System]:
    """Settings to try: all thresholds of the tiers with every threshold of the exits, with `never`, and exits alone.

    Tiers answer once each, so that at most `deferrals` thresholds of tier 1 would defer shares from 2 to 70 % of all
    units, in equal ratios; of tier 2 of three half as many and `defer_all`, and so on. Windows and all else are the
    bundle's own.
    """
    shares, count = np.geomspace(LEAST, MOST, deferrals), len(model.tiers)
    routers: list[list[Router]] = []
    for tier in range(1, count):
        thresholds = np.quantile(confidence(model, items, tier), shares[::tier]).round(4).tolist()
        routers.append([*map(Threshold, dict.fromkeys(thresholds)), *[defer_all] * (tier > 1)])
    doubts = np.geomspace(SUREST, LOOSEST, exits).round(4).tolist()
    policies: list[ExitPolicy] = [TokenExit(doubt) for doubt in doubts]
    if not isinstance(model, Tagger):
        policies = [MaxProbability(round(1 - doubt, 4)) for doubt in doubts]
    some = policies if any(tier.layers for tier in model.infos) else []
    ways: list[tuple[tuple[Router, ...], ExitPolicy]] = list(product(product(*routers), [*some, never]))
    ways += [((defer_all,) * (count - 1), policy) for policy in some]
    made = []
    for own, policy in ways:
        exits_of: list[ExitPolicy] = [policy if tier.layers else never for tier in model.infos]
        run = model.with_policies(model.policies.with_(routers=own, exits=exits_of))
        name = ", ".join(map(repr, (*own, policy)))
        made.append(System(name, name, partial(answered, run)))
    return made


def front(points: Iterable[Tried]) -> list[Tried]:
    """Those that no other beats in both accuracy and seconds, fastest first (the Pareto front)."""
    found: list[Tried] = []
    for point in sorted(points, key=lambda point: (point.seconds, -point.accuracy)):
        if not found or point.accuracy > found[-1].accuracy:
            found.append(point)
    return found


def spread(points: Sequence[Tried], count: int) -> list[Tried]:
    """At most so many points, far from each other, in order: both ends first, then the farthest from those taken."""
    if len(points) <= count:
        return list(points)
    across, up = [math.log(point.seconds) for point in points], [point.accuracy for point in points]
    wide, high = max(across) - min(across) or 1.0, max(up) - min(up) or 1.0
    places = [(x / wide, y / high) for x, y in zip(across, up, strict=True)]
    taken = [len(points) - 1, 0][:count]
    while len(taken) < count:
        gaps = [min(math.dist(place, places[other]) for other in taken) for place in places]
        taken.append(max(range(len(points)), key=gaps.__getitem__))
    return [points[number] for number in sorted(taken)]


@dataclass(frozen=True, eq=False)
class Curve:
    """What was tried once, and what was timed in turns; settings of the front have a letter in their names.

    `ahead`: keys of the lines that no other beats: at least as fast and as accurate, and better in one of them.
    """

    tried: tuple[Tried, ...]
    table: Table
    ahead: frozenset[str]


def sweep(
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
    for system in candidates(model, data.items, deferrals=deferrals, exits=exits):
        progress(f"trying {system.name}")
        begin = clock()
        labels = system.run(data.items).labels
        tried.append(Tried(system, data.accuracy(labels), clock() - begin))
    best = [one.system for one in spread(front(tried), points)]
    fixed = [system for system in systems(model) if system.key != "exits"]
    chosen = [replace(system, name=f"{_letter(number)}: {system.key}") for number, system in enumerate(best)]
    table = measure([*fixed, *chosen], data, repeats=repeats, progress=progress, clock=clock)
    return Curve(tuple(tried), table, frozenset(row.key for row in table.rows if _ahead(row, table.rows)))


def _letter(number: int) -> str:
    """A to Z, then A1, B1 and so on."""
    turn, place = divmod(number, len(string.ascii_uppercase))
    return string.ascii_uppercase[place] + (str(turn) if turn else "")


def _ahead(row: Row, rows: Sequence[Row]) -> bool:
    mine = row.speed, row.accuracy
    others = [(other.speed, other.accuracy) for other in rows]
    return not any(other != mine and other[0] >= mine[0] and other[1] >= mine[1] for other in others)

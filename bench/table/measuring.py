"""Accuracy beside seconds of every system, all measured in one interleaved run, as values and as text.

A table shows those of one set of columns that it can fill.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from cascade.core.rows import IntArray
from cascade.core.statistics import Interval, shown, speed_up
from cascade.exceptions import OptionError
from cascade_bench.systems.local import FULL, TRANSFORMERS, Answered, System
from cascade_bench.table.data import Data
from cascade_bench.timing.interleaving import PAUSE, Clock, Progress, interleave, quiet
from cascade_bench.timing.report import benchmark, grid


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of a table; `None`, or NaN, where something is not known of it.

    Attributes:
        key, name: for programs and readers.
        count: units that a pass answers; `seconds`: of it by repeat.
        over_full, over_pipeline: how many times as fast as the last tier at full depth, and as transformers' pipeline.
        accuracy, f1: in [0, 1], of units and of entities; `against_full`: accuracy less that of full depth.
        agreement: share of units with the answer of full depth; `unlike`: of texts or sentences with another answer
            than transformers' pipeline.
        cut: the layer, if this is the last tier ended there for every row.
        by_tier: share of the units that each tier answered, of a system with tiers; for `deferred` and `mean_layer` see
            `local.Answered`.
        order, batch: in which order a process is given the texts, and how many at once.
        percentiles: milliseconds that 50, 95 and 99 % of the texts did not exceed, one by one.
        peak_mib: the most memory that its process held in all.
    """

    key: str
    name: str
    count: int
    seconds: tuple[float, ...]
    over_full: Interval | None
    over_pipeline: Interval | None
    accuracy: float = math.nan
    against_full: float | None = None
    f1: float | None = None
    agreement: float | None = None
    unlike: float | None = None
    cut: int | None = None
    deferred: float | None = None
    by_tier: tuple[float, ...] | None = None
    mean_layer: float | None = None
    order: str = ""
    batch: int | None = None
    percentiles: tuple[float, ...] | None = None
    peak_mib: float | None = None

    @property
    def median_seconds(self) -> float:
        """Of one pass."""
        return median(self.seconds)

    @property
    def speed(self) -> float:
        """Over full depth: the median; NaN where that did not run."""
        return math.nan if self.over_full is None else self.over_full.median


@dataclass(frozen=True)
class Oracle:
    """Who asks the cheapest tier that is right, and no other: as good and as fast as routers can become.

    `accuracy`: share of the units of which some tier is right; `by_tier`: share that each tier answers; `over_full`:
    how many times as fast as full depth, by what each tier takes alone.
    """

    accuracy: float
    by_tier: tuple[float, ...]
    over_full: float


@dataclass(frozen=True)
class Table:
    """What was measured: rows, what was answered; of texts also the oracle.

    `absent`: by name, why others have no row.
    """

    rows: tuple[Row, ...]
    data: Data
    oracle: Oracle | None = None
    absent: Mapping[str, str] | None = None

    def row(self, key: str) -> Row:
        """The line of a system."""
        return next(row for row in self.rows if row.key == key)


def ratios(turns: Mapping[str, list[float]], name: str, full: str, pipeline: str) -> dict[str, Any]:
    """Seconds of a system as fields of a row. `full`, `pipeline`: names of what it is compared with, if they ran."""
    own = turns[name]
    over = (speed_up(turns[base], own) if base in turns else None for base in (full, pipeline))
    return dict(zip(("over_full", "over_pipeline"), over, strict=True), seconds=tuple(own))


def measure(
    systems: Sequence[System],
    data: Data,
    *,
    repeats: int = 7,
    progress: Progress = quiet,
    clock: Clock = time.perf_counter,
    pause: float = PAUSE,
) -> Table:
    """Run all systems on the same data: once each for warmth and accuracy, then in turns (`interleave`) for time.

    The first one must be the last tier at full depth; an `OptionError` otherwise.
    """
    if not systems or systems[0].key != FULL:
        raise OptionError("the first system must be full depth, got another; see systems.local.systems")
    answers: dict[str, Answered] = {}
    warm_up: dict[str, float] = {}
    for system in systems:
        progress(f"warm-up: {system.name}")
        begin = clock()
        answers[system.key] = system.run(data.items)
        warm_up[system.key] = clock() - begin
    names = {system.key: system.name for system in systems}
    turns = interleave(
        {system.key: partial(system.run, data.items) for system in systems},
        repeats=repeats,
        warm_up=warm_up,
        progress=lambda key: progress(names[key]),
        clock=clock,
        pause=pause,
    )
    accuracy = {key: data.accuracy(answer.labels) for key, answer in answers.items()}
    rows = [
        Row(
            key=system.key,
            name=system.name,
            count=len(data),
            cut=system.cut,
            accuracy=accuracy[system.key],
            against_full=accuracy[system.key] - accuracy[FULL],
            f1=data.f1(answers[system.key].labels),
            deferred=answers[system.key].deferred,
            by_tier=_shares(answers[system.key].tiers, systems[0].tier or 0),
            mean_layer=answers[system.key].mean_layer,
            **ratios(turns, system.key, FULL, TRANSFORMERS),
        )
        for system in systems
    ]
    return Table(tuple(rows), data, _oracle(systems, rows, answers, data))


def _oracle(
    systems: Sequence[System], rows: Sequence[Row], answers: Mapping[str, Answered], data: Data
) -> Oracle | None:
    """Of all tiers that ran alone; `None` of words, whose tiers read more than what they answer."""
    alone = sorted((system.tier, row) for system, row in zip(systems, rows, strict=True) if system.tier is not None)
    if len(alone) < 2 or data.words:
        return None
    right = np.array([data.same(answers[row.key].labels, data.right) for _, row in alone])
    shares = np.bincount(right.argmax(axis=0), minlength=len(alone)) / len(data)  # where none is right, the first
    seconds = np.array([row.median_seconds for _, row in alone])
    return Oracle(float(right.any(axis=0).mean()), tuple(shares.tolist()), float(seconds[-1] / (shares @ seconds)))


def _shares(tiers: IntArray | None, count: int) -> tuple[float, ...] | None:
    if tiers is None or not len(tiers):
        return None
    return tuple((np.bincount(tiers, minlength=count + 1)[1:] / len(tiers)).tolist())


def _columns(table: Table) -> dict[str, Callable[[Row], str]]:
    """What to show of a line, by heading."""
    unit, several = table.data.unit, any(len(row.by_tier or ()) > 2 for row in table.rows)
    return {
        "system": lambda row: row.name,
        "texts": lambda row: row.order,
        "batch": lambda row: _said(row.batch, "{}"),
        table.data.metric: lambda row: _said(row.accuracy, "{:.2%}"),
        "points": lambda row: "" if row.against_full is None else f"{100 * row.against_full:+.2f}",
        "entity F1": lambda row: _said(row.f1, "{:.2%}"),
        "as full tier 2": lambda row: _said(row.agreement, "{:.2%}"),
        "unlike pipeline": lambda row: _said(row.unlike, "{:.2%}"),
        "by tier, %": lambda row: " / ".join(f"{100 * share:.1f}" for share in (row.by_tier or ()) if several),
        "deferred": lambda row: _said(None if several else row.deferred, "{:.1%}"),
        "mean layer": lambda row: _said(row.mean_layer, "{:.2f}"),
        f"{unit}/s": lambda row: f"{row.count / row.median_seconds:,.0f}",
        "over full depth": lambda row: shown(row.over_full),
        "over pipeline": lambda row: shown(row.over_pipeline),
        "p50 / p95 / p99 ms": lambda row: " / ".join(f"{one:.2f}" for one in row.percentiles or ()),
        "peak MiB": lambda row: _said(row.peak_mib, "{:,.0f}"),
    }


def _said(value: Any, form: str) -> str:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else form.format(value)


def cells(table: Table) -> tuple[list[str], list[list[str]]]:
    """Head and lines; only the first column, and the texts' order behind it, hold words."""
    every = {head: [cell(row) for row in table.rows] for head, cell in _columns(table).items()}
    found = {head: own for head, own in every.items() if any(own) or head in ("system", table.data.metric)}
    return list(found), [list(line) for line in zip(*found.values(), strict=True)]


def entries(table: Table) -> list[dict[str, Any]]:
    """Its lines as benchmarks of a JSON file."""
    made = []
    for row in table.rows:
        known = {name: value for name, value in vars(row).items() if _said(value, "{}")}
        info = {name: value for name, value in known.items() if name not in ("key", "seconds")}
        made.append(benchmark(row.key, row.seconds, info))
    return made


def as_text(table: Table, notes: Sequence[str], method: Sequence[str], *, markdown: bool = False) -> str:
    """For terminals, or for README. `notes`: beside those of the data; `method`: how it was measured, and on what."""
    head, rows = cells(table)
    notes = [*table.data.notes, *notes]
    said = ["", *notes, *method] if not markdown else ["", " ".join(notes), "", " ".join(method)]
    return "\n".join([grid(head, rows, left=1 + ("texts" in head), markdown=markdown), *said])

"""Accuracy beside seconds of every system, all measured in one interleaved run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import numpy as np

from cascade.core.rows import IntArray
from cascade.core.statistics import Interval, speed_up
from cascade.exceptions import OptionError
from cascade_bench.systems.local import FULL, PIPELINE, Answered, System
from cascade_bench.table.data import Data
from cascade_bench.timing.interleaving import PAUSE, Clock, Interleaved, Progress, interleave, quiet


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a line of any table has: accuracy in [0, 1], seconds of one pass by repeat (`None` where it had no turn)."""

    accuracy: float
    seconds: tuple[float | None, ...]
    over_pipeline: Interval | None

    @property
    def median_seconds(self) -> float:
        """Of one pass over the data."""
        return median(value for value in self.seconds if value is not None)


@dataclass(frozen=True, kw_only=True)
class Row(Measured):
    """A line of the table of a bundle's systems.

    `cut`: the layer, if this is the last tier ended there for every row. `f1`: of entities. `by_tier`: share of the
    units that each tier answered, `None` of a system without tiers. The others: see `local.Answered`.
    """

    key: str
    name: str
    cut: int | None
    against_full: float
    deferred: float | None
    by_tier: tuple[float, ...] | None
    mean_layer: float | None
    over_full: Interval
    f1: float | None


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
    """What was measured: a row per system, what was answered, which system ran when; of texts also the oracle."""

    rows: tuple[Row, ...]
    data: Data
    turns: Interleaved
    oracle: Oracle | None = None

    def row(self, key: str) -> Row:
        """The line of a system."""
        return next(row for row in self.rows if row.key == key)


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
        raise OptionError(
            "the first system must be the last tier at full depth, got another; see systems.local.systems"
        )
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
    rows = []
    count = systems[0].tier or 0
    for system in systems:
        key, taken = system.key, turns.seconds[system.key]
        rows.append(
            Row(
                key=key,
                name=system.name,
                cut=system.cut,
                accuracy=accuracy[key],
                against_full=accuracy[key] - accuracy[FULL],
                deferred=answers[key].deferred,
                by_tier=_shares(answers[key].tiers, count),
                mean_layer=answers[key].mean_layer,
                seconds=tuple(taken),
                over_full=speed_up(turns.seconds[FULL], taken),
                over_pipeline=speed_up(turns.seconds[PIPELINE], taken) if PIPELINE in names else None,
                f1=data.f1(answers[key].labels),
            )
        )
    return Table(tuple(rows), data, turns, _oracle(systems, rows, answers, data))


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

"""Accuracy beside seconds of every system, all measured in one interleaved run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

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

    `cut`: the layer, if this is tier 2 ended there for every row. `f1`: of entities. The others: see `local.Answered`.
    """

    key: str
    name: str
    cut: int | None
    against_full: float
    deferred: float | None
    mean_layer: float | None
    over_full: Interval
    f1: float | None


@dataclass(frozen=True)
class Table:
    """What was measured: a row per system, what was answered, which system ran when."""

    rows: tuple[Row, ...]
    data: Data
    turns: Interleaved

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

    The first one must be tier 2 at full depth; an `OptionError` otherwise.
    """
    if not systems or systems[0].key != FULL:
        raise OptionError("the first system must be tier 2 at full depth, got another; see systems.local.systems")
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
    for system in systems:
        key, taken = system.key, turns.seconds[system.key]
        over_full = speed_up(turns.seconds[FULL], taken)
        if over_full is None:
            raise OptionError(f"{system.name} had no turn beside tier 2 at full depth; run more repeats")
        rows.append(
            Row(
                key=key,
                name=system.name,
                cut=system.cut,
                accuracy=accuracy[key],
                against_full=accuracy[key] - accuracy[FULL],
                deferred=answers[key].deferred,
                mean_layer=answers[key].mean_layer,
                seconds=tuple(taken),
                over_full=over_full,
                over_pipeline=speed_up(turns.seconds[PIPELINE], taken) if PIPELINE in names else None,
                f1=data.f1(answers[key].labels),
            )
        )
    return Table(tuple(rows), data, turns)

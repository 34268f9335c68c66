"""Accuracy beside seconds of every system, all measured in one interleaved run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from cascade.core.statistics import Interval, speed_up
from cascade.exceptions import OptionError
from cascade_bench.systems.local import FULL, PIPELINE, Answered, System
from cascade_bench.table.data import Data
from cascade_bench.timing.interleaving import PAUSE, Clock, Interleaved, Progress, interleave


@dataclass(frozen=True)
class Row:
    """A line of the table: seconds of one pass by repeat (`None` where it had no turn), accuracy in [0, 1].

    `cut`: the layer, if this is tier 2 ended there for every row. `f1`: of entities. The others: see `local.Answered`.
    """

    key: str
    name: str
    cut: int | None
    accuracy: float
    against_full: float
    deferred: float | None
    mean_layer: float | None
    seconds: tuple[float | None, ...]
    over_full: Interval
    over_pipeline: Interval | None = None
    f1: float | None = None

    @property
    def median_seconds(self) -> float:
        """Of one pass over the data."""
        return median(value for value in self.seconds if value is not None)


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
    progress: Progress | None = None,
    clock: Clock = time.perf_counter,
    pause: float = PAUSE,
) -> Table:
    """Run all systems on the same data: once each for warmth and accuracy, then in turns (`interleave`) for time.

    Raises:
        OptionError: the first system is not tier 2 at full depth.
    """
    if not systems or systems[0].key != FULL:
        raise OptionError("the first system must be tier 2 at full depth, got another; see systems.local.systems")
    say = progress or (lambda _name: None)
    answers: dict[str, Answered] = {}
    warm_up: dict[str, float] = {}
    for system in systems:
        say(f"warm-up: {system.name}")
        begin = clock()
        answers[system.key] = system.run(data.items)
        warm_up[system.key] = clock() - begin
    names = {system.key: system.name for system in systems}
    turns = interleave(
        {system.key: _bound(system, data) for system in systems},
        repeats=repeats,
        warm_up=warm_up,
        progress=lambda key: say(names[key]),
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


def _bound(system: System, data: Data) -> Callable[[], object]:
    return lambda: system.run(data.items)

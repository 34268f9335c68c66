"""The table: accuracy beside seconds for every contender, all measured in one interleaved run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Protocol

from cascade.exceptions import OptionError
from cascade_bench.contenders import FULL, PIPELINE, Answered, Contender
from cascade_bench.interleaving import Turns, interleave
from cascade_bench.statistics import Interval, speed_up

__all__ = ["Examples", "Row", "Table", "measure"]


class Examples(Protocol):
    """What contenders answer, and what is right about it: `data.Labelled`, `tag_data.Tagged`.

    Attributes:
        unit: what is counted, `texts` or `words`.
        inputs: what contenders are given.
    """

    @property
    def unit(self) -> str:
        """What is counted."""

    @property
    def inputs(self) -> Sequence[Any]:
        """Texts or sentences."""

    def __len__(self) -> int:
        """How many answers count."""

    def right(self, answers: Any) -> int:
        """How many of these answers are as labelled."""

    def f1(self, answers: Any) -> float | None:
        """Of entities; `None` where there are none."""


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        key, name: of the contender.
        cut: the layer, if this is tier 2 ended there for everyone.
        accuracy: in [0, 1].
        against_full: accuracy less that of tier 2 at full depth.
        deferred, mean_layer: see `contenders.Answered`.
        seconds: of one pass over the data by repeat; `None` where it had no turn.
        over_full, over_pipeline: how many times faster than these.
        f1: of entities; `None` where there are none.
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
    over_pipeline: Interval | None
    f1: float | None = None

    @property
    def median_seconds(self) -> float:
        """Of one pass over the data."""
        return median(value for value in self.seconds if value is not None)


@dataclass(frozen=True)
class Table:
    """What was measured.

    Attributes:
        rows: one per contender.
        count: how many texts or words were answered in a pass.
        turns: who ran when.
        unit: what these are.
    """

    rows: tuple[Row, ...]
    count: int
    turns: Turns
    unit: str = "texts"

    def row(self, key: str) -> Row:
        """The line of a contender."""
        return next(row for row in self.rows if row.key == key)


def measure(
    contenders: Sequence[Contender],
    data: Examples,
    *,
    repeats: int = 7,
    progress: Callable[[str], object] | None = None,
    clock: Callable[[], float] = time.perf_counter,
    pause: float = 0.02,
) -> Table:
    """Run all contenders on the same data: once each for warmth and accuracy, then in turns for time.

    Args:
        contenders: the first must be tier 2 at full depth.
        data: what they answer, tokenisation included.
        repeats: see `interleaving.interleave`.
        progress: called before each pass with the name of the contender.
        clock: gives seconds.
        pause: seconds between turns.

    Raises:
        OptionError: the contenders lack tier 2 at full depth.
    """
    if not contenders or contenders[0].key != FULL:
        raise OptionError("the first contender must be tier 2 at full depth, was another; see contenders.contenders")
    answers: dict[str, Answered] = {}
    warm_up: dict[str, float] = {}
    for contender in contenders:
        if progress is not None:
            progress(f"warm-up: {contender.name}")
        begin = clock()
        answers[contender.key] = contender.run(data.inputs)
        warm_up[contender.key] = clock() - begin
    runs = {contender.key: _bound(contender, data) for contender in contenders}
    names = {contender.key: contender.name for contender in contenders}
    turns = interleave(
        runs,
        repeats=repeats,
        warm_up=warm_up,
        progress=None if progress is None else lambda key: progress(names[key]),
        clock=clock,
        pause=pause,
    )
    right = {key: data.right(answered.labels) for key, answered in answers.items()}
    rows = []
    for contender in contenders:
        key, taken = contender.key, turns.seconds[contender.key]
        over_full = speed_up(turns.seconds[FULL], taken)
        if over_full is None:
            raise OptionError(f"{contender.name} had no turn beside tier 2 at full depth; run more repeats")
        rows.append(
            Row(
                key=key,
                name=contender.name,
                cut=contender.cut,
                accuracy=right[key] / len(data),
                against_full=(right[key] - right[FULL]) / len(data),
                deferred=answers[key].deferred,
                mean_layer=answers[key].mean_layer,
                seconds=tuple(taken),
                over_full=over_full,
                over_pipeline=speed_up(turns.seconds[PIPELINE], taken) if PIPELINE in runs else None,
                f1=data.f1(answers[key].labels),
            )
        )
    return Table(tuple(rows), len(data), turns, data.unit)


def _bound(contender: Contender, data: Examples) -> Callable[[], object]:
    return lambda: contender.run(data.inputs)

"""The table: accuracy beside seconds for every contender, all measured in one interleaved run.

It leaves to others: who runs (`contenders`, `peers`), taking turns (`interleaving`), how it looks (`render`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from cascade.exceptions import OptionError
from cascade_bench.contenders import CASCADE, FULL, PIPELINE, Answered, Contender
from cascade_bench.data import Labelled
from cascade_bench.interleaving import Turns, interleave
from cascade_bench.statistics import Interval, speed_up

__all__ = ["Row", "Table", "measure", "verdict"]

CLEAR = 1.0  # a ratio whose interval holds this says nothing


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

    @property
    def median_seconds(self) -> float:
        """Of one pass over the data."""
        return median(value for value in self.seconds if value is not None)


@dataclass(frozen=True)
class Table:
    """What was measured.

    Attributes:
        rows: one per contender.
        texts: how many were labelled in a pass.
        turns: who ran when.
    """

    rows: tuple[Row, ...]
    texts: int
    turns: Turns

    def row(self, key: str) -> Row:
        """The line of a contender."""
        return next(row for row in self.rows if row.key == key)


def measure(
    contenders: Sequence[Contender],
    data: Labelled,
    *,
    repeats: int = 7,
    progress: Callable[[str], object] | None = None,
    clock: Callable[[], float] = time.perf_counter,
    pause: float = 0.02,
) -> Table:
    """Run all contenders on the same texts: once each for warmth and accuracy, then in turns for time.

    Args:
        contenders: the first must be tier 2 at full depth.
        data: what they label, tokenisation included.
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
        answers[contender.key] = contender.run(data.texts)
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
            )
        )
    return Table(tuple(rows), len(data), turns)


def verdict(table: Table) -> str:
    """One sentence: the cascade against the fastest cut of tier 2 that is at least as accurate, in seconds."""
    cascade = table.row(CASCADE)
    begin = f"The cascade is right on {cascade.accuracy:.2%} and takes {_seconds(cascade)} for {table.texts} texts; "
    accurate = [row for row in table.rows if row.cut is not None and row.accuracy >= cascade.accuracy]
    if not accurate:
        best = max(
            (row for row in table.rows if row.cut is not None), key=lambda row: (row.accuracy, -row.median_seconds)
        )
        return (
            f"{begin}no cut of tier 2 is as accurate, not even full depth: the most accurate, {best.name}, is right on "
            f"{best.accuracy:.2%} and takes {_seconds(best)}, {_compared(best, cascade)}."
        )
    rival = min(accurate, key=lambda row: row.median_seconds)
    return (
        f"{begin}the fastest fixed depth that is at least as accurate, {rival.name} ({rival.accuracy:.2%}), takes "
        f"{_seconds(rival)}, {_compared(rival, cascade)}."
    )


def _compared(rival: Row, cascade: Row) -> str:
    ratio = speed_up(rival.seconds, cascade.seconds)
    if ratio is None:
        return "in no repeat beside the cascade"
    covered = "" if ratio.coverage >= 0.95 else f", covering only {ratio.coverage:.0%}"
    interval = f"[{ratio.low:.2f}, {ratio.high:.2f}{covered}]"
    if ratio.low > CLEAR:
        return f"so the cascade is {ratio.median:.2f} times faster {interval}"
    if ratio.high < CLEAR:
        return f"so the cascade is slower, {ratio.median:.2f} times as fast {interval}"
    return f"so there is no clear difference: the cascade is {ratio.median:.2f} times as fast {interval}"


def _seconds(row: Row) -> str:
    return f"{row.median_seconds:.3g} s"


def _bound(contender: Contender, data: Labelled) -> Callable[[], object]:
    return lambda: contender.run(data.texts)

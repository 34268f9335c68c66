"""What a measured table says, in sentences: is an adaptive policy worth it beside the simple one that it replaces?"""

from __future__ import annotations

from collections.abc import Sequence

from cascade_bench.contenders import CASCADE
from cascade_bench.statistics import speed_up
from cascade_bench.table import Row, Table
from cascade_bench.taggers import BY_TOKEN, EXITS, SENTENCE

__all__ = ["verdict", "verdicts"]

CLEAR = 1.0  # a ratio whose interval holds this says nothing


def verdicts(table: Table) -> list[str]:
    """Sentences: the cascade against fixed depths; of a tagger, token exit against its rivals too."""
    rows = {row.key: row for row in table.rows}
    rivals = [rows[key] for key in (SENTENCE, BY_TOKEN) if key in rows]
    return [verdict(table), *([_exits(table, rows[EXITS], rivals)] if rivals else [])]


def verdict(table: Table) -> str:
    """One sentence: the cascade against the fastest cut of tier 2 that is at least as accurate, in seconds."""
    cascade = table.row(CASCADE)
    begin = (
        f"The cascade is right on {cascade.accuracy:.2%} and takes {_seconds(cascade)} for {table.count} {table.unit}; "
    )
    accurate = [row for row in table.rows if row.cut is not None and row.accuracy >= cascade.accuracy]
    if not accurate:
        best = max(
            (row for row in table.rows if row.cut is not None), key=lambda row: (row.accuracy, -row.median_seconds)
        )
        return (
            f"{begin}no cut of tier 2 is as accurate, not even full depth: the most accurate, {best.name}, is right on "
            f"{best.accuracy:.2%} and takes {_seconds(best)}, so {_compared(best, cascade, 'the cascade')}."
        )
    rival = min(accurate, key=lambda row: row.median_seconds)
    return (
        f"{begin}the fastest fixed depth that is at least as accurate, {rival.name} ({rival.accuracy:.2%}), takes "
        f"{_seconds(rival)}, so {_compared(rival, cascade, 'the cascade')}."
    )


def _exits(table: Table, exits: Row, rivals: Sequence[Row]) -> str:
    """Token exit beside the fastest fixed depth that is at least as accurate, sentence exit and exits by token id."""
    deep = [row for row in table.rows if row.cut is not None and row.accuracy >= exits.accuracy]
    fastest = [min(deep, key=lambda row: row.median_seconds)] if deep else []
    beside = "; ".join(
        f"beside {rival.name} ({rival.accuracy:.2%}, {_seconds(rival)}) {_compared(rival, exits, 'it')}"
        for rival in (*fastest, *rivals)
    )
    name = exits.name[0].upper() + exits.name[1:]
    return f"{name} is right on {exits.accuracy:.2%} and takes {_seconds(exits)}; {beside}."


def _compared(rival: Row, row: Row, name: str) -> str:
    """Half a sentence: how many times faster than a rival this row is. `name`: what it calls the row."""
    ratio = speed_up(rival.seconds, row.seconds)
    if ratio is None:
        return f"in no repeat did {name} run beside it"
    covered = "" if ratio.coverage >= 0.95 else f", covering only {ratio.coverage:.0%}"
    interval = f"[{ratio.low:.2f}, {ratio.high:.2f}{covered}]"
    if ratio.low > CLEAR:
        return f"{name} is {ratio.median:.2f} times faster {interval}"
    if ratio.high < CLEAR:
        return f"{name} is slower, {ratio.median:.2f} times as fast {interval}"
    return f"there is no clear difference: {name} is {ratio.median:.2f} times as fast {interval}"


def _seconds(row: Row) -> str:
    return f"{row.median_seconds:.3g} s"

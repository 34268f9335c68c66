"""What a measured table says, in a sentence: is the cascade worth it beside the fixed depth that it replaces?"""

from __future__ import annotations

from cascade.core.statistics import speed_up
from cascade_bench.systems.local import CASCADE
from cascade_bench.table.measuring import Row, Table

CLEAR = 1.0  # a ratio whose interval holds this says nothing


def conclusion(table: Table) -> str:
    """The cascade against the fastest cut of tier 2 that is at least as accurate, in seconds."""
    cascade, cuts = table.row(CASCADE), [row for row in table.rows if row.cut is not None]
    begin = (
        f"The cascade is right on {cascade.accuracy:.2%} and takes {_seconds(cascade)} for {len(table.data)} "
        f"{table.data.unit}; "
    )
    accurate = [row for row in cuts if row.accuracy >= cascade.accuracy]
    if not accurate:
        best = max(cuts, key=lambda row: (row.accuracy, -row.median_seconds))
        return (
            f"{begin}no cut of tier 2 is as accurate, not even full depth: the most accurate, {best.name}, is right on "
            f"{best.accuracy:.2%} and takes {_seconds(best)}, so {compared(best, cascade, 'the cascade')}."
        )
    fastest = min(accurate, key=lambda row: row.median_seconds)
    return (
        f"{begin}the fastest fixed depth that is at least as accurate, {fastest.name} ({fastest.accuracy:.2%}), takes "
        f"{_seconds(fastest)}, so {compared(fastest, cascade, 'the cascade')}."
    )


def compared(base: Row, row: Row, name: str) -> str:
    """Half a sentence: how many times as fast as a base this row is. `name`: what it calls the row."""
    ratio = speed_up(base.seconds, row.seconds)
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

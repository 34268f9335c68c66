"""The peers' second table: percentiles of what one text takes, and ratios to full tier 2 and to the fastest peer.

The cascade has two lines more: texts that its first tier answers alone, and those that it defers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.core.rows import IntArray
from cascade_bench.peer_kinds import CASCADE, FULL, Kind
from cascade_bench.peer_single import Singles
from cascade_bench.render import ratio
from cascade_bench.report_json import benchmark
from cascade_bench.scenarios import percentile
from cascade_bench.statistics import Interval, median_interval

__all__ = ["SingleRow", "SingleTable", "as_benchmarks", "as_document", "cells", "method", "summarise"]

PERCENTILES = (50.0, 95.0, 99.0)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SingleRow:
    """A peer, or the cascade on some of the texts.

    Attributes:
        key, name: for programs and for readers.
        seconds: of each text. Shape `(n,)`.
        by_full, by_fastest: its p50 by that of tier 2 at full depth, and by that of the fastest peer, on the same texts
            in the same turn; `None` where these have no figures.
    """

    key: str
    name: str
    seconds: Floats
    by_full: Interval | None
    by_fastest: Interval | None

    def percentile(self, share: float) -> float:
        """Milliseconds that this share (in percent) of the texts did not exceed."""
        return percentile(self.seconds, share) * 1e3


@dataclass(frozen=True, eq=False)
class SingleTable:
    """What one text takes.

    Attributes:
        rows: a line per peer, in their order.
        fastest: the peer, not this engine, with the least p50; `None` if only this engine ran.
        singles: what they were made from.
        unit: what was answered: `texts` or `sentences`.
    """

    rows: tuple[SingleRow, ...]
    fastest: Kind | None
    singles: Singles
    unit: str = "texts"


def summarise(singles: Singles, kinds: Sequence[Kind], *, tagging: bool = False) -> SingleTable:
    """The table of those that are still running.

    Args:
        singles: see `peer_single.one_at_a_time`.
        kinds: who has a line.
        tagging: the texts are sentences; the first tier answers one alone if it answers all its words.
    """
    unit = "sentences" if tagging else "texts"
    others = [kind for kind in kinds if not kind.own]
    fastest = min(others, key=lambda kind: percentile(singles.seconds[kind.key], 50), default=None)
    full = singles.seconds[FULL] if any(kind.key == FULL for kind in kinds) else None
    peer = None if fastest is None else singles.seconds[fastest.key]

    def row(key: str, name: str, own: Floats, places: IntArray) -> SingleRow:
        by_full, by_fastest = (
            None if base is None else _by(own[places], base[places], singles.turns[places]) for base in (full, peer)
        )
        return SingleRow(key, name, own[places], by_full, by_fastest)

    rows = []
    for kind in kinds:
        own = singles.seconds[kind.key]
        rows.append(row(kind.key, kind.name, own, np.arange(len(own))))
        if kind.key == CASCADE and singles.by_tier1 is not None:
            alone, deferred = np.flatnonzero(singles.by_tier1), np.flatnonzero(~singles.by_tier1)
            if len(alone):
                rows.append(row(f"{CASCADE}-by-tier1", f"cascade, {unit} that tier 1 answers", own, alone))
            if len(deferred):
                rows.append(row(f"{CASCADE}-deferred", f"cascade, {unit} that it defers", own, deferred))
    return SingleTable(tuple(rows), fastest, singles, unit)


def _by(own: Floats, base: Floats, turns: IntArray) -> Interval:
    """The median over turns of one p50 by the other. All of shape `(n,)`, n at least 1."""
    within = [turns == turn for turn in np.unique(turns)]
    return median_interval([percentile(own[mask], 50) / percentile(base[mask], 50) for mask in within])


def cells(table: SingleTable) -> tuple[list[str], list[list[str]]]:
    """Head and lines; all columns but the first hold numbers."""
    columns: dict[str, Callable[[SingleRow], str]] = {
        "one at a time": lambda row: row.name,
        table.unit: lambda row: str(len(row.seconds)),
        "p50 ms": lambda row: f"{row.percentile(50):.2f}",
        "p95 ms": lambda row: f"{row.percentile(95):.2f}",
        "p99 ms": lambda row: f"{row.percentile(99):.2f}",
        "p50 by full tier 2's": lambda row: ratio(row.by_full),
        "p50 by fastest peer's": lambda row: ratio(row.by_fastest),
    }
    return list(columns), [[shown(row) for shown in columns.values()] for row in table.rows]


def method(table: SingleTable) -> str:
    """How it was measured, in sentences."""
    count, turns = len(table.singles.texts), len(table.singles.orders)
    peer = "" if table.fastest is None else f" Fastest peer: {table.fastest.name}, which has the least p50."
    return (
        f"One at a time: {count} {table.unit} spread evenly over the file, answered by each once before and then in "
        f"{turns} interleaved turns, seconds of each taken in the process. Ratios are medians over turns of p50 by p50 "
        f"of the same {table.unit}, above 1 where it is slower.{peer}"
    )


def as_benchmarks(table: SingleTable) -> list[dict[str, Any]]:
    """An entry per line, with the seconds of each text."""
    return [
        benchmark(
            "peers-single",
            f"{row.key}-one-at-a-time",
            row.seconds.tolist(),
            info={
                "name": row.name,
                table.unit: len(row.seconds),
                **{f"p{share:g}_ms": row.percentile(share) for share in PERCENTILES},
                "p50_by_full": None if row.by_full is None else asdict(row.by_full),
                "p50_by_fastest_peer": None if row.by_fastest is None else asdict(row.by_fastest),
            },
        )
        for row in table.rows
    ]


def as_document(table: SingleTable) -> dict[str, Any]:
    """Which text is which, for a JSON file: `rows` of the file, `turns` and routes in the order of the seconds."""
    singles = table.singles
    return {
        "rows": singles.texts.tolist(),
        "turns": singles.turns.tolist(),
        "by_tier1": None if singles.by_tier1 is None else singles.by_tier1.tolist(),
        "orders": singles.orders,
        "fastest_peer": None if table.fastest is None else table.fastest.key,
    }

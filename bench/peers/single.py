"""One text at a time: systems in their processes answer blocks of texts in turns; seconds are taken there.

Every system answers every text once before, and what that took does not count, so whatever a library prepares when it
first sees a length is ready. A block holds texts from the whole file. The cascade has two lines more: texts that its
first tier answers alone, and those that it defers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from cascade.core.checks import check_whole
from cascade.core.rows import BoolArray, Doubles, IntArray
from cascade.core.statistics import Interval, median_interval, percentile, shown
from cascade_bench.peers.running import PAUSE, Peers, Running
from cascade_bench.systems.baselines import Baseline
from cascade_bench.systems.local import CASCADE, FULL
from cascade_bench.timing.interleaving import Progress, balanced_orders, quiet

BLOCK = 20  # texts in a turn
TURNS = 10  # at least, as far as there are texts: so many ratios have an interval of 95 %
LEAD = 2  # answers before those that count: the processor's caches hold what the system before needed


@dataclass(frozen=True, eq=False)
class Singles:
    """What came out, by text: its number in the file, its turn, seconds by system. Shapes `(n,)`.

    `orders`: per turn, the keys in the order in which they ran.
    """

    texts: IntArray
    turns: IntArray
    seconds: Mapping[str, Doubles]
    orders: list[list[str]]


def one_at_a_time(peers: Peers, count: int, *, pause: float = PAUSE, progress: Progress = quiet) -> Singles:
    """All that run answer the same texts, spread evenly over the file, in turns; one that fails is set aside."""
    check_whole("count", count, "200 give a p95 worth reading")
    texts = chosen(peers.count, count)
    blocks = min(len(texts), max(TURNS, round(len(texts) / BLOCK)))
    turns = np.arange(len(texts)) % blocks
    seconds = {key: np.zeros(len(texts)) for key in peers.running}

    def block(peer: Running, *, turn: int) -> None:
        own = np.flatnonzero(turns == turn)
        asked = np.concatenate((np.resize(own[-LEAD:], LEAD), own))
        seconds[peer.kind.key][own] = peer.process.single(texts[asked].tolist())[LEAD:]

    def warm_up(peer: Running) -> None:
        for turn in range(blocks):
            block(peer, turn=turn)

    for peer in list(peers.running.values()):
        progress(f"warm-up: {peer.kind.name}, one at a time")
        peers.guard(peer, warm_up)
    orders: list[list[str]] = []
    for turn, order in enumerate(balanced_orders(list(peers.running), blocks)):
        orders.append([key for key in order if key in peers.running])
        for key in orders[-1]:
            progress(f"{peers.running[key].kind.name}, one at a time")
            time.sleep(pause)
            peers.guard(peers.running[key], partial(block, turn=turn))
    return Singles(texts, turns, {key: seconds[key] for key in peers.running}, orders)


def chosen(texts: int, count: int) -> IntArray:
    """Numbers of at most `count` of so many texts, spread evenly."""
    return np.linspace(0, texts - 1, min(count, texts)).astype(np.int64)


@dataclass(frozen=True, eq=False)
class SingleRow:
    """A system, or the cascade on some of the texts, with seconds of each text. Shape `(n,)`.

    `by_full`, `by_fastest`: its p50 by that of tier 2 at full depth, and by that of the fastest baseline, on the same
    texts in the same turn; `None` where these have no figures.
    """

    key: str
    name: str
    seconds: Doubles
    by_full: Interval | None
    by_fastest: Interval | None

    def milliseconds(self, share: float) -> float:
        """That this share (in percent) of the texts did not exceed."""
        return percentile(self.seconds, share) * 1e3


@dataclass(frozen=True, eq=False)
class SingleTable:
    """What one text takes. `fastest`: the baseline, not this engine, with the least p50. `unit`: texts or sentences."""

    rows: tuple[SingleRow, ...]
    fastest: Baseline | None
    singles: Singles
    unit: str = "texts"

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Head and lines; all columns but the first hold numbers."""
        columns: dict[str, Callable[[SingleRow], str]] = {
            "one at a time": lambda row: row.name,
            self.unit: lambda row: str(len(row.seconds)),
            "p50 ms": lambda row: f"{row.milliseconds(50):.2f}",
            "p95 ms": lambda row: f"{row.milliseconds(95):.2f}",
            "p99 ms": lambda row: f"{row.milliseconds(99):.2f}",
            "p50 by full tier 2's": lambda row: shown(row.by_full),
            "p50 by fastest peer's": lambda row: shown(row.by_fastest),
        }
        return list(columns), [[cell(row) for cell in columns.values()] for row in self.rows]

    def method(self) -> str:
        """How it was measured, in sentences."""
        peer = "" if self.fastest is None else f" Fastest peer: {self.fastest.name}, which has the least p50."
        return (
            f"One at a time: {len(self.singles.texts)} {self.unit} spread evenly over the file, answered by each once "
            f"before and then in {len(self.singles.orders)} interleaved turns, seconds of each taken in the process. "
            f"Ratios are medians over turns of p50 by p50 of the same {self.unit}, above 1 where it is slower.{peer}"
        )


def summarise(
    singles: Singles, kinds: Sequence[Baseline], *, by_tier1: BoolArray | None = None, tagging: bool = False
) -> SingleTable:
    """The table of those that are still running.

    `by_tier1`: `local.by_tier1_alone` of the texts, for lines of their own; `tagging`: texts are sentences.
    """
    unit = "sentences" if tagging else "texts"
    others = [kind for kind in kinds if not kind.own]
    fastest = min(others, key=lambda kind: percentile(singles.seconds[kind.key], 50), default=None)
    full = singles.seconds[FULL] if any(kind.key == FULL for kind in kinds) else None
    peer = None if fastest is None else singles.seconds[fastest.key]

    def row(key: str, name: str, own: Doubles, places: IntArray) -> SingleRow:
        by_full, by_fastest = (
            None if base is None else _by(own[places], base[places], singles.turns[places]) for base in (full, peer)
        )
        return SingleRow(key, name, own[places], by_full, by_fastest)

    rows = []
    for kind in kinds:
        own = singles.seconds[kind.key]
        rows.append(row(kind.key, kind.name, own, np.arange(len(own))))
        if kind.key == CASCADE and by_tier1 is not None:
            for part, mask, what in (("by-tier1", by_tier1, "tier 1 answers"), ("deferred", ~by_tier1, "it defers")):
                if mask.any():
                    rows.append(row(f"{CASCADE}-{part}", f"cascade, {unit} that {what}", own, np.flatnonzero(mask)))
    return SingleTable(tuple(rows), fastest, singles, unit)


def _by(own: Doubles, base: Doubles, turns: IntArray) -> Interval:
    """The median over turns of one p50 by the other. All of shape `(n,)`, n at least 1."""
    within = [turns == turn for turn in np.unique(turns)]
    return median_interval([percentile(own[mask], 50) / percentile(base[mask], 50) for mask in within])

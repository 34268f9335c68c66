"""Systems in their processes: converted for, loaded, settled on their best batch sizes, then run in turns.

One that is not installed, or fails, is set aside with its reason and the rest go on. Seconds are those that the
processes take inside themselves. One text at a time: systems answer blocks of texts in turns, every text once before,
which does not count, so whatever a library prepares when it first sees a length is ready.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cascade.core.checks import check_whole
from cascade.core.rows import BoolArray, Doubles, IntArray
from cascade.core.statistics import Interval, median_interval, percentile, shown
from cascade_bench.systems.baselines import Baseline
from cascade_bench.systems.local import CASCADE, FULL
from cascade_bench.systems.process import Job, ProcessClock, WorkerError, WorkerProcess
from cascade_bench.timing.interleaving import (
    BATCH_SIZES,
    Interleaved,
    Progress,
    balanced_orders,
    best_size,
    interleave,
    quiet,
)

SUBSET = 192  # texts on which batch sizes are tried
PAUSE = 0.25  # seconds between turns, in which the threads of the process before stop spinning
ORDERS = {False: "as given", True: "by length"}


def name_of(kind: Baseline, by_length: bool) -> str:
    """For programs: the key, and whether it sorts the texts by length."""
    return kind.key + ("-by-length" if by_length else "")


@dataclass
class Running:
    """A system that is loaded; by order of the texts its best batch size, answers, and a first pass."""

    kind: Baseline
    process: WorkerProcess
    sizes: dict[bool, int] = field(default_factory=dict)
    labels: dict[bool, list[Any]] = field(default_factory=dict)
    warm_up: dict[bool, float] = field(default_factory=dict)


class Peers(AbstractContextManager["Peers"]):
    """Systems of one comparison, by key: those that are running, and what others lack, or why they failed.

    Use it as a context manager: all processes end with the block. The job's folder must be there.
    """

    def __init__(
        self,
        job: Job,
        texts: Sequence[Any],
        *,
        sizes: Sequence[int] = BATCH_SIZES,
        start: Callable[[], WorkerProcess] | None = None,
        progress: Progress = quiet,
    ) -> None:
        self.running: dict[str, Running] = {}
        self.absent: dict[str, str] = {}
        self.count = len(texts)
        self._job, self._sizes = job, sizes
        self._start = start or (lambda: WorkerProcess(threads=job.threads))
        self._say = progress
        (Path(job.folder) / "texts.json").write_text(json.dumps(list(texts)), encoding="utf-8")

    def __exit__(self, *_failure: object) -> None:
        for peer in self.running.values():
            peer.process.kill()

    def load(self, kinds: Sequence[Baseline]) -> None:
        """Convert what these need, load them, find their best batch sizes."""
        steps: dict[str, str] = {}  # those taken, and why they failed: empty where they did not
        for kind in kinds:
            if kind.missing:
                self.absent[kind.key] = f"not installed: {', '.join(kind.missing)}; {kind.install}"
                continue
            fault = self._convert(kind, steps)
            if fault:
                self.absent[kind.key] = f"failed: the checkpoint could not be converted: {fault}"
                continue
            peer = Running(kind, self._start())
            self.running[kind.key] = peer
            self.guard(peer, self._settle)

    def take_turns(self, repeats: int, *, pause: float = PAUSE) -> Interleaved:
        """Turns of all that are running, by `name_of`; one that fails in its turn is set aside."""
        clock, runs, warm_up = ProcessClock(), dict[str, Callable[[], object]](), dict[str, float]()

        def turn(peer: Running, by_length: bool) -> None:
            def once(peer: Running) -> None:
                clock.now += peer.process.run(batch_size=peer.sizes[by_length], by_length=by_length).seconds

            if peer.kind.key in self.running:
                self.guard(peer, once)

        for peer in self.running.values():
            for by_length, seconds in peer.warm_up.items():
                name = name_of(peer.kind, by_length)
                runs[name], warm_up[name] = partial(turn, peer, by_length), seconds
        return interleave(runs, repeats=repeats, warm_up=warm_up, progress=self._say, clock=clock, pause=pause)

    def quit(self) -> dict[str, float | None]:
        """End all; the most memory that each held, in MiB."""
        peaks: dict[str, float | None] = dict.fromkeys(self.running)

        def last(peer: Running) -> None:
            peaks[peer.kind.key] = peer.process.quit()

        for peer in list(self.running.values()):
            self.guard(peer, last)
        return peaks

    def guard(self, peer: Running, work: Callable[[Running], None]) -> None:
        """Do something with a system; if it fails, set it aside."""
        try:
            work(peer)
        except WorkerError as error:
            peer.process.kill()
            del self.running[peer.kind.key]
            self.absent[peer.kind.key] = f"failed: {error}"

    def _convert(self, kind: Baseline, steps: dict[str, str]) -> str:
        """Take the steps of a kind that were not taken yet, each in a process that ends; why one failed, if it did."""
        for step in kind.steps:
            if step not in steps:
                self._say(f"converting: {step}")
                with self._start() as process:
                    try:
                        process.prepare(step, self._job)
                        steps[step] = ""
                    except WorkerError as error:
                        steps[step] = str(error)
            if steps[step]:
                return steps[step]
        return ""

    def _settle(self, peer: Running) -> None:
        """Load it; find its best batch sizes; a pass for its answers."""
        self._say(f"loading: {peer.kind.name}")
        peer.process.load(peer.kind.key, self._job)
        some = min(SUBSET, self.count)
        for by_length in (False,) if peer.kind.own else (False, True):

            def seconds(size: int, by_length: bool = by_length) -> float:
                self._say(f"{peer.kind.name}, {ORDERS[by_length]}, batches of {size}")
                return peer.process.run(batch_size=size, by_length=by_length, some=some).seconds

            best = 0 if peer.kind.own else best_size(self._sizes, some, seconds)[0]
            self._say(f"warm-up: {peer.kind.name}, {ORDERS[by_length]}")
            first = peer.process.run(batch_size=best, by_length=by_length)
            peer.sizes[by_length], peer.labels[by_length], peer.warm_up[by_length] = best, first.labels, first.seconds


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

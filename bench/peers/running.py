"""Systems in their processes: loaded, settled on their best batch sizes, then run in turns.

One that is not installed, or fails, is set aside with its reason and the rest go on. Seconds are those that the
processes take inside themselves.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cascade.core.statistics import percentile
from cascade.exceptions import OptionError
from cascade_bench.systems.baselines import Baseline
from cascade_bench.systems.local import FULL, TRANSFORMERS
from cascade_bench.systems.process import Job, WorkerError, WorkerProcess
from cascade_bench.table.data import Data
from cascade_bench.table.measuring import Row, Table, ratios
from cascade_bench.timing.interleaving import BATCH_SIZES, Progress, best_size, interleave, quiet

SUBSET = 192  # texts on which batch sizes are tried
PAUSE = 0.25  # seconds between turns, in which the threads of the process before stop spinning
LEAD = 2  # texts before those that count one by one: the processor's caches hold what the system before needed
GIVEN, SORTED, ALONE = "as given", "by length", "one by one"
SUFFIXES = {GIVEN: "", SORTED: "-by-length", ALONE: "-one-by-one"}


@dataclass
class Way:
    """A system on the texts in one order: size of its batches, what it answered first, and in how many seconds.

    `latencies`: seconds of each text, one by one, of all turns.
    """

    size: int
    seconds: float
    labels: Sequence[Any] = ()
    latencies: list[float] = field(default_factory=list)


@dataclass
class Running:
    """A system that is loaded, what it `said` of itself, and its ways by order of the texts."""

    kind: Baseline
    process: WorkerProcess
    ways: dict[str, Way] = field(default_factory=dict)
    said: str = ""


class Peers(AbstractContextManager["Peers"]):
    """Systems of one comparison, by key: those that are running, and what others lack, or why they failed.

    Use it as a context manager: all processes end with the block. The job's folder must be there. `single`: so many
    texts, spread evenly, are answered one by one too.
    """

    def __init__(
        self,
        job: Job,
        texts: Sequence[Any],
        *,
        single: int = 0,
        sizes: Sequence[int] = BATCH_SIZES,
        start: Callable[[Baseline], WorkerProcess] | None = None,
        progress: Progress = quiet,
    ) -> None:
        self.running: dict[str, Running] = {}
        self.absent: dict[str, str] = {}
        self.alone = np.linspace(0, len(texts) - 1, min(single, len(texts))).astype(int).tolist()
        self._job, self._sizes, self._count = job, sizes, len(texts)
        self._start = start or (lambda _: WorkerProcess(threads=job.threads))
        self._say = progress
        (Path(job.folder) / "texts.json").write_text(json.dumps(list(texts)), encoding="utf-8")

    def __exit__(self, *_failure: object) -> None:
        for peer in self.running.values():
            peer.process.kill()

    def load(self, kinds: Sequence[Baseline]) -> None:
        """Load these, find their best batch sizes."""
        for kind in kinds:
            if kind.missing:
                self.absent[kind.name] = f"not installed: {', '.join(kind.missing)}; {kind.install}"
                continue
            peer = self.running[kind.key] = Running(kind, self._start(kind))
            with self._guarded(peer):
                self._settle(peer)

    def take_turns(self, repeats: int, *, pause: float = PAUSE) -> dict[str, list[float]]:
        """Turns of all that are running, by key and order; one that fails in its turn is set aside."""
        spent = 0.0  # seconds that processes say they took

        def turn(peer: Running, order: str, way: Way) -> None:
            nonlocal spent
            if peer.kind.key not in self.running:
                return
            with self._guarded(peer):
                if order != ALONE:
                    spent += peer.process.run(batch_size=way.size, by_length=order == SORTED)[0]
                    return
                seconds = peer.process.single(self.alone[-LEAD:] + self.alone)[-len(self.alone) :]
                way.latencies += seconds
                spent += sum(seconds)

        ways = [(peer, order, way) for peer in self.running.values() for order, way in peer.ways.items()]
        return interleave(
            {peer.kind.key + SUFFIXES[order]: partial(turn, peer, order, way) for peer, order, way in ways},
            repeats=repeats,
            warm_up={peer.kind.key + SUFFIXES[order]: way.seconds for peer, order, way in ways},
            progress=self._say,
            clock=lambda: spent,
            pause=pause,
        )

    def quit(self) -> dict[str, float | None]:
        """End all; the most memory that each held, in MiB."""
        peaks: dict[str, float | None] = {}
        for key, peer in list(self.running.items()):
            with self._guarded(peer):
                peaks[key] = peer.process.quit()
        return peaks

    @contextmanager
    def _guarded(self, peer: Running) -> Iterator[None]:
        """Do something with a system; if it fails, set it aside."""
        try:
            yield
        except WorkerError as error:
            peer.process.kill()
            del self.running[peer.kind.key]
            self.absent[peer.kind.name] = f"failed: {error}"

    def _settle(self, peer: Running) -> None:
        """Load it; find its best batch sizes; a pass for its answers."""
        kind, process, some = peer.kind, peer.process, min(SUBSET, self._count)
        self._say(f"loading: {kind.name}")
        peer.said = process.load(kind.key, self._job)["said"]
        for order in (GIVEN,) if kind.own else (GIVEN, SORTED):

            def seconds(size: int, by_length: bool = order == SORTED) -> float:
                self._say(f"{kind.name}, batches of {size}{', by length' * by_length}")
                return process.run(batch_size=size, by_length=by_length, some=some)[0]

            best = 0 if kind.own else best_size(self._sizes, some, seconds)
            self._say(f"warm-up: {kind.name}, {order}")
            peer.ways[order] = Way(best, *process.run(batch_size=best, by_length=order == SORTED))
        if self.alone:  # whatever a library prepares when it first sees a length is ready then
            peer.ways[ALONE] = Way(1, sum(process.single(self.alone)))


def compare(kinds: Sequence[Baseline], peers: Peers, data: Data, *, repeats: int = 7, pause: float = PAUSE) -> Table:
    """Run baselines beside each other, `repeats` turns of each. If none can be run at all that is an `OptionError`.

    `peers`: on the items of the data; they end.
    """
    with peers:
        peers.load(kinds)
        turns = peers.take_turns(repeats, pause=pause)
        peaks = peers.quit()
    running, absent = peers.running, {kind.name: peers.absent[kind.name] for kind in kinds if kind.name in peers.absent}
    if not running:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in absent.items())
        raise OptionError(f"one system at least must run, none did ({reasons}); install one, or mend the checkpoint")
    full, piped = (running[key].ways[GIVEN].labels if key in running else None for key in (FULL, TRANSFORMERS))
    some = [data.items[row] for row in peers.alone]
    alone, rows = sum(map(len, some)) if data.words else len(some), list[Row]()
    for key, peer in running.items():
        for order, way in peer.ways.items():
            labels, base = (way.labels, GIVEN) if order != ALONE else (None, ALONE)
            taken = np.array(way.latencies)
            row = Row(
                key=key + SUFFIXES[order],
                name=peer.kind.name,
                count=alone if labels is None else len(data),
                order="own order" if peer.kind.own and order == GIVEN else order,
                batch=None if peer.kind.own else way.size,
                accuracy=math.nan if labels is None else data.accuracy(labels),
                agreement=None if labels is None or full is None else data.agreement(labels, full),
                unlike=None if labels is None or piped is None else data.unlike(labels, piped),
                percentiles=tuple(1e3 * percentile(taken, share) for share in (50, 95, 99)) if len(taken) else None,
                peak_mib=peaks[key],
                **ratios(turns, key + SUFFIXES[order], FULL + SUFFIXES[base], TRANSFORMERS + SUFFIXES[base]),
            )
            rows.append(row)
    return Table(tuple(rows), data, absent=absent)

"""Systems in their processes: converted for, loaded, settled on their best batch sizes, then run in turns.

One that is not installed, or fails, is set aside with its reason and the rest go on. Seconds are those that the
processes take inside themselves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from cascade_bench.systems.baselines import Baseline
from cascade_bench.systems.process import Job, ProcessClock, WorkerError, WorkerProcess
from cascade_bench.timing.interleaving import BATCH_SIZES, Interleaved, Progress, best_size, interleave, quiet

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

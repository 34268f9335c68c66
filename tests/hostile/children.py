"""Jobs in processes of their own, with a time limit: one that crashes or hangs is counted and does not end the run."""

from __future__ import annotations

import itertools
import os
import resource
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from functools import reduce
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

from tests.hostile.throwing import Thrower

MEMORY = 6 << 30  # bytes of addresses that a child may take: a graph may ask for any number


@dataclass
class Tally:
    """What became of the things thrown. `near`: answers that differ from those alone by rounding at a threshold."""

    done: int = 0
    lost: int = 0
    reordered: int = 0
    crashes: int = 0
    tracebacks: int = 0
    hangs: int = 0
    near: int = 0
    notes: list[str] = field(default_factory=list)

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, own.name) + getattr(other, own.name) for own in fields(self)))

    @property
    def good(self) -> bool:
        """Whether nothing went wrong; one in a thousand may be near."""
        bad = self.lost + self.reordered + self.crashes + self.tracebacks + self.hangs
        return not bad and self.near <= 3 + self.done / 1000


@dataclass(frozen=True)
class Job:
    """So many things of a kind, all drawn from one seed."""

    kind: str
    seed: int
    count: int


class Child:
    """A process that does one job at a time."""

    def __init__(self, folder: Path, bundles: tuple[Path, ...]) -> None:
        context = get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, folder, bundles), daemon=True)
        self._process.start()
        other.close()

    def do(self, job: Job, limit: float) -> Tally | None:
        """What became of it. None: the child is gone, by itself or because it took more than `limit` seconds."""
        try:
            self._pipe.send(job)
            if not self._pipe.poll(limit):
                self.end()
                return Tally(job.count, hangs=1, notes=[f"hang: {job}"])
            found: Tally = self._pipe.recv()
        except (EOFError, OSError):
            self.end()
            return Tally(job.count, crashes=1, notes=[f"crash with {self._process.exitcode}: {job}"])
        return found

    @property
    def alive(self) -> bool:
        """Whether it can do another."""
        return self._process.is_alive()

    def end(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.join()


def throw(
    kind: str,
    total: int,
    *,
    size: int,
    seed: int,
    folder: Path,
    bundles: tuple[Path, ...],
    processes: int,
    limit: float,
) -> Tally:
    """`total` things of a kind, `size` of them in a job, in so many processes."""
    draw = Random(f"{kind} {seed}")
    jobs = (Job(kind, draw.randrange(2**40), min(size, total - at)) for at in range(0, total, size))
    lock, numbers = threading.Lock(), itertools.count()

    def drive(_: int) -> Tally:
        found, child = Tally(), None
        for job in _shared(jobs, lock):
            if child is None or not child.alive:
                child = Child(folder / f"child {next(numbers)}", bundles)
            found += child.do(job, limit)
        if child is not None:
            child.end()
        return found

    with ThreadPoolExecutor(processes) as pool:
        return reduce(Tally.__add__, pool.map(drive, range(processes)), Tally())


def _shared(jobs: Iterator[Job], lock: threading.Lock) -> Iterator[Job]:
    while True:
        with lock:
            job = next(jobs, None)
        if job is None:
            return
        yield job


def _serve(pipe: Connection, folder: Path, bundles: tuple[Path, ...]) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    folder.mkdir()
    for number in (1, 2):  # what libraries print themselves
        os.dup2(os.open(folder / f"fd {number}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    thrower = Thrower(folder, bundles)
    while True:
        try:
            job: Job = pipe.recv()
        except EOFError:
            return
        tally = Tally()
        for fault in thrower.throw(job.kind, Random(job.seed), job.count):
            name, _, note = fault.partition(": ")
            setattr(tally, name, getattr(tally, name) + 1)
            tally.notes.append(f"{name}: {note} ({job})")
        tally.done = job.count
        pipe.send(tally)

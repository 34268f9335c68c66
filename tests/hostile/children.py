"""Jobs in processes of their own, with a time limit: one that crashes or hangs is counted and does not end the run."""

from __future__ import annotations

import os
import resource
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, fields
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import TypeVar

from tests.hostile.throwing import Thrower

MEMORY = 6 << 30  # bytes of addresses that a child may take: a graph may ask for any number
SIZES = {"texts": 512, "files": 50, "bundles": 1}  # things in a job
T = TypeVar("T")


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

    def count(self, fault: str, where: object) -> None:
        """A fault as throwers give it: what it counts as, then what happened."""
        name, _, note = fault.partition(": ")
        setattr(self, name, getattr(self, name) + 1)
        self.notes.append(f"{name}: {note} ({where})")

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
    """A process that does one job at a time. `alive`: whether it can do another."""

    def __init__(self, folder: Path, bundles: tuple[Path, ...]) -> None:
        context = get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, folder, bundles), daemon=True)
        self._process.start()
        other.close()
        self.alive = True

    def do(self, job: Job, limit: float) -> Tally:
        """What became of it. A child that is gone, or takes more than `limit` seconds, is counted and ended."""
        try:
            self._pipe.send(job)
            if self._pipe.poll(limit):
                found: Tally = self._pipe.recv()
                return found
            found = Tally(job.count, hangs=1, notes=[f"hang: {job}"])
        except (EOFError, OSError):
            self._process.join(limit)
            found = Tally(job.count, crashes=1, notes=[f"crash with {self._process.exitcode}: {job}"])
        self.alive = False
        self._process.kill()
        self._process.join()
        return found


def throw(
    kind: str, total: int, *, seed: int, folder: Path, bundles: tuple[Path, ...], processes: int, limit: float
) -> Iterator[Tally]:
    """`total` things of a kind in so many processes; gives what became of each job."""
    draw, size, own = Random(f"{kind} {seed}"), SIZES.get(kind, 1), threading.local()

    def do(job: Job) -> Tally:
        if not getattr(own, "child", None) or not own.child.alive:
            own.child = Child(Path(tempfile.mkdtemp(dir=folder)), bundles)
        found: Tally = own.child.do(job, limit)
        return found

    yield from side_by_side(
        do, [Job(kind, draw.randrange(2**40), min(size, total - at)) for at in range(0, total, size)], processes
    )


def side_by_side(do: Callable[[T], Tally], jobs: Iterable[T], processes: int) -> Iterator[Tally]:
    """What becomes of the jobs, as they end. Who is interrupted waits for those that have begun."""
    pool = ThreadPoolExecutor(processes)
    try:
        yield from (done.result() for done in as_completed([pool.submit(do, job) for job in jobs]))
    finally:
        pool.shutdown(cancel_futures=True)


def _serve(pipe: Connection, folder: Path, bundles: tuple[Path, ...]) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
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
            tally.count(fault, job)
        tally.done = job.count
        pipe.send(tally)

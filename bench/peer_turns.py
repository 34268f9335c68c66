"""Peers in their processes: converted, loaded, settled on their best batch sizes, then run in turns.

A peer that is not installed, or fails, is set aside with its reason and the rest go on. Seconds are those that the
processes take inside themselves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from cascade_bench.interleaving import interleave
from cascade_bench.peer_kinds import Kind
from cascade_bench.peer_process import Job, PeerError, PeerProcess

__all__ = ["BATCH_SIZES", "Absent", "PeerTurns", "Peers", "Running"]

BATCH_SIZES = (1, 8, 16, 32, 64, 128)
SUBSET = 192  # texts on which batch sizes are tried
WORSE = 0.8  # of the best rate so far: where a size is as slow as that, larger ones are not tried
PAUSE = 0.25  # seconds between turns, in which the threads of the process before stop spinning
ORDERS = {False: "as given", True: "by length"}

Who = tuple[str, bool]
"""A peer's key, and whether it sorts the texts by length."""


@dataclass(frozen=True)
class Absent:
    """A peer without figures: what it lacks, or why it failed."""

    kind: Kind
    reason: str
    failed: bool


@dataclass
class Running:
    """A peer that is loaded; by order of the texts its best batch size, the rates tried, its answers, a first pass."""

    kind: Kind
    process: PeerProcess
    load_seconds: float = 0.0
    sizes: dict[bool, int] = field(default_factory=dict)
    tried: dict[bool, dict[int, float]] = field(default_factory=dict)
    labels: dict[bool, list[Any]] = field(default_factory=dict)
    warm_up: dict[bool, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PeerTurns:
    """What came out: seconds by repeat, passes in a turn, and who ran in which order."""

    seconds: Mapping[Who, list[float | None]]
    passes: Mapping[Who, int]
    orders: list[list[str]]


class _Clock:
    """Seconds that processes say they took; stands where `interleave` expects a clock."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Peers:
    """Peers of one comparison. Use it as a context manager: all processes end with the block.

    Args:
        job: what they are given; its folder must be there.
        texts: what they answer.
        sizes: of batches to try.
        start: starts a process; `PeerProcess` if left out.
        progress: called before each piece of work with its name.

    Attributes:
        running: those that are loaded, by key.
        absent: those without figures, by key.
        count: texts.
    """

    def __init__(
        self,
        job: Job,
        texts: Sequence[Any],
        *,
        sizes: Sequence[int] = BATCH_SIZES,
        start: Callable[[], PeerProcess] | None = None,
        progress: Callable[[str], object] | None = None,
    ) -> None:
        self.running: dict[str, Running] = {}
        self.absent: dict[str, Absent] = {}
        self.count = len(texts)
        self._job, self._sizes = job, sizes
        self._start = start or (lambda: PeerProcess(threads=job.threads))
        self._say = progress or (lambda _name: None)
        (Path(job.folder) / "texts.json").write_text(json.dumps(list(texts)), encoding="utf-8")

    def __enter__(self) -> Peers:  # noqa: PYI034  # typing has Self from 3.11 on
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for peer in self.running.values():
            peer.process.kill()

    def load(self, kinds: Sequence[Kind]) -> None:
        """Convert what these need, load them, find their best batch sizes."""
        steps: dict[str, str] = {}  # those taken, and why they failed: empty where they did not
        for kind in kinds:
            if kind.missing:
                reason = f"not installed: {', '.join(kind.missing)}; {kind.install}"
                self.absent[kind.key] = Absent(kind, reason, failed=False)
                continue
            fault = self._convert(kind, steps)
            if fault:
                self.absent[kind.key] = Absent(kind, f"the checkpoint could not be converted: {fault}", failed=True)
                continue
            peer = Running(kind, self._start())
            self.running[kind.key] = peer
            self.guard(peer, self._settle)

    def take_turns(self, repeats: int, *, pause: float = PAUSE) -> PeerTurns:
        """Turns of all that are running; one that fails in its turn is set aside."""
        clock = _Clock()
        names = {
            f"{peer.kind.name}, {ORDERS[by_length]}": (peer, by_length)
            for peer in self.running.values()
            for by_length in peer.sizes
        }

        def bound(peer: Running, by_length: bool) -> Callable[[], None]:
            def once(peer: Running) -> None:
                clock.now += peer.process.run(batch_size=peer.sizes[by_length], by_length=by_length).seconds

            return lambda: self.guard(peer, once) if peer.kind.key in self.running else None

        turns = interleave(
            {name: bound(*who) for name, who in names.items()},
            repeats=repeats,
            warm_up={name: peer.warm_up[by_length] for name, (peer, by_length) in names.items()},
            progress=self._say,
            clock=clock,
            pause=pause,
        )
        keys = {name: (peer.kind.key, by_length) for name, (peer, by_length) in names.items()}
        return PeerTurns(
            {who: turns.seconds[name] for name, who in keys.items()},
            {who: turns.plans[name].passes for name, who in keys.items()},
            turns.orders,
        )

    def quit(self) -> dict[str, float | None]:
        """End all; the most memory that each held, in MiB."""
        peaks: dict[str, float | None] = dict.fromkeys(self.running)

        def last(peer: Running) -> None:
            peaks[peer.kind.key] = peer.process.quit()

        for peer in list(self.running.values()):
            self.guard(peer, last)
        return peaks

    def guard(self, peer: Running, work: Callable[[Running], None]) -> None:
        """Do something with a peer; if it fails, set it aside."""
        try:
            work(peer)
        except PeerError as error:
            peer.process.kill()
            del self.running[peer.kind.key]
            self.absent[peer.kind.key] = Absent(peer.kind, str(error), failed=True)

    def _convert(self, kind: Kind, steps: dict[str, str]) -> str:
        """Take the steps of a kind that were not taken yet, each in a process that ends; why one failed, if it did."""
        for step in kind.steps:
            if step not in steps:
                self._say(f"converting: {step}")
                with self._start() as process:
                    try:
                        process.prepare(step, self._job)
                        steps[step] = ""
                    except PeerError as error:
                        steps[step] = str(error)
            if steps[step]:
                return steps[step]
        return ""

    def _settle(self, peer: Running) -> None:
        """Load it; find its best batch sizes, each tried twice and the better run counting; a pass for its answers."""
        self._say(f"loading: {peer.kind.name}")
        peer.load_seconds = peer.process.load(peer.kind.key, self._job)
        some = min(SUBSET, self.count)
        for by_length in (False,) if peer.kind.own else (False, True):
            tried = {}
            for size in () if peer.kind.own else self._sizes:
                self._say(f"{peer.kind.name}, {ORDERS[by_length]}, batches of {size}")
                ran = [peer.process.run(batch_size=size, by_length=by_length, some=some) for _ in range(2)]
                tried[size] = some / max(min(one.seconds for one in ran), 1e-9)
                if tried[size] < WORSE * max(tried.values()):
                    break
            best = max(tried, key=tried.__getitem__, default=0)
            self._say(f"warm-up: {peer.kind.name}, {ORDERS[by_length]}")
            first = peer.process.run(batch_size=best, by_length=by_length)
            peer.tried[by_length], peer.sizes[by_length] = tried, best
            peer.labels[by_length], peer.warm_up[by_length] = first.labels, first.seconds

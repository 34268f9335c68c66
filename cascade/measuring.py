"""What the parts of a loaded classifier cost on this machine: timed over a small grid of batches, in a few seconds.

A part costs one thing alone, on all threads, and another beside its like, one batch per thread; both are measured, the
latter with all threads busy. Every turn visits the whole grid, and what counts of a point's times is their lower
quartile: whatever else the machine does only adds to them. It leaves to others: fitting (`cost_model`), keeping the fit
(`cost_cache`), using it (`schedule`, `planner`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
from tqdm import tqdm

from cascade.batch import Batch, BoolArray, FloatArray, IntArray, cumulated
from cascade.batching import FixedSize
from cascade.calibration.timing import Timed
from cascade.checks import check_whole
from cascade.cost_model import CostModel, Size, fit
from cascade.engine import Cascade
from cascade.exits import ExitPolicy, ExitState, never
from cascade.host_costs import GraphCosts, HostCosts
from cascade.routing import RoutingState
from cascade.tiers import MultiExit, Progress, Scores, SingleExit
from cascade.tokenizer import Encoded, Text
from cascade.workers import run_each

__all__ = ["POINTS", "measure"]

POINTS = (
    *((1, 8), (1, 24), (1, 96), (4, 16), (4, 64), (16, 8), (16, 32), (64, 8), (64, 16)),
    *((192, 8), (16, 96), (64, 32), (96, 40)),
)
"""Rows and tokens of each, of the batches that are timed."""
KNEES = (512, 1024)
MOST_STOPPED = 1024  # tokens: on larger batches stops are not timed, what they cost grows evenly
TEXTS = ((1, 6), (1, 30), (1, 120), (16, 6), (16, 30), (128, 6), (128, 30))
"""Texts and words of each, of the lists that are tokenised."""
SENTENCE = "a gripping film and not one minute too long though its quiet second half asks for some patience"
STARTS = 5  # of threads, in a turn
SHORTEST = 1e-9  # seconds: a difference of two times may come out below 0

Clock: TypeAlias = Callable[[], float]
Notes: TypeAlias = "dict[tuple[str, int], list[float]]"
"""Seconds by part and number of the point."""


def measure(
    tier1: SingleExit,
    tier2: MultiExit,
    encode: Callable[[Sequence[Text]], Encoded],
    *,
    max_length: int,
    points: Sequence[tuple[int, int]] = POINTS,
    repeats: int = 3,
    show_progress: bool = False,
    clock: Clock = time.perf_counter,
) -> HostCosts:
    """Time everything that a call consists of.

    Args:
        tier1: the cheap tier.
        tier2: the accurate one; its own exit policy and batching do not matter.
        encode: texts to rows, as `Tokenizer.encode`.
        max_length: tokens that a row of both tiers may have.
        points: rows and tokens of each.
        repeats: turns that count; one more goes before them, over small batches.
        show_progress: draw a bar on standard error.
        clock: gives seconds.

    Raises:
        OptionError: repeats below 1, or fewer points than a cost model needs.
    """
    check_whole("repeats", repeats, "3 give a fair quartile")
    sizes = list(dict.fromkeys((rows, min(tokens, max_length)) for rows, tokens in points))
    texts = [[_text(words, start) for start in range(count)] for count, words in TEXTS]
    ids = encode(texts[-1]).batch.ids
    rows = [_rows(ids, *size) for size in sizes]
    bench = _Bench(clock=clock, threads=tier2.threads)
    alone = [_Pass.of(tier1, tier2, clock)]
    serial1, serial2 = replace(tier1, backend=tier1.backend.serial), tier2.serial
    beside = [_Pass.of(serial1, serial2, clock) for _ in range(tier2.threads)]
    turns = [[(number, batch) for number, batch in enumerate(rows) if batch.tokens <= MOST_STOPPED]]
    turns += [list(enumerate(rows))] * repeats
    with tqdm(total=sum(map(len, turns)), desc="measuring", unit="batch", disable=not show_progress) as bar:
        for turn in turns:
            bench.texts(encode, texts)
            bench.start()
            for number, batch in turn:
                bench.calls(batch, number, labels=tier2.labels)
                bench.side_by_side("alone", alone, batch, number)
                if tier2.threads > 1:
                    bench.side_by_side("beside", beside, batch, number)
                bar.update()
            if turn is turns[0]:
                bench.notes.clear()
    of_rows = [Size(len(batch), batch.tokens, int(batch.lengths.max())) for batch in rows]
    seen = {kind: _Seen(bench.notes, kind, of_rows) for kind in ("alone", "beside" if tier2.threads > 1 else "alone")}

    def graph(part: str) -> GraphCosts:
        return GraphCosts(seen["alone"].model(part), seen.get("beside", seen["alone"]).model(part))

    encoded = [encode(some).batch for some in texts]
    return HostCosts(
        threads=tier2.threads,
        layers=tuple(tier2.layers),
        tokenize=_fitted(bench.notes, "tokenize", [Size(len(b), b.tokens, int(b.lengths.max())) for b in encoded]),
        call=_fitted(bench.notes, "call", of_rows),
        tier1=graph("tier1"),
        embed=graph("embed"),
        stages=tuple(graph(f"stage {number}") for number in range(len(tier2.stages))),
        between=graph("between"),
        stop=graph("stop"),
        start=_typical([one for number in range(STARTS) for one in bench.notes["start", number]]),
    )


@dataclass(frozen=True, eq=False)
class _Pass:
    """Both tiers for one thread, in a form in which they take one batch at a time and note what takes how long."""

    tier1: SingleExit
    tier2: MultiExit
    embed: Timed
    stages: list[Timed]

    @classmethod
    def of(cls, tier1: SingleExit, tier2: MultiExit, clock: Clock) -> _Pass:
        embed, stages = Timed(tier2.embed, clock=clock), [Timed(stage, clock=clock) for stage in tier2.stages]
        whole = FixedSize(1 << 30)
        second = replace(tier2, embed=embed, stages=stages, batching=whole, threads=1)
        return cls(replace(tier1, batching=whole, threads=1), second, embed, stages)

    def run(self, batch: Batch, clock: Clock) -> dict[str, float]:
        """Seconds by part; `never` and `leaving`: of all that is around the graphs without and with stops."""
        begin = clock()
        self.tier1.score(batch)
        found = {"tier1": clock() - begin}
        if batch.tokens <= MOST_STOPPED:
            found["leaving"], _ = self._around(_one_leaves, batch, clock)
        found["never"], graphs = self._around(never, batch, clock)
        return {**found, **graphs}

    def _around(self, policy: ExitPolicy, batch: Batch, clock: Clock) -> tuple[float, dict[str, float]]:
        for timed in (self.embed, *self.stages):
            timed.runs.clear()
        tier2 = replace(self.tier2, exit_policy=policy)
        begin = clock()
        tier2.score(batch)
        total = clock() - begin
        graphs = {"embed": self.embed.seconds, **{f"stage {n}": s.seconds for n, s in enumerate(self.stages)}}
        return max(total - sum(graphs.values()), SHORTEST), graphs


@dataclass(frozen=True, eq=False)
class _Bench:
    """Runs things, and notes their seconds."""

    clock: Clock
    threads: int
    notes: Notes = field(default_factory=dict)

    def note(self, part: str, number: int, seconds: float) -> None:
        self.notes.setdefault((part, number), []).append(max(seconds, SHORTEST))

    def texts(self, encode: Callable[[Sequence[Text]], Encoded], texts: Sequence[Sequence[Text]]) -> None:
        for number, some in enumerate(texts):
            begin = self.clock()
            encode(some)
            self.note("tokenize", number, self.clock() - begin)

    def start(self) -> None:
        """What it takes to have threads; on one thread nothing is started."""
        for number in range(STARTS):
            begin = self.clock()
            for _ in run_each(abs, range(self.threads), threads=self.threads):
                pass
            self.note("start", number, self.clock() - begin)

    def calls(self, batch: Batch, number: int, *, labels: int) -> None:
        """What `Cascade` does by itself: the tiers have their answers ready, every second row is deferred."""
        tier = _Ready(labels)
        cascade = Cascade(tier, tier, _every_second, blend=0.5)
        begin = self.clock()
        cascade.score(batch)
        self.note("call", number, self.clock() - begin)

    def side_by_side(self, kind: str, passes: Sequence[_Pass], batch: Batch, number: int) -> None:
        """The same batch in all passes at once, each on a thread of its own."""
        start = threading.Barrier(len(passes))

        def run(one: _Pass) -> dict[str, float]:
            start.wait()
            return one.run(batch, self.clock)

        if len(passes) == 1:
            made = [run(passes[0])]
        else:
            with ThreadPoolExecutor(len(passes)) as pool:
                made = list(pool.map(run, passes))
        for found in made:
            for part, seconds in found.items():
                self.note(f"{kind} {part}", number, seconds)


@dataclass(frozen=True, eq=False)
class _Seen:
    """What was noted of one kind: `alone` or `beside`."""

    notes: Notes
    kind: str
    sizes: Sequence[Size]

    def model(self, part: str) -> CostModel:
        if part not in ("between", "stop"):
            return _fitted(self.notes, f"{self.kind} {part}", self.sizes, knees=KNEES)
        stages = sum(name.startswith(f"{self.kind} stage ") and not number for name, number in self.notes)
        sizes, seconds = [], []
        for number, size in enumerate(self.sizes):
            stop = quiet = _typical(self.notes[f"{self.kind} never", number]) / stages
            if part == "stop":
                leaving = self.notes.get((f"{self.kind} leaving", number))
                if leaving is None:
                    continue
                # Nobody is asked after the last stage.
                stop = (_typical(leaving) - quiet) / (stages - 1) if stages > 1 else quiet
            sizes.append(size)
            seconds.append(max(stop, quiet))
        return fit(sizes, seconds)


@dataclass(frozen=True)
class _Ready:
    """A tier that has its answers already."""

    labels: int

    def score(self, batch: Batch, *, prior: FloatArray | None = None, progress: Progress | None = None) -> Scores:
        """Of no interest."""
        answers = np.full((len(batch), self.labels), 0.5, dtype=np.float32)
        return Scores(answers, answers[:, 0], np.zeros(len(batch), dtype=np.int64))


def _typical(seconds: Sequence[float]) -> float:
    return float(np.quantile(seconds, 0.25))


def _every_second(state: RoutingState) -> BoolArray:
    deferred: BoolArray = np.arange(len(state.confidence)) % 2 == 0
    return deferred


def _one_leaves(state: ExitState) -> BoolArray:
    """So that the others are packed anew, and hardly fewer than before."""
    gone = np.zeros(len(state.probabilities), dtype=np.bool_)
    gone[: len(gone) > 1] = True
    return gone


def _fitted(notes: Notes, part: str, sizes: Sequence[Size], knees: Sequence[int] = ()) -> CostModel:
    return fit(sizes, [_typical(notes[part, number]) for number in range(len(sizes))], knees=knees)


def _rows(ids: IntArray, rows: int, tokens: int) -> Batch:
    lengths = np.full(rows, tokens, dtype=np.int64)
    return Batch(np.resize(ids, rows * tokens), np.zeros(rows * tokens, dtype=np.int64), cumulated(lengths))


def _text(words: int, start: int) -> str:
    known = SENTENCE.split()
    return " ".join(known[(start + number) % len(known)] for number in range(words))

"""What the parts of a loaded classifier cost on this machine: timed over a small grid of batches, in a few seconds.

A part costs one thing alone, on all threads or on one, and another beside its like, one batch per thread; all are
measured, the latter with all threads busy. Every turn visits the whole grid, and what counts of a point's times is
their lower quartile: whatever else the machine does only adds to them. It leaves to others: what is run (`trials`),
fitting (`cost_model`), keeping the fit (`cost_cache`), using it (`schedule`, `planner`).
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
from tqdm import tqdm

from cascade.batch import Batch
from cascade.checks import check_whole
from cascade.cost_model import CostModel, Size, fit
from cascade.engine import Cascade
from cascade.host_costs import GraphCosts, HostCosts
from cascade.tiers import MultiExit, SingleExit
from cascade.tokenizer import Encoded, Text
from cascade.trials import MOST_STOPPED, SHORTEST, Clock, Ready, Trial, every_second, rows_of, text_of
from cascade.workers import run_each

__all__ = ["POINTS", "measure"]

POINTS = (
    *((1, 8), (1, 24), (1, 96), (4, 16), (4, 64), (16, 8), (16, 32), (64, 8), (64, 16)),
    *((192, 8), (16, 96), (64, 32), (96, 40)),
)
"""Rows and tokens of each, of the batches that are timed."""
KNEES = (512, 1024)
TEXTS = ((1, 6), (1, 30), (1, 120), (16, 6), (16, 30), (128, 6), (128, 30))
"""Texts and words of each, of the lists that are tokenised."""
STARTS = 5  # of threads, in a turn
WARM, AGAIN = 256, 4  # batches of fewer tokens run so often in a turn: as in a row of small calls, caches are warm

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
    texts = [[text_of(words, start) for start in range(count)] for count, words in TEXTS]
    ids = encode(texts[-1]).batch.ids
    rows = [rows_of(ids, *size) for size in sizes]
    bench = _Bench(clock=clock, threads=tier2.threads)
    serial1, serial2 = replace(tier1, backend=tier1.backend.serial), tier2.serial
    trials = {"alone": [Trial.of(tier1, tier2, clock)]}
    if tier2.threads > 1:
        trials["beside"] = [Trial.of(serial1, serial2, clock) for _ in range(tier2.threads)]
        trials["lone"] = trials["beside"][:1]
    turns = [[(number, batch) for number, batch in enumerate(rows) if batch.tokens <= MOST_STOPPED]]
    turns += [list(enumerate(rows))] * repeats
    with tqdm(total=sum(map(len, turns)), desc="measuring", unit="batch", disable=not show_progress) as bar:
        for turn in turns:
            bench.texts(encode, texts)
            bench.start()
            for number, batch in turn:
                bench.calls(batch, number, labels=tier2.labels)
                for kind, several in trials.items():
                    if kind != "lone" or batch.tokens <= MOST_STOPPED:
                        bench.side_by_side(kind, several, batch, number)
                bar.update()
            if turn is turns[0]:
                bench.notes.clear()
    of_rows = [Size(len(batch), batch.tokens, int(batch.lengths.max())) for batch in rows]
    seen = {kind: _Seen(bench.notes, kind, of_rows) for kind in trials}

    def graph(part: str) -> GraphCosts:
        found = {kind: one.model(part) for kind, one in seen.items()}
        alone = found["alone"]
        return GraphCosts(alone, found.get("beside", alone), found.get("lone", alone))

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
class _Bench:
    """Runs things, and notes their seconds."""

    clock: Clock
    threads: int
    notes: Notes = field(default_factory=dict)

    def note(self, part: str, number: int, seconds: float) -> None:
        self.notes.setdefault((part, number), []).append(max(seconds, SHORTEST))

    def texts(self, encode: Callable[[Sequence[Text]], Encoded], texts: Sequence[Sequence[Text]]) -> None:
        for number, some in enumerate(texts):
            for _ in range(AGAIN):
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
        tier = Ready(labels)
        cascade = Cascade(tier, tier, every_second, blend=0.5)
        for _ in range(_often(batch)):
            begin = self.clock()
            cascade.score(batch)
            self.note("call", number, self.clock() - begin)

    def side_by_side(self, kind: str, passes: Sequence[Trial], batch: Batch, number: int) -> None:
        """The same batch in all passes at once, each on a thread of its own."""
        start = threading.Barrier(len(passes))

        def run(one: Trial) -> list[tuple[str, float]]:
            start.wait()
            return [found for _ in range(_often(batch)) for found in one.run(batch, self.clock).items()]

        if len(passes) == 1:
            made = [run(passes[0])]
        else:
            with ThreadPoolExecutor(len(passes)) as pool:
                made = list(pool.map(run, passes))
        for part, seconds in itertools.chain.from_iterable(made):
            self.note(f"{kind} {part}", number, seconds)


@dataclass(frozen=True, eq=False)
class _Seen:
    """What was noted of one kind: `alone`, `beside` or `lone`."""

    notes: Notes
    kind: str
    sizes: Sequence[Size]

    def model(self, part: str) -> CostModel:
        if part not in ("between", "stop"):
            return _fitted(self.notes, f"{self.kind} {part}", self.sizes, knees=KNEES)
        stages = sum(name.startswith(f"{self.kind} stage ") and not number for name, number in self.notes)
        sizes, seconds = [], []
        for number, size in enumerate(self.sizes):
            if (f"{self.kind} never", number) not in self.notes:
                continue
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


def _often(batch: Batch) -> int:
    return AGAIN if batch.tokens < WARM else 1


def _typical(seconds: Sequence[float]) -> float:
    return float(np.quantile(seconds, 0.25))


def _fitted(notes: Notes, part: str, sizes: Sequence[Size], knees: Sequence[int] = ()) -> CostModel:
    timed = [number for number in range(len(sizes)) if (part, number) in notes]
    return fit([sizes[number] for number in timed], [_typical(notes[part, number]) for number in timed], knees=knees)

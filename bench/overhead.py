"""What of `predict` is not the graphs: splitting texts into tokens, packing, routing, merging, naming labels.

Definitions. A graph runs from the call of its backend until that returns. *Outside* is the share of a call's wall time
during which no graph runs: 1 - (length of the union of all runs) / wall time. With one thread that is all of the work
around ONNX Runtime. With several, one thread packs while another runs a graph, and what is hidden in this way is not
outside; so the share of *idle* thread time stands beside it: 1 - (sum of all runs) / (threads x wall time), where a run
on the pool of all threads counts for each of them.

The file's texts are answered over and over, as they are. The tokenizer remembers chunks that it has seen, so repeated
texts are cheap; the same call therefore also runs with a table that begins empty, and with none at all. It leaves to
others: taking turns (`interleaving`), how it looks (`overhead_cli`).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from cascade.bundle.manifest import TOKENIZER_FILE
from cascade.exceptions import DataError
from cascade.pipelines.classifier import Classifier
from cascade.runtime.backend import Array, Backend
from cascade.text.tokenizer import Text, Tokenizer
from cascade_bench.interleaving import Turns, interleave
from cascade_bench.statistics import Interval, median_interval

__all__ = ["PARTS", "Chunks", "Overhead", "Run", "Sample", "Watched", "Way", "measure", "union"]

PARTS = ("tokenize", "tier1", "route", "tier2", "merge", "answers")
"""Parts of a call, without the graphs inside; `answers`: all that no clock of the engine counts, such as labels."""

Clock = Callable[[], float]


class Chunks(Enum):
    """The tokenizer's table of chunks of text seen before: all are known, none is at first, there is no table."""

    KNOWN = "known"
    EMPTY = "empty at first"
    NONE = "no table"


@dataclass(frozen=True)
class Run:
    """A graph's run: when it began and ended, in seconds, and on how many threads."""

    begin: float
    end: float
    threads: int


@dataclass(frozen=True, eq=False)
class Watched:
    """A backend that writes down when it runs.

    Attributes:
        inner: what runs.
        runs: where to; several threads may append.
        threads: that the inner one's pool has.
        clock: gives seconds.
    """

    inner: Backend
    runs: list[Run]
    threads: int
    clock: Clock = time.perf_counter

    @property
    def inputs(self) -> tuple[str, ...]:
        """As the inner one's."""
        return self.inner.inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        """As the inner one's."""
        return self.inner.outputs

    @property
    def serial(self) -> Watched:
        """The inner one's, watched too."""
        return Watched(self.inner.serial, self.runs, 1, self.clock)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name."""
        begin = self.clock()
        try:
            return self.inner.run(feeds)
        finally:
            self.runs.append(Run(begin, self.clock(), self.threads))


@dataclass(frozen=True)
class Way:
    """How `predict` was called: threads of the classifier, and what the tokenizer knew."""

    threads: int
    chunks: Chunks

    @property
    def name(self) -> str:
        """For programs and progress."""
        return f"{self.threads} thread{'s' * (self.threads > 1)}, chunks {self.chunks.value}"


@dataclass(frozen=True)
class Sample:
    """One call.

    Attributes:
        wall: seconds.
        graphs: seconds during which at least one graph ran.
        busy: seconds of threads that a graph had.
        parts: seconds without graphs by part (`PARTS`); together `wall` less `graphs`.
    """

    wall: float
    graphs: float
    busy: float
    parts: Mapping[str, float]

    @property
    def outside(self) -> float:
        """Share of the wall time, in [0, 1]."""
        return 1 - self.graphs / self.wall

    def idle(self, threads: int) -> float:
        """Share of thread time without a graph, in [0, 1]."""
        return 1 - self.busy / (threads * self.wall)


@dataclass(frozen=True)
class Overhead:
    """What was measured.

    Attributes:
        texts: of a call.
        distinct: texts of the file, which come again and again.
        samples: by way, one per call.
        turns: who ran when.
    """

    texts: int
    distinct: int
    samples: Mapping[Way, Sequence[Sample]]
    turns: Turns

    def outside(self, way: Way) -> Interval:
        """Median share outside the graphs, with its interval."""
        return median_interval([sample.outside for sample in self.samples[way]])

    def idle(self, way: Way) -> Interval:
        """Median share of thread time without a graph, with its interval."""
        return median_interval([sample.idle(way.threads) for sample in self.samples[way]])

    def part(self, way: Way, part: str) -> float:
        """Median share of the wall time of one of `PARTS`."""
        return median_interval([sample.parts[part] / sample.wall for sample in self.samples[way]]).median


def measure(
    classifiers: Mapping[int, Classifier],
    given: Sequence[Text],
    *,
    texts: int = 10_000,
    repeats: int = 5,
    progress: Callable[[str], object] | None = None,
    clock: Clock = time.perf_counter,
) -> Overhead:
    """Call `predict` in every way, in turns.

    Args:
        classifiers: the same bundle by threads.
        given: texts of the file, at least one.
        texts: of a call; those of the file come again until there are as many.
        repeats: turns of each way, but for slow ones (`interleaving.Plan`).
        progress: called before each turn with its name.
        clock: gives seconds; not that of `Stats.seconds`, which is `time.perf_counter`.

    Raises:
        DataError: no texts.
    """
    if not given:
        raise DataError("there must be at least one text to answer, had none; give another file")
    all_texts = list(itertools.islice(itertools.cycle(given), texts))
    samples: dict[Way, list[Sample]] = {}
    runs: dict[str, Callable[[], object]] = {}
    for threads, classifier in classifiers.items():
        for chunks in Chunks:
            way = Way(threads, chunks)
            samples[way] = []
            runs[way.name] = _runner(classifier, way, all_texts, samples[way], clock)
    warm_up = {}
    for name, run in runs.items():
        if progress is not None:
            progress(f"warm-up: {name}")
        begin = clock()
        run()
        warm_up[name] = clock() - begin
    for taken in samples.values():
        taken.clear()
    turns = interleave(runs, repeats=repeats, warm_up=warm_up, progress=progress, clock=clock)
    return Overhead(len(all_texts), min(len(given), texts), samples, turns)


def union(runs: Sequence[Run]) -> float:
    """Seconds during which at least one of them was under way."""
    total, until = 0.0, -float("inf")
    for run in sorted(runs, key=lambda run: run.begin):
        total += max(run.end - max(run.begin, until), 0.0)
        until = max(until, run.end)
    return total


def _runner(
    classifier: Classifier, way: Way, texts: Sequence[Text], samples: list[Sample], clock: Clock
) -> Callable[[], object]:
    runs: dict[str, list[Run]] = {"tier1": [], "tier2": []}
    one, two = classifier.tier1, classifier.tier2

    def watched(backend: Backend, tier: str) -> Watched:
        return Watched(backend, runs[tier], way.threads, clock)

    watching = replace(
        classifier,
        tier1=replace(one, backend=watched(one.backend, "tier1")),
        tier2=replace(two, embed=watched(two.embed, "tier2"), stages=[watched(stage, "tier2") for stage in two.stages]),
    )

    def run() -> None:
        asked = watching if way.chunks is Chunks.KNOWN else replace(watching, tokenizer=_fresh(classifier, way.chunks))
        for taken in runs.values():
            taken.clear()
        begin = clock()
        made = asked.predict(texts)
        wall = clock() - begin
        seconds = made.stats.seconds
        graphs = {tier: union(taken) for tier, taken in runs.items()}
        parts = {part: seconds.get(part, 0.0) - graphs.get(part, 0.0) for part in PARTS[:-1]}
        busy = sum((one.end - one.begin) * one.threads for one in itertools.chain(*runs.values()))
        parts["answers"] = wall - sum(graphs.values()) - sum(parts.values())
        samples.append(Sample(wall, sum(graphs.values()), busy, parts))

    return run


def _fresh(classifier: Classifier, chunks: Chunks) -> Tokenizer:
    return Tokenizer.from_file(
        classifier.bundle.path(TOKENIZER_FILE),
        max_length=classifier.tokenizer.max_length,
        overlap=classifier.tokenizer.overlap,
        word_table=chunks is Chunks.EMPTY,
    )

"""A stream that does not end: seconds per text and memory as it goes on, and what a second thread brings.

Texts are those of a file over and over, each with a number of its own at its end, so that no two are alike and nothing
that remembers texts has an end of new ones. The numbers come in a mixed order, as the first ten thousand would
otherwise be shorter than those that follow. Answers are thrown away. Time is taken at every mark; of the first
texts (after a warm-up, which makes what is made only once) and of all others. Seconds of the processors stand beside
seconds of the clock: other programs slow the clock, not them.

Answers come in bursts, when what was held back has run. Texts are therefore counted where they are read, and only when
an answer comes out: then all that was read is answered. No text is answered because it has waited long (`max_age`), so
a slow machine and a fast one do the same work.
 Needs psutil, of the `bench` extra.
"""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from cascade.core.checks import check_whole
from cascade.engine.streaming import StreamOptions
from cascade.exceptions import DataError, MissingExtraError, OptionError
from cascade.pipelines.classifier import Classifier
from cascade.text.tokenizer import Text
from cascade_bench.interleaving import Turns, interleave
from cascade_bench.statistics import Interval, speed_up

try:
    import psutil
except ImportError as error:
    raise MissingExtraError(
        f'watching memory needs the bench extra, but {error.name} is missing; pip install "cascade-encoder[bench]"'
    ) from error

__all__ = ["FIRST", "Endless", "Mark", "Meters", "Threads", "endless", "numbered", "threads_against_one"]

FIRST = 10_000  # texts of the beginning, which the rest is compared with
WARM_UP = 1024
NUMBERS, MIXED = 10_000_000, 7_368_787
WHOLE = StreamOptions(max_age=None)
MIB = 2**20

Progress = Callable[[str], object]


def resident() -> float:
    """MiB of memory that this process holds."""
    return float(psutil.Process().memory_info().rss) / MIB


@dataclass(frozen=True)
class Meters:
    """What is read at every mark: seconds of the clock, seconds of the processors, MiB of memory."""

    clock: Callable[[], float] = time.perf_counter
    processors: Callable[[], float] = time.process_time
    memory: Callable[[], float] = resident


@dataclass(frozen=True)
class Mark:
    """After so many texts: seconds of the clock and of the processors since the first one, MiB of memory."""

    texts: int
    seconds: float
    processors: float
    resident: float


@dataclass(frozen=True)
class Endless:
    """What was seen.

    Attributes:
        marks: from 0 texts to all.
        first: texts of the beginning, at least.
        distinct: texts of the file.
    """

    marks: tuple[Mark, ...]
    first: int
    distinct: int

    @property
    def begun(self) -> Mark:
        """The mark after the first texts: the first that has so many."""
        return next(mark for mark in self.marks if mark.texts >= self.first)

    @property
    def texts(self) -> int:
        """Of the whole stream."""
        return self.marks[-1].texts

    def per_text(self, *, beginning: bool, processors: bool = False) -> float:
        """Seconds per text of the beginning, or of all texts after it."""
        start, end = (self.marks[0], self.begun) if beginning else (self.begun, self.marks[-1])
        taken = end.processors - start.processors if processors else end.seconds - start.seconds
        return taken / (end.texts - start.texts)

    def slower(self, *, processors: bool = False) -> float:
        """By what part the rest took longer per text than the beginning; below 0 where it was faster."""
        rest, beginning = (self.per_text(beginning=part, processors=processors) for part in (False, True))
        return rest / beginning - 1

    @property
    def stretches(self) -> list[float]:
        """Seconds per text between neighbouring marks."""
        return [(b.seconds - a.seconds) / (b.texts - a.texts) for a, b in itertools.pairwise(self.marks)]

    @property
    def growth(self) -> float:
        """MiB by which memory at any later mark exceeded that after the first texts; 0 if it never did."""
        begun = self.begun
        later = (mark.resident for mark in self.marks if mark.texts >= begun.texts)
        return max(later) - begun.resident


@dataclass(frozen=True)
class Threads:
    """Streams of equal texts with one thread and with several, in turns.

    Attributes:
        texts: of a stream.
        several: how many threads.
        gain: how many times as fast as one thread.
        turns: who ran when, by name (`one`, `several`).
    """

    texts: int
    several: int
    gain: Interval
    turns: Turns

    def median_seconds(self, name: str) -> float:
        """Of a stream."""
        return median(value for value in self.turns.seconds[name] if value is not None)


def numbered(given: Sequence[Text], count: int, *, start: int = 0) -> Iterator[Text]:
    """So many texts, those given over and over, each with seven digits at its end that no other has.

    Example: ["a", "b"], 3 -> "a 0000000", "b 7368787", "a 4737574"

    Args:
        given: texts or pairs; of a pair the second one gets the number.
        count: how many; of more than ten million some are alike.
        start: place of the first in the row of numbers.
    """
    for place, text in zip(range(start, start + count), itertools.cycle(given), strict=False):
        number = f"{place * MIXED % NUMBERS:07}"  # every number once: the two have no divisor in common
        if isinstance(text, str):
            yield f"{text} {number}"
        else:
            first, second = text  # files have no other pairs
            yield first, f"{second} {number}"


class _Counted(Iterator[Text]):
    """Texts, and how many of them were read."""

    def __init__(self, texts: Iterator[Text]) -> None:
        self._texts = texts
        self.read = 0

    def __next__(self) -> Text:
        text = next(self._texts)
        self.read += 1
        return text


def endless(
    classifier: Classifier,
    given: Sequence[Text],
    *,
    texts: int = 1_000_000,
    every: int = FIRST,
    first: int = FIRST,
    progress: Progress | None = None,
    meters: Meters = Meters(),
) -> Endless:
    """Send texts through `Classifier.stream` and look at the meters as it goes on.

    Args:
        classifier: as it is configured.
        given: texts of the file, at least one.
        texts: of the stream.
        every: texts between marks.
        first: texts of the beginning, fewer than `texts`.
        progress: called at every mark.
        meters: what is read.

    Raises:
        DataError: no texts.
        OptionError: the stream is no longer than its beginning.
    """
    check_whole("every", every, "10000 gives a hundred marks of a million texts")
    check_whole("first", first, "10000 are enough to fill every buffer")
    if not given:
        raise DataError("there must be at least one text to stream, had none; give another file")
    if texts <= first:
        raise OptionError(f"texts must be more than the first {first}, were: {texts}; stream more, or lower first")
    for _ in classifier.stream(numbered(given, WARM_UP, start=texts), options=WHOLE):
        pass
    gc.collect()
    at = iter(sorted({*range(every, texts, every), first, texts}))
    begin, busy = meters.clock(), meters.processors()
    marks = [Mark(0, 0.0, 0.0, meters.memory())]
    source = _Counted(numbered(given, texts))
    wanted = next(at)
    for _ in classifier.stream(source, options=WHOLE):
        if source.read >= wanted:
            seconds, processors = meters.clock() - begin, meters.processors() - busy
            marks.append(Mark(source.read, seconds, processors, meters.memory()))
            wanted = next((one for one in at if one > source.read), texts + 1)
            if progress is not None:
                progress(f"{source.read} texts, {marks[-1].resident:.0f} MiB")
    made = Endless(tuple(marks), first, len(given))
    if made.begun.texts >= texts:
        raise OptionError(
            f"texts must go on after a beginning of {made.begun.texts} (answers come in bursts), were: {texts}; "
            "stream more, or lower first"
        )
    return made


def threads_against_one(
    classifiers: Mapping[int, Classifier],
    given: Sequence[Text],
    *,
    texts: int = 5_000,
    repeats: int = 7,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Threads:
    """The same stream with one thread and with several, in turns.

    Args:
        classifiers: the same bundle by threads, one of them with 1.
        given: texts of the file, at least one.
        texts: of a stream; no two streams have a text in common.
        repeats: turns of each.
        progress: called before each turn.
        clock: gives seconds.
    """
    several = max(classifiers)
    begun = itertools.count(0, texts)

    def runner(classifier: Classifier) -> Callable[[], object]:
        def run() -> None:
            for _ in classifier.stream(numbered(given, texts, start=next(begun)), options=WHOLE):
                pass

        return run

    runs = {"one": runner(classifiers[1]), "several": runner(classifiers[several])}
    warm_up = {}
    for name, run in runs.items():
        if progress is not None:
            progress(f"warm-up: {name}")
        start = clock()
        run()
        warm_up[name] = clock() - start
    turns = interleave(runs, repeats=repeats, warm_up=warm_up, progress=progress, clock=clock)
    gain = speed_up(turns.seconds["one"], turns.seconds["several"])
    if gain is None:  # both have a turn in the first repeat
        raise OptionError("both must have run, one had no turn; raise repeats")
    return Threads(texts, several, gain, turns)

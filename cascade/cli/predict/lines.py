"""A line of JSON for each example, in order, while answers come in buffers.

Every row that is read gets its line, at once or after the rows of its buffer; a row that could not be read gets one
with null for every answer.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TextIO

import numpy as np

from cascade.cli.show import duration
from cascade.core.results import Prediction, Stats, TagPrediction
from cascade.engine.streaming import StreamOptions, buffers
from cascade.exceptions import DataError, OptionError
from cascade.monitoring.monitor import Monitor
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger
from cascade.text.entities import AggregationStrategy, Entity
from cascade.text.reading import Example
from cascade.text.texts import is_empty

BUFFER = 1024  # sentences or texts that go through tier 1 together
ON_EMPTY = ("answer", "null", "error")
PAUSE = 0.2  # seconds without input after which everything that was read is answered
ROUTE = ("tier", "exit", "confidence")

Values = dict[str, Any]


def without_empty(examples: Iterable[Example], way: str) -> Iterator[Example]:
    """The examples, of which empty and blank ones get an answer, get none, or are a `DataError` (see `ON_EMPTY`)."""
    for example in examples:
        given = example.text if example.tokens is None else example.tokens
        if way != "answer" and given is not None and is_empty(given):
            if way == "error":
                raise DataError(
                    f"a text must have a character that is no blank, got {given!r} in line {example.line}; correct it, "
                    "or leave --on-empty out"
                )
            yield replace(example, text=None, tokens=None)
        else:
            yield example


@dataclass(frozen=True, kw_only=True)
class Lines:
    """What lines hold: their keys beside the number. Make one with `labels`, `tags` or `entities`.

    `read`: what the model reads of an example; `None` where that could not be read; `answer`: an answer for each of
    these, in order, calls its second argument with statistics as they come; `values`: of an example's line, by key;
    `unit`: what a unit is, where it is not the row.
    """

    keys: tuple[str, ...]
    read: Callable[[Example], Any]
    answer: Callable[[Iterator[Any], Callable[[Stats], object]], Iterable[Any]]
    values: Callable[[Example, Any], Values]
    unit: str | None = None


def labels(
    classifier: Classifier, *, routes: bool = False, top_k: int | None = None, monitor: Monitor[Any] | None = None
) -> Lines:
    """A label per text. `monitor`: gives the answers in the classifier's place, the same ones."""
    names = classifier.labels

    def values(_: Example, answer: Prediction) -> Values:
        chances, label = answer.probabilities, answer.label
        several = [_rounded(chances[names.index(one)]) for one in label] if isinstance(label, tuple) else None
        found: Values = {"label": label, "score": _rounded(chances.max()) if several is None else several}
        if top_k is not None:
            best = np.argsort(-chances, kind="stable")[:top_k]
            found["top"] = [{"label": names[one], "score": _rounded(chances[one])} for one in best]
        if routes:
            route = answer.route
            found |= {"tier": route.tier, "exit": route.exit_layer, "confidence": _rounded(route.confidence)}
        return found

    return Lines(
        keys=("label", "score", *(("top",) if top_k is not None else ()), *(ROUTE if routes else ())),
        read=lambda example: example.text,
        answer=lambda texts, on_stats: (monitor or classifier).stream(texts, options=_options(on_stats)),
        values=values,
    )


def tags(tagger: Tagger, *, words: bool, routes: bool = False, monitor: Monitor[Any] | None = None) -> Lines:
    """The words of each example with their tags.

    `words`: examples are lists of words, else texts, of which lines tell where each word is; `monitor`: gives the
    answers in the tagger's place, the same ones.
    """

    def values(example: Example, answer: TagPrediction) -> Values:
        found: Values = {"tokens": example.tokens, "tags": answer.tags}
        if answer.spans is not None:
            text, spans = str(example.text), answer.spans.tolist()
            found |= {"tokens": [text[begin:end] for begin, end in spans], "spans": spans}
        if routes:
            columns = answer.routes
            sure = [_rounded(one) for one in columns.confidence.tolist()]
            found |= {"tier": columns.tier.tolist(), "exit": columns.exit_layer.tolist(), "confidence": sure}
        return found

    source = monitor or tagger
    stream = source.stream if words else source.stream_texts
    return Lines(
        keys=("tokens", "tags", *(() if words else ("spans",)), *(ROUTE if routes else ())),
        read=(lambda example: example.tokens) if words else (lambda example: example.text),
        answer=lambda given, on_stats: stream(given, options=_options(on_stats, BUFFER)),
        values=values,
        unit="word",
    )


def entities(tagger: Tagger, strategy: AggregationStrategy, *, routes: bool = False) -> Lines:
    """Each text with its entities, as transformers' pipeline gives them; an `OptionError` if `routes` are asked for."""
    if routes:
        raise OptionError(
            "--routes and --aggregation-strategy exclude each other, both were given; an entity has no route of its own"
        )

    def answer(texts: Iterator[str], on_stats: Callable[[Stats], object]) -> Iterator[list[Entity]]:
        for some in buffers(texts, options=_options(on_stats, BUFFER)):
            on_stats(Stats(texts=len(some)))
            yield from tagger(some, aggregation_strategy=strategy)

    def values(example: Example, found: list[Entity]) -> Values:
        return {"text": example.text, "entities": [{**one, "score": _rounded(one["score"])} for one in found]}

    return Lines(keys=("text", "entities"), read=lambda example: example.text, answer=answer, values=values)


def _options(on_stats: Callable[[Stats], object], buffer_size: int = StreamOptions.buffer_size) -> StreamOptions:
    return StreamOptions(buffer_size, pause=PAUSE, on_stats=on_stats)


@dataclass(kw_only=True)
class Writer:
    """Writes a line for each example, and counts rows, unread ones, units answered and deferred, rows that lost tokens.

    What is answered together is flushed together. Examples are read by another thread, so a lock keeps lines in order.

    `waiting`: examples that are read and not answered; `due`: answers that are still to come of those made together.
    """

    out: TextIO
    lines: Lines
    rows: int = 0
    unread: int = 0
    units: int = 0
    deferred: int = 0
    truncated: int = 0
    due: int = 0
    empty: int = 0
    waiting: deque[Example] = field(default_factory=deque)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def write(self, examples: Iterable[Example]) -> None:
        """A line for each example."""
        for answer in self.lines.answer(self._read(examples), self._count):
            with self._lock:
                self._write_unread()
                example = self.waiting[0]
            values = self.lines.values(example, answer)
            with self._lock:
                self._write(self.waiting.popleft(), values, empty=is_empty(self.lines.read(example)))
                self._write_unread()
                self.due -= 1
                if self.due <= 0:
                    self.out.flush()
        with self._lock:
            self._write_unread()

    def _count(self, stats: Stats) -> None:
        self.due = stats.texts
        self.units += stats.units
        self.deferred += stats.deferred
        self.truncated += stats.truncated

    def _read(self, examples: Iterable[Example]) -> Iterator[Any]:
        for example in examples:
            given = self.lines.read(example)
            with self._lock:
                self.waiting.append(example)
                if given is None:  # where no row before it waits for an answer, it is written at once
                    self._write_unread()
            if given is not None:
                yield given

    def _write_unread(self) -> None:
        before = self.rows
        while self.waiting and self.lines.read(self.waiting[0]) is None:
            example = self.waiting.popleft()
            self.unread += example.error is not None
            self._write(example, dict.fromkeys(self.lines.keys), empty=example.error is None)
        if self.rows > before:
            self.out.flush()

    def _write(self, example: Example, values: Values, *, empty: bool) -> None:
        self.rows += 1
        self.empty += empty
        self.out.write(json.dumps({"line": example.line, **values, **({"empty": True} if empty else {})}) + "\n")


def summary(counts: Any, unit: str | None, seconds: float) -> str:
    """What was counted, in one line; before it a warning where rows lost tokens. `unit`: where it is not the row."""
    warning = ""
    if counts.truncated:
        lost = f"{counts.truncated} of {counts.rows} rows were longer than a tier reads and lost tokens"
        warning = f"Warning: {lost}; shorten or split them\n"
    unread = f", {counts.unread} of them unreadable" if counts.unread else ""
    unread += f", {counts.empty} of them empty" if counts.empty else ""
    of_units = f" of {counts.units} {unit}{'' if counts.units == 1 else 's'}" if unit else ""
    share = f", {counts.deferred / counts.units:.1%}{of_units} deferred to tier 2" if counts.units else ""
    return f"{warning}{counts.rows} {'row' if counts.rows == 1 else 'rows'}{unread} in {duration(seconds)}{share}"


def _rounded(probability: float) -> float:
    return round(float(probability), 6)

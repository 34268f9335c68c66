"""A line of JSON for each example, in order, a buffer of them at a time.

A row that could not be read gets a line with null for every answer, in its place.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TextIO

import numpy as np

from cascade.cli.show import duration
from cascade.core.results import Counts, Prediction, Stats, TagPrediction
from cascade.engine.streaming import StreamOptions, buffers
from cascade.exceptions import CascadeWarning, DataError, OptionError
from cascade.monitoring.monitor import Monitor
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger
from cascade.text.entities import AggregationStrategy, Entity
from cascade.text.reading import Example
from cascade.text.texts import is_empty

BUFFERS = StreamOptions(1024, pause=0.2)
"""Rows that go through all tiers together; fewer where no more come for so many seconds."""
ROUTE = ("tier", "exit", "confidence")

Values = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Lines:
    """What lines hold: their keys beside the number. Make one with `labels`, `tags` or `entities`.

    `answer`: answers for some texts or sentences, in order; `values`: of the line of one of them, by key; `unit`: what
    a unit is, where it is not the row.
    """

    keys: tuple[str, ...]
    answer: Callable[[list[Any]], Any]
    values: Callable[[Any, Any], Values]
    unit: str | None = None


def labels(
    classifier: Classifier, *, routes: bool = False, top_k: int | None = None, monitor: Monitor[Any] | None = None
) -> Lines:
    """A label per text. `monitor`: gives the answers in the classifier's place, the same ones."""
    names = classifier.labels

    def values(_: Any, answer: Prediction) -> Values:
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

    keys = ("label", "score", *(("top",) if top_k is not None else ()), *(ROUTE if routes else ()))
    return Lines(keys=keys, answer=(monitor or classifier).predict, values=values)


def tags(tagger: Tagger, *, words: bool, routes: bool = False, monitor: Monitor[Any] | None = None) -> Lines:
    """The words of each example with their tags.

    `words`: examples are lists of words, else texts, of which lines tell where each word is; `monitor`: gives the
    answers in the tagger's place, the same ones.
    """

    def values(item: Any, answer: TagPrediction) -> Values:
        found: Values = {"tokens": item, "tags": answer.tags}
        if answer.spans is not None:
            spans = answer.spans.tolist()
            found |= {"tokens": [item[begin:end] for begin, end in spans], "spans": spans}
        if routes:
            columns = answer.routes
            sure = [_rounded(one) for one in columns.confidence.tolist()]
            found |= {"tier": columns.tier.tolist(), "exit": columns.exit_layer.tolist(), "confidence": sure}
        return found

    source = monitor or tagger
    keys = ("tokens", "tags", *(() if words else ("spans",)), *(ROUTE if routes else ()))
    return Lines(keys=keys, answer=source.predict if words else source.predict_texts, values=values, unit="word")


def entities(tagger: Tagger, strategy: AggregationStrategy, *, routes: bool = False) -> Lines:
    """Each text with its entities, as transformers' pipeline gives them; an `OptionError` if `routes` are asked for."""
    if routes:
        raise OptionError("--routes and --aggregation-strategy exclude each other; an entity has no route of its own")

    def values(text: str, found: list[Entity]) -> Values:
        return {"text": text, "entities": [{**one, "score": _rounded(one["score"])} for one in found]}

    answer = partial(tagger, aggregation_strategy=strategy)
    return Lines(keys=("text", "entities"), answer=answer, values=values)


def write(examples: Iterable[Example], out: TextIO, lines: Lines, *, on_empty: str = "answer") -> Counts:
    """A line for each example; what was counted.

    `on_empty`: of `ON_EMPTY`, whether empty and blank ones get an answer, get none, or are a `DataError`.
    """
    counts = Counts()
    for some in buffers(_none_empty(examples) if on_empty == "error" else examples, options=BUFFERS):
        items = [example.item for example in some]
        empty = [item is not None and is_empty(item) for item in items]
        if on_empty == "null":
            items = [None if blank else item for item, blank in zip(items, empty, strict=True)]
        given = [item for item in items if item is not None]
        with warnings.catch_warnings():  # the summary says what was cut; how many come together is chance
            warnings.filterwarnings("ignore", "pairs and words must fit|.* units together", CascadeWarning)
            answers = lines.answer(given) if given else ()
        stats = getattr(answers, "stats", Stats())  # entities have none
        answered = map(lines.values, given, answers)
        for example, item, blank in zip(some, items, empty, strict=True):
            values = dict.fromkeys(lines.keys) if item is None else next(answered)
            out.write(json.dumps({"line": example.line, **values, **({"empty": True} if blank else {})}) + "\n")
        out.flush()
        unread = sum(example.error is not None for example in some)
        counts += Counts(len(some), unread, sum(empty), stats.truncated, stats.units, stats.deferred)
    return counts


def _none_empty(examples: Iterable[Example]) -> Iterator[Example]:
    for example in examples:
        if example.item is not None and is_empty(example.item):
            told = f"got {example.item!r} in line {example.line}; correct it, or leave --on-empty out"
            raise DataError(f"a text must have a character that is no blank, {told}")
        yield example


def summary(counts: Counts, unit: str | None, seconds: float) -> str:
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

"""What `cascade demo` shows of a bundle: its answers on sentences, and a comparison with its second tier alone.

Of a classifier sentences with label, probability and route; of a tagger words, tags, and the depth at which each was
decided. The tagger's sentences have no tags to compare with, so what is counted is agreement.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import chain
from statistics import median
from typing import Any

import click

from cascade.cli.show import choose, clipped, duration, route_in_words
from cascade.core.console import table
from cascade.core.results import Predictions, Route, Routes, TagPredictions
from cascade.exceptions import BundleError, printable
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger
from cascade.policies.exits import never
from cascade.policies.routing import defer_all

REPETITIONS = 5
PATIENCE = 4.0  # seconds of timing; a slow machine gets fewer repetitions
FASTER = 1.05  # ratio from which the cascade counts as faster
TEXTS = 14  # rows of the table
SENTENCES = 8  # word by word
COLOURS = ("green", "yellow", "magenta", "red")  # of tier 2, from its first layers to its last
TIER1 = "cyan"


@dataclass(frozen=True)
class Sentence:
    """A text of the demo, its label, and what is hard about it (`plain`: nothing)."""

    text: str
    label: str
    kind: str


def sentences(name: str) -> list[Sentence]:
    """The sentences for a bundle, `sentiment` or `intents`."""
    return [Sentence(**line) for line in _lines(name)]


def split_sentences() -> list[list[str]]:
    """The sentences for a tagger, split into words."""
    return [line["tokens"] for line in _lines("tags")]


def _lines(name: str) -> list[dict[str, Any]]:
    file = resources.files(__package__) / f"{name}.jsonl"
    return list(map(json.loads, file.read_text(encoding="utf-8").splitlines()))


def texts_shown(name: str, classifier: Classifier) -> Iterator[str]:
    """Paragraphs about one bundle; a `BundleError` if it does not know the labels of the sentences."""
    texts = sentences(name)
    labels = [sentence.label for sentence in texts]
    unknown = sorted(set(labels) - set(classifier.labels))
    if unknown:
        raise BundleError(
            f"the bundle {name} must know the labels of the demo's sentences, lacks: {', '.join(unknown[:5])}; "
            "give a folder with the project's own bundles with --models"
        )
    comparison, answers, _ = compare(classifier, [sentence.text for sentence in texts], labels)
    yield _heading(f"{name}: {len(texts)} sentences, {len(classifier.labels)} labels")
    yield _examples(texts, answers, classifier.tier2.layers[-1])
    yield from comparison.shown()


def _examples(texts: Sequence[Sentence], answers: Predictions, depth: int) -> str:
    words = [route_in_words(route, depth) for route in answers.routes]
    keys = [(route, text.kind, text.label == "positive") for route, text in zip(words, texts, strict=True)]
    chosen = choose(keys, TEXTS)
    label_width = max(len(str(answers.labels[row])) for row in chosen)
    room = shutil.get_terminal_size((110, 24)).columns - label_width - max(map(len, words)) - 24
    rows = []
    for row in sorted(chosen, key=lambda row: (answers.routes[row].tier, answers.routes[row].exit_layer, row)):
        label, right = printable(str(answers.labels[row])), answers.labels[row] == texts[row].label
        rows.append(
            [
                clipped(texts[row].text, max(room, 24)),
                click.style(label, fg="green" if right else "red") + ("" if right else " (wrong)"),
                f"{answers.probabilities[row].max():.2f}",
                click.style(words[row], fg=TIER1 if answers.routes[row].tier == 1 else "yellow"),
            ]
        )
    return table(["sentence", "label", "prob.", "route"], rows, right=(2,))


def words_shown(name: str, tagger: Tagger) -> Iterator[str]:
    """Paragraphs about one bundle."""
    words = split_sentences()
    comparison, answers, _ = compare(tagger, words)
    layers = tagger.tier2.layers[-1]
    yield _heading(f"{name}: {len(words)} sentences, {comparison.count} words, {len(tagger.labels)} tags")
    width = shutil.get_terminal_size((110, 24)).columns
    for row in choose([int(routes.exit_layer.max(initial=0)) for routes in answers.routes], SENTENCES):
        depths = ["tier 1" if route.tier == 1 else f"layer {route.exit_layer}" for route in answers.routes[row]]
        colours = [_colour(route, layers) for route in answers.routes[row]]
        cells = zip(words[row], map(printable, answers.tags[row]), depths, colours, strict=True)
        yield from _interlinear(list(cells), width)
    yield _by_depth(answers.routes.words, layers)
    yield from comparison.shown()


def _colour(route: Route, layers: int) -> str:
    return TIER1 if route.tier == 1 else COLOURS[(route.exit_layer - 1) * len(COLOURS) // layers]


def _interlinear(cells: Sequence[tuple[str, str, str, str]], width: int) -> Iterator[str]:
    """Words above tags above depths, in their colours, in blocks of three lines as wide as the terminal."""
    while cells:
        lines = ["", "", ""]
        used = count = 0
        for word, tag, depth, colour in cells:
            room = max(len(word), len(tag), len(depth))
            if count and used + room > width:
                break
            lines[0] += click.style(word, fg=colour, bold=True) + " " * (room + 2 - len(word))
            lines[1] += tag.ljust(room + 2)
            lines[2] += click.style(depth, fg=colour) + " " * (room + 2 - len(depth))
            used, count = used + room + 2, count + 1
        yield "\n".join(line.rstrip() for line in lines)
        cells = cells[count:]


def _by_depth(routes: Routes, layers: int) -> str:
    rows, found = [], zip(routes.tier.tolist(), routes.exit_layer.tolist(), strict=True)
    for (tier, layer), count in sorted(Counter(found).items()):
        route, share = Route(tier, layer, 1.0), count / len(routes)
        bar = click.style("#" * round(40 * share), fg=_colour(route, layers))
        rows.append([route_in_words(route, layers), str(count), f"{share:.1%}", bar])
    return table(["decided in", "words", "share", ""], rows, right=(1, 2))


def _heading(text: str) -> str:
    return click.style(text, bold=True, underline=True)


@dataclass(frozen=True)
class Comparison:
    """The second tier alone at full depth, and the cascade, on the same sentences or words.

    Seconds are medians over alternating repetitions; `full_right` and `cascade_right` are `None` where there are no
    labels.
    """

    unit: str
    count: int
    full_seconds: float
    cascade_seconds: float
    agree: int
    deferred: int
    full_right: int | None = None
    cascade_right: int | None = None

    def shown(self) -> Iterator[str]:
        """The times as a table, and what the user sees in one sentence."""
        rows = []
        for name, seconds, right in (
            ("full second tier alone", self.full_seconds, self.full_right),
            ("cascade", self.cascade_seconds, self.cascade_right),
        ):
            shares = [] if right is None else [f"{right / self.count:.1%}"]
            rows.append([name, duration(seconds), f"{seconds / self.count * 1000:.2f} ms", *shares])
        head = [f"all {self.count} {self.unit}s", "time", f"per {self.unit}", "right"]
        yield table(head[: len(rows[0])], rows, right=(1, 2, 3))
        yield self.verdict()

    def verdict(self) -> str:
        """What the user sees, in one sentence made from the numbers."""
        counted = f"of {self.count} {self.unit}s"
        answers = f"they gave the same answer to {self.agree} {counted} ({self.agree / self.count:.1%})"
        if self.full_right is not None:
            answers += f", and the right one to {self.cascade_right} (cascade) and {self.full_right} (full second tier)"
        ratio = self.full_seconds / self.cascade_seconds
        if ratio >= FASTER:
            return f"The cascade was {ratio:.1f} times faster than its full second tier alone; {answers}."
        return (
            f"Here the cascade is not faster than its full second tier alone: {duration(self.cascade_seconds)} against "
            f"{duration(self.full_seconds)}, with {self.deferred} {counted} sent to tier 2; {answers}."
        )


def compare(
    pipeline: Any,
    given: Sequence[Any],
    labels: Sequence[str] | None = None,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Comparison, Any, Any]:
    """Run a cascade and its second tier alone on the same, in alternation, after one run of each that is not counted.

    `given`: texts, or sentences of words; `labels`: the right label of each text, where there are any.

    Returns:
        The comparison, the cascade's answers, and those of the second tier alone.
    """
    full = pipeline.with_router(defer_all).with_exit_policy(never)
    begin = clock()
    answers, full_answers = pipeline.predict(given), full.predict(given)
    repetitions = max(1, min(REPETITIONS, int(PATIENCE / max(clock() - begin, 1e-9))))
    seconds: dict[Any, list[float]] = {False: [], True: []}
    for _ in range(repetitions):
        for is_full, one in ((True, full), (False, pipeline)):
            begin = clock()
            one.predict(given)
            seconds[is_full].append(clock() - begin)
    ours, theirs = _units(answers), _units(full_answers)
    routes = answers.routes.words if isinstance(answers, TagPredictions) else answers.routes
    return (
        Comparison(
            unit="word" if isinstance(answers, TagPredictions) else "sentence",
            count=len(ours),
            full_seconds=median(seconds[True]),
            cascade_seconds=median(seconds[False]),
            agree=_equal(ours, theirs),
            deferred=int((routes.tier == 2).sum()),
            full_right=None if labels is None else _equal(theirs, labels),
            cascade_right=None if labels is None else _equal(ours, labels),
        ),
        answers,
        full_answers,
    )


def _equal(left: Sequence[object], right: Sequence[object]) -> int:
    return sum(one == other for one, other in zip(left, right, strict=True))


def _units(answers: Predictions | TagPredictions) -> list[Any]:
    return list(chain.from_iterable(answers.tags)) if isinstance(answers, TagPredictions) else list(answers.labels)

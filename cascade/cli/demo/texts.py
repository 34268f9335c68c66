"""The part of `cascade demo` that classifies: sentences with label, probability and route, and how the tiers did."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources

import click

from cascade.cli.demo.comparing import compare, equal, heading
from cascade.cli.show import choose, clipped, route_in_words
from cascade.core.console import table
from cascade.core.results import Predictions
from cascade.exceptions import BundleError, printable
from cascade.pipelines.classifier import Classifier

SHOWN = 14  # rows of the table


@dataclass(frozen=True)
class Sentence:
    """A text of the demo, its label, and what is hard about it (`plain`: nothing)."""

    text: str
    label: str
    kind: str


def sentences(name: str) -> list[Sentence]:
    """The sentences for a bundle, `sentiment` or `intents`."""
    lines = (resources.files(__package__) / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [Sentence(**json.loads(line)) for line in lines]


def shown(name: str, classifier: Classifier) -> Iterator[str]:
    """Paragraphs about one bundle; a `BundleError` if it does not know the labels of the sentences."""
    texts = sentences(name)
    labels = [sentence.label for sentence in texts]
    unknown = sorted(set(labels) - set(classifier.labels))
    if unknown:
        raise BundleError(
            f"the bundle {name} must know the labels of the demo's sentences, lacks: {', '.join(unknown[:5])}; "
            "give a folder with the project's own bundles with --models"
        )
    comparison, answers, full = compare(classifier, [sentence.text for sentence in texts], labels)
    yield heading(f"{name}: {len(texts)} sentences, {len(classifier.labels)} labels")
    yield _examples(texts, answers, classifier.tier2.layers[-1])
    yield _by_kind(texts, answers, full)
    yield from comparison.shown()


def _examples(texts: Sequence[Sentence], answers: Predictions, depth: int) -> str:
    words = [route_in_words(route, depth) for route in answers.routes]
    keys = [(route, text.kind, text.label == "positive") for route, text in zip(words, texts, strict=True)]
    chosen = choose(keys, SHOWN)
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
                click.style(words[row], fg="cyan" if answers.routes[row].tier == 1 else "yellow"),
            ]
        )
    return table(["sentence", "label", "prob.", "route"], rows, right=(2,))


def _by_kind(texts: Sequence[Sentence], answers: Predictions, full: Predictions) -> str:
    rows = []
    for kind in dict.fromkeys(sentence.kind for sentence in texts):
        of_kind = [row for row, sentence in enumerate(texts) if sentence.kind == kind]
        labels = [texts[row].label for row in of_kind]
        counts = (
            sum(answers.routes[row].tier == 1 for row in of_kind),
            equal([answers.labels[row] for row in of_kind], labels),
            equal([full.labels[row] for row in of_kind], labels),
        )
        rows.append([kind, str(len(of_kind)), *(f"{count / len(of_kind):.0%}" for count in counts)])
    head = ["kind", "sentences", "answered by tier 1", "cascade right", "full tier 2 right"]
    return table(head, rows, right=(1, 2, 3, 4))

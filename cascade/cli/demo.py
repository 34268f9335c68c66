"""`cascade demo`: the project's own sentences through the bundles that come with it, and what the user sees.

The sentences (`sentiment.jsonl`, `intents.jsonl` beside this file) were written for this project and are in no training
set.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import click

from cascade.cli import demo_tags
from cascade.cli.show import choose, clipped, duration, route_in_words
from cascade.cli.turns import Turns
from cascade.core.console import table
from cascade.core.results import Predictions
from cascade.exceptions import BundleError, BundleNotFoundError
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger
from cascade.policies.exits import never
from cascade.policies.routing import defer_all

__all__ = ["Comparison", "Sentence", "compare", "demo", "sentences", "verdict"]

CLASSIFIERS = ("sentiment", "intents")
TAGGER = "pos"
SHOWN = 14  # rows of the table


@dataclass(frozen=True)
class Sentence:
    """A text of the demo, its label, and what is hard about it (`plain`: nothing)."""

    text: str
    label: str
    kind: str


@dataclass(frozen=True)
class Comparison:
    """The full second tier alone and the cascade on the same sentences.

    Attributes:
        count: sentences.
        full_seconds, cascade_seconds: medians over repetitions that took turns.
        full_right, cascade_right: answers equal to the label.
        agree: answers equal to each other.
        deferred: sentences that tier 1 handed to tier 2.
    """

    count: int
    full_seconds: float
    cascade_seconds: float
    full_right: int
    cascade_right: int
    agree: int
    deferred: int


@click.command(short_help="Show what a cascade does, on sentences of the project's own.")
@click.option(
    "--models",
    type=click.Path(path_type=Path),
    default=Path("models"),
    show_default=True,
    metavar="DIR",
    help="The folder with the bundles sentiment, intents and pos.",
)
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="Threads of both tiers. [default: all cores]")
def demo(models: Path, threads: int | None) -> None:
    """Show what a cascade does, on sentences of the project's own.

    For each classifier found: some sentences with label, probability and route; then how long the full second tier
    alone and the cascade took on all the same sentences, how often they agree and how often they are right. For the
    tagger: sentences word by word, each with its tag and the depth at which it was decided; then the times of both.

    \b
    Example:
      cascade demo
      cascade demo --models models --threads 2
    """
    found = [name for name in (*CLASSIFIERS, TAGGER) if (models / name).is_dir()]
    if not found:
        every = [str(models / name) for name in (*CLASSIFIERS, TAGGER)]
        raise BundleNotFoundError(
            f"the demo needs {', '.join(every[:-1])} or {every[-1]}, found none; "
            "run it from the root of the repository, or give the folder with --models DIR"
        )
    for number, name in enumerate(found):
        if number:
            click.echo()
        if name == TAGGER:
            demo_tags.show(name, Tagger.from_pretrained(models / name, threads=threads))
        else:
            show(name, Classifier.from_pretrained(models / name, threads=threads), sentences(name))


def sentences(name: str) -> list[Sentence]:
    """The sentences for a bundle, `sentiment` or `intents`."""
    lines = (resources.files(__package__) / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [Sentence(**json.loads(line)) for line in lines]


def show(name: str, classifier: Classifier, texts: Sequence[Sentence]) -> None:
    """Print the part of the demo that belongs to one bundle.

    Raises:
        BundleError: the bundle does not know the labels of the sentences.
    """
    unknown = sorted({sentence.label for sentence in texts} - set(classifier.labels))
    if unknown:
        raise BundleError(
            f"the bundle {name} must know the labels of the demo's sentences, lacks: {', '.join(unknown[:5])}; "
            "give a folder with the project's own bundles with --models"
        )
    full = classifier.with_router(defer_all).with_exit_policy(never)
    comparison, answers, full_answers = compare(classifier, full, texts)
    click.echo(
        click.style(f"{name}: {len(texts)} sentences, {len(classifier.labels)} labels", bold=True, underline=True)
    )
    click.echo()
    click.echo(_examples(texts, answers, classifier.tier2.layers[-1]))
    click.echo()
    click.echo(_by_kind(texts, answers, full_answers))
    click.echo()
    click.echo(_timing(comparison))
    click.echo()
    click.echo(verdict(comparison))


def compare(
    cascade: Classifier, full: Classifier, texts: Sequence[Sentence], *, clock: Callable[[], float] = time.perf_counter
) -> tuple[Comparison, Predictions, Predictions]:
    """Run both on the same sentences in turns, after one run of each that is not counted.

    Args:
        cascade: the classifier as its bundle says.
        full: its second tier alone, at full depth.
        texts: the labelled sentences.
        clock: gives seconds.

    Returns:
        The comparison, the cascade's answers, the full second tier's answers.
    """
    plain = [sentence.text for sentence in texts]
    turns = Turns.of(lambda: cascade.predict(plain), lambda: full.predict(plain), clock=clock)
    answers, full_answers = turns.answers, turns.full_answers
    labels = [sentence.label for sentence in texts]
    return (
        Comparison(
            count=len(texts),
            full_seconds=turns.full_seconds,
            cascade_seconds=turns.seconds,
            full_right=_equal(full_answers.labels, labels),
            cascade_right=_equal(answers.labels, labels),
            agree=_equal(answers.labels, full_answers.labels),
            deferred=int((answers.routes.tier == 2).sum()),
        ),
        answers,
        full_answers,
    )


def verdict(seen: Comparison) -> str:
    """What the user sees, in one sentence made from the numbers."""
    ratio = seen.full_seconds / seen.cascade_seconds
    answers = (
        f"they gave the same answer to {seen.agree} of {seen.count} sentences, and the right one to "
        f"{seen.cascade_right} (cascade) and {seen.full_right} (full second tier)."
    )
    if ratio < 1.05:
        return (
            f"Here the cascade is not faster than its full second tier alone: {duration(seen.cascade_seconds)} against "
            f"{duration(seen.full_seconds)}, with {seen.deferred} of {seen.count} sentences sent to tier 2; {answers}"
        )
    return f"The cascade was {ratio:.1f} times faster than its full second tier alone; {answers}"


def _equal(left: Sequence[object], right: Sequence[object]) -> int:
    return sum(one == other for one, other in zip(left, right, strict=True))


def _examples(texts: Sequence[Sentence], answers: Predictions, depth: int) -> str:
    rows = []
    words = [route_in_words(route, depth) for route in answers.routes]
    chosen = choose(
        [(route, text.kind, text.label == "positive") for route, text in zip(words, texts, strict=True)], SHOWN
    )
    label_width = max(len(str(answers.labels[row])) for row in chosen)
    room = shutil.get_terminal_size((110, 24)).columns - label_width - max(map(len, words)) - 24
    order = sorted(chosen, key=lambda row: (answers.routes[row].tier, answers.routes[row].exit_layer, row))
    for row in order:
        right = answers.labels[row] == texts[row].label
        rows.append(
            [
                clipped(texts[row].text, max(room, 24)),
                click.style(str(answers.labels[row]), fg="green" if right else "red") + ("" if right else " (wrong)"),
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
        rows.append(
            [
                kind,
                str(len(of_kind)),
                f"{sum(answers.routes[row].tier == 1 for row in of_kind) / len(of_kind):.0%}",
                f"{_equal([answers.labels[row] for row in of_kind], labels) / len(of_kind):.0%}",
                f"{_equal([full.labels[row] for row in of_kind], labels) / len(of_kind):.0%}",
            ]
        )
    head = ["kind", "sentences", "answered by tier 1", "cascade right", "full tier 2 right"]
    return table(head, rows, right=(1, 2, 3, 4))


def _timing(seen: Comparison) -> str:
    rows = [
        [name, duration(seconds), f"{seconds / seen.count * 1000:.2f} ms", f"{right / seen.count:.1%}"]
        for name, seconds, right in (
            ("full second tier alone", seen.full_seconds, seen.full_right),
            ("cascade", seen.cascade_seconds, seen.cascade_right),
        )
    ]
    return table([f"all {seen.count} sentences", "time", "per sentence", "right"], rows, right=(1, 2, 3))

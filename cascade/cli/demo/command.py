"""The command `cascade demo`: what each bundle answers to the project's own sentences, its time beside full depth."""

from __future__ import annotations

import json
import shlex
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import Any

import click
import numpy as np

from cascade.cli.show import clipped, duration, route_in_words
from cascade.core.console import table
from cascade.core.results import Predictions, Route, Routes, TagPredictions
from cascade.core.rows import Doubles
from cascade.core.statistics import in_turns
from cascade.exceptions import BundleError, BundleNotFoundError, printable
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger
from cascade.policies.exits import never
from cascade.policies.routing import defer_all

FILES = {"sentiment": "sentiment", "intents": "intents", "pos": "tags"}
"""By the name of a bundle, that of the file with its sentences."""
TAGGER = "pos"
PACKAGE = Path(__file__).parents[2]
SHIPPED = (PACKAGE / "models", PACKAGE.parent / "models")  # of an installation, of a clone
TEXTS, SENTENCES = 14, 8  # that are shown one by one
BESIDE = 8  # words in a line
NAMES = ("cascade", "full second tier alone")
REPETITIONS = 3
COLOURS = ("green", "yellow", "magenta", "red")  # of tier 2, from its first layers to its last; tier 1 is cyan


@click.command(short_help="Show what a cascade does, on sentences of the project's own.")
@click.option("--models", type=click.Path(path_type=Path), metavar="DIR",
              help="With the bundles sentiment, intents or pos.  [default: models, or what was installed]")  # fmt: skip
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="Threads of both tiers. [default: all cores]")
def demo(models: Path | None, threads: int | None) -> None:
    """Show what a cascade does, on sentences of the project's own.

    For each classifier found: some sentences with label, probability and route. For the tagger: sentences word by word,
    each with its tag and the depth at which it was decided. Of both: how many were decided where, how long the full
    second tier alone and the cascade took on all the same sentences, how often they are right and how often they agree.

    \b
    Example:
      cascade demo
      cascade demo --models models --threads 2
    """
    folders = (Path("models"), *SHIPPED) if models is None else (models,)
    there = ([folder / name for name in FILES if (folder / name).is_dir()] for folder in folders)
    found = next(filter(None, there), [])
    if not found:
        *some, last = (str(folders[0] / name) for name in FILES)
        raise BundleNotFoundError(
            f"the demo needs {', '.join(some)} or {last}, found none; give --models, their folder"
        )
    for number, folder in enumerate(found):
        kind = Tagger if folder.name == TAGGER else Classifier
        parts = shown(folder.name, kind.from_pretrained(folder, threads=threads))
        click.echo("\n" * bool(number) + "\n\n".join(parts))
    click.echo(f"\nYour own texts: cascade predict {shlex.quote(str(found[0]))} texts.txt")


def sentences(name: str) -> tuple[list[Any], list[str]]:
    """The sentences for a bundle and their labels; of the tagger lists of words, which have none."""
    lines = (resources.files(__package__) / f"{FILES[name]}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    column = "tokens" if name == TAGGER else "text"
    return [row[column] for row in rows], [row["label"] for row in rows if "label" in row]


def shown(name: str, pipeline: Any) -> Iterator[str]:
    """Paragraphs about one bundle; a `BundleError` if it does not know the labels of the sentences."""
    given, labels = sentences(name)
    if unknown := sorted(set(labels) - set(pipeline.labels)):
        told = f"the bundle {name} must know the labels of the demo's sentences, lacks: {', '.join(unknown[:5])}"
        raise BundleError(f"{told}; give --models, a folder with the project's own bundles")
    answers, full, seconds = compare(pipeline, given)
    depth = pipeline.tier2.layers[-1]
    words = isinstance(answers, TagPredictions)
    unit, routes = ("word", answers.routes.words) if words else ("sentence", answers.routes)
    counted = f", {len(routes)} words, {len(pipeline.labels)} tags" if words else f", {len(pipeline.labels)} labels"
    yield click.style(f"{name}: {len(given)} sentences{counted}", bold=True, underline=True)
    if words:
        yield from _sentences(given, answers, depth)
    else:
        yield _texts(given, labels, answers, depth)
    yield _by_depth(unit, routes, depth)
    ours, theirs = (list(chain(*own.tags)) if words else own.labels for own in (answers, full))
    yield from times(unit, ours, theirs, labels, seconds)


def compare(
    pipeline: Any, given: Sequence[Any], *, clock: Callable[[], float] = time.perf_counter
) -> tuple[Any, Any, Doubles]:
    """Run a cascade and its second tier alone on the same, in turns, after one run of each that is not counted.

    Returned are the answers of both, and the median seconds of both, shape `(2,)`.
    """
    both = pipeline, pipeline.with_router(defer_all).with_exit_policy(never)
    answers, full = (one.predict(given) for one in both)
    ways = {name: partial(one.predict, given) for name, one in zip(NAMES, both, strict=True)}
    return answers, full, np.median([*in_turns(ways, turns=REPETITIONS, clock=clock).values()], axis=1)


def times(
    unit: str, ours: Sequence[str], theirs: Sequence[str], labels: Sequence[str], seconds: Doubles
) -> Iterator[str]:
    """The times of a cascade and its second tier alone, with what is right where there are labels; what follows."""
    count, rows = len(ours), []
    for name, answers, own in zip(NAMES, (ours, theirs), seconds.tolist(), strict=True):
        right = [f"{_equal(answers, labels) / count:.1%}"] if labels else []
        rows.append([name, duration(own), f"{own / count * 1000:.2f} ms", *right])
    yield table([f"all {count} {unit}s", "time", f"per {unit}", "right"][: len(rows[0])], rows, right=(1, 2, 3))
    agree = _equal(ours, theirs)
    yield (
        f"The cascade was {seconds[1] / seconds[0]:.1f} times as fast as its full second tier alone; they gave the "
        f"same answer to {agree} of {count} {unit}s ({agree / count:.1%})."
    )


def _equal(left: Sequence[str], right: Sequence[str]) -> int:
    return sum(one == other for one, other in zip(left, right, strict=True))


def _texts(texts: Sequence[str], labels: Sequence[str], answers: Predictions, depth: int) -> str:
    """Some texts, from those that tier 1 answered to the deepest."""
    chosen = np.unique(np.linspace(0, len(texts) - 1, TEXTS).astype(np.int64)).tolist()
    room = shutil.get_terminal_size((110, 24)).columns - max(len(str(answers.labels[row])) for row in chosen) - 44
    rows = []
    for row in sorted(chosen, key=lambda row: (answers.routes[row].tier, answers.routes[row].exit_layer)):
        label, route, right = str(answers.labels[row]), answers.routes[row], answers.labels[row] == labels[row]
        shown = click.style(printable(label), fg="green" if right else "red") + " (wrong)" * (not right)
        where = click.style(route_in_words(route, depth), fg=_colour(route, depth))
        rows.append([clipped(texts[row], max(room, 24)), shown, f"{answers.probabilities[row].max():.2f}", where])
    return table(["sentence", "label", "prob.", "route"], rows, right=(2,))


def _sentences(given: Sequence[Sequence[str]], answers: TagPredictions, depth: int) -> Iterator[str]:
    """Some sentences: words above tags above the depths at which they were decided."""
    for row in range(0, len(given), max(len(given) // SENTENCES, 1)):
        for begin in range(0, len(given[row]), BESIDE):
            some = slice(begin, begin + BESIDE)
            routes = list(answers.routes[row])[some]
            colours = [_colour(own, depth) for own in routes]
            words = [click.style(word, fg=own) for word, own in zip(given[row][some], colours, strict=True)]
            layers = ["tier 1" if own.tier == 1 else f"layer {own.exit_layer}" for own in routes]
            yield table(words, [[printable(tag) for tag in answers.tags[row][some]], layers])


def _by_depth(unit: str, routes: Routes, depth: int) -> str:
    rows, found = [], zip(routes.tier.tolist(), routes.exit_layer.tolist(), strict=True)
    for (tier, layer), count in sorted(Counter(found).items()):
        route, share = Route(tier, layer, 1.0), count / len(routes)
        bar = click.style("#" * round(40 * share), fg=_colour(route, depth))
        rows.append([route_in_words(route, depth), str(count), f"{share:.1%}", bar])
    return table(["decided in", f"{unit}s", "share", ""], rows, right=(1, 2))


def _colour(route: Route, depth: int) -> str:
    return "cyan" if route.tier == 1 else COLOURS[(route.exit_layer - 1) * len(COLOURS) // depth]

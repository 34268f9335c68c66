"""The part of `cascade demo` that tags: words, tags, and how deep each had to go.

The sentences (`tags.jsonl` beside this file) were written for this project and are in no training set; they have no
tags to compare with, so what is counted is agreement.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources

import click

from cascade.cli.show import choose, duration
from cascade.cli.turns import Turns
from cascade.core.console import table
from cascade.core.results import Route, TagPredictions
from cascade.pipelines.tagger import Tagger
from cascade.policies.exits import never
from cascade.policies.routing import defer_all

__all__ = ["TagComparison", "compare", "depth", "sentences", "show", "verdict"]

SHOWN = 8  # sentences word by word
COLOURS = ("green", "yellow", "magenta", "red")  # of tier 2, from its first layers to its last
TIER1 = "cyan"


@dataclass(frozen=True)
class TagComparison:
    """The full second tier alone and the cascade on the same words.

    Attributes:
        sentences, words: how many.
        full_seconds, cascade_seconds: medians over repetitions that took turns.
        agree: words with the same tag.
        deferred: words that tier 1 handed to tier 2.
    """

    sentences: int
    words: int
    full_seconds: float
    cascade_seconds: float
    agree: int
    deferred: int


def sentences() -> list[list[str]]:
    """The sentences, split into words."""
    lines = (resources.files(__package__) / "tags.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["tokens"] for line in lines]


def show(name: str, tagger: Tagger) -> None:
    """Print the part of the demo that belongs to a tagger. `name`: of the bundle."""
    words = sentences()
    comparison, answers = compare(tagger, words)
    layers = tagger.tier2.layers[-1]
    head = f"{name}: {comparison.sentences} sentences, {comparison.words} words, {len(tagger.labels)} tags"
    click.echo(click.style(head, bold=True, underline=True))
    click.echo()
    width = shutil.get_terminal_size((110, 24)).columns
    for row in choose([int(routes.exit_layer.max(initial=0)) for routes in answers.routes], SHOWN):
        cells = [
            (word, tag, depth(route), _colour(route, layers))
            for word, tag, route in zip(words[row], answers.tags[row], answers.routes[row], strict=True)
        ]
        click.echo("\n\n".join(_interlinear(cells, width)))
        click.echo()
    click.echo(_by_depth(answers, layers))
    click.echo()
    click.echo(_timing(comparison))
    click.echo()
    click.echo(verdict(comparison))


def compare(
    tagger: Tagger, words: Sequence[Sequence[str]], *, clock: Callable[[], float] = time.perf_counter
) -> tuple[TagComparison, TagPredictions]:
    """Run the cascade and its full second tier alone on the same sentences, in turns.

    Args:
        tagger: as its bundle says.
        words: the sentences.
        clock: gives seconds.

    Returns:
        The comparison and the cascade's answers.
    """
    full = tagger.with_router(defer_all).with_exit_policy(never)
    turns = Turns.of(lambda: tagger.predict(words), lambda: full.predict(words), clock=clock)
    pairs = zip(turns.answers.tags, turns.full_answers.tags, strict=True)
    return (
        TagComparison(
            sentences=len(words),
            words=len(turns.answers.routes.words),
            full_seconds=turns.full_seconds,
            cascade_seconds=turns.seconds,
            agree=sum(one == other for ours, theirs in pairs for one, other in zip(ours, theirs, strict=True)),
            deferred=int((turns.answers.routes.words.tier == 2).sum()),
        ),
        turns.answers,
    )


def depth(route: Route) -> str:
    """Where a word was decided: "tier 1" or "layer 3"."""
    return "tier 1" if route.tier == 1 else f"layer {route.exit_layer}"


def verdict(seen: TagComparison) -> str:
    """What the user sees, in one sentence made from the numbers."""
    ratio = seen.full_seconds / seen.cascade_seconds
    answers = f"they gave the same tag to {seen.agree} of {seen.words} words ({seen.agree / seen.words:.1%})."
    if ratio < 1.05:
        return (
            f"Here the cascade is not faster than its full second tier alone: {duration(seen.cascade_seconds)} against "
            f"{duration(seen.full_seconds)}, with {seen.deferred} of {seen.words} words sent to tier 2; {answers}"
        )
    return f"The cascade was {ratio:.1f} times faster than its full second tier alone; {answers}"


def _colour(route: Route, layers: int) -> str:
    if route.tier == 1:
        return TIER1
    return COLOURS[(route.exit_layer - 1) * len(COLOURS) // layers]


def _interlinear(cells: Sequence[tuple[str, str, str, str]], width: int) -> Iterator[str]:
    """Words above their tags above their depths, broken where the terminal ends.

    Args:
        cells: word, tag, depth and colour of each.
        width: columns of the terminal.

    Yields:
        Blocks of three lines.
    """
    while cells:
        lines = ["", "", ""]
        used = count = 0
        for word, tag, deep, colour in cells:
            room = max(len(word), len(tag), len(deep))
            if count and used + room > width:
                break
            lines[0] += click.style(word, fg=colour, bold=True) + " " * (room + 2 - len(word))
            lines[1] += tag.ljust(room + 2)
            lines[2] += click.style(deep, fg=colour) + " " * (room + 2 - len(deep))
            used, count = used + room + 2, count + 1
        yield "\n".join(line.rstrip() for line in lines)
        cells = cells[count:]


def _by_depth(answers: TagPredictions, layers: int) -> str:
    routes = answers.routes.words
    counts = Counter(zip(routes.tier.tolist(), routes.exit_layer.tolist(), strict=True))
    rows = []
    for (tier, layer), count in sorted(counts.items()):
        route = Route(tier, layer, 1.0)
        name = "tier 1" if tier == 1 else f"tier 2, layer {layer} of {layers}"
        share = count / len(routes)
        bar = click.style("#" * round(40 * share), fg=_colour(route, layers))
        rows.append([name, str(count), f"{share:.1%}", bar])
    return table(["decided in", "words", "share", ""], rows, right=(1, 2))


def _timing(seen: TagComparison) -> str:
    rows = [
        [name, duration(seconds), f"{seen.words / seconds:,.0f}"]
        for name, seconds in (
            ("full second tier alone", seen.full_seconds),
            ("cascade", seen.cascade_seconds),
        )
    ]
    return table([f"all {seen.words} words", "time", "words per second"], rows, right=(1, 2))

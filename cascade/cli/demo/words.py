"""The part of `cascade demo` that tags: words, tags, and the depth at which each was decided.

The sentences have no tags to compare with, so what is counted is agreement.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import resources

import click

from cascade.cli.demo.comparing import compare, heading
from cascade.cli.show import choose, route_in_words
from cascade.core.console import table
from cascade.core.results import Route, Routes
from cascade.exceptions import printable
from cascade.pipelines.tagger import Tagger

SHOWN = 8  # sentences word by word
COLOURS = ("green", "yellow", "magenta", "red")  # of tier 2, from its first layers to its last
TIER1 = "cyan"


def sentences() -> list[list[str]]:
    """The sentences, split into words."""
    lines = (resources.files(__package__) / "tags.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["tokens"] for line in lines]


def shown(name: str, tagger: Tagger) -> Iterator[str]:
    """Paragraphs about one bundle."""
    words = sentences()
    comparison, answers, _ = compare(tagger, words)
    layers = tagger.tier2.layers[-1]
    yield heading(f"{name}: {len(words)} sentences, {comparison.count} words, {len(tagger.labels)} tags")
    width = shutil.get_terminal_size((110, 24)).columns
    for row in choose([int(routes.exit_layer.max(initial=0)) for routes in answers.routes], SHOWN):
        cells = [
            (word, printable(tag), _depth(route), _colour(route, layers))
            for word, tag, route in zip(words[row], answers.tags[row], answers.routes[row], strict=True)
        ]
        yield from _interlinear(cells, width)
    yield _by_depth(answers.routes.words, layers)
    yield from comparison.shown()


def _depth(route: Route) -> str:
    return "tier 1" if route.tier == 1 else f"layer {route.exit_layer}"


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

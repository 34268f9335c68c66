"""The share of a `predict` during which no graph runs: tokenising, packing, routing, merging, naming labels.

    python bench/studies/overhead.py models/sentiment --data dev.jsonl --threads 2

Found on two AMX cores, calls of 10,000 texts: no graph runs during 3.2 % of the time with two threads, 8.7 % with one;
of intents, whose texts are short and mostly tier 1's, 10.9 and 16.7 %, half of that tokenisation.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from functools import partial
from typing import Any
from unittest import mock

import click

from cascade.core.statistics import median_interval
from cascade.runtime.backend import OnnxBackend
from cascade_bench.systems.local import Model, load
from cascade_bench.table.data import read_items
from cascade_bench.timing.interleaving import interleave


def union(runs: Sequence[tuple[float, float]]) -> float:
    """Seconds during which at least one of them was under way."""
    total, until = 0.0, -float("inf")
    for begin, end in sorted(runs):
        total += max(end - max(begin, until), 0.0)
        until = max(until, end)
    return total


def outside(model: Model, texts: Sequence[Any], found: list[float]) -> None:
    """A call that writes down the share of its time during which no graph ran."""
    runs, inner = list[tuple[float, float]](), OnnxBackend.run

    def run(backend: OnnxBackend, feeds: Any) -> Any:
        begin = time.perf_counter()
        made = inner(backend, feeds)
        runs.append((begin, time.perf_counter()))
        return made

    with mock.patch.object(OnnxBackend, "run", run):
        begin = time.perf_counter()
        model.predict(texts)
        found.append(1 - union(runs) / (time.perf_counter() - begin))


@click.command()
@click.argument("model")
@click.option("--data", required=True, help="Texts; they come again until there are enough.")
@click.option("--texts", default=10_000, show_default=True, help="Of a call.")
@click.option("--threads", default=2, show_default=True, help="Beside one.")
@click.option("--repeats", default=5, show_default=True, help="Turns of each.")
def main(model: str, data: str, texts: int, threads: int, repeats: int) -> None:
    """Time outside the graphs, with one thread and with several, in turns."""
    given = list(itertools.islice(itertools.cycle(read_items(data)), texts))
    shares: dict[str, list[float]] = {f"{count} threads": [] for count in sorted({1, threads})}
    runs = {
        name: partial(outside, load(model, threads=int(name.split()[0])), given, own) for name, own in shares.items()
    }
    turns = interleave(runs, repeats=repeats)
    for name, own in shares.items():
        kept = own[2:]  # the first two were warm-up
        click.echo(
            f"{name}: no graph runs during {median_interval(kept).text('.1%')} of a call of {texts} texts "
            f"({sum(turns.there(name)) / len(turns.there(name)):.2f} s)"
        )


if __name__ == "__main__":
    main()

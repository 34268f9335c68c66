"""`cascade-bench profile`: its options, its tables, its file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import click

from cascade.core.files import check_output
from cascade.pipelines.loading import load
from cascade.runtime.threads import check_threads
from cascade_bench.options import count_option, json_option, model_argument, threads_option
from cascade_bench.profile.measuring import Profile, measure
from cascade_bench.profile.parts import LENGTHS, ROWS, parts, points
from cascade_bench.systems.local import check_tiers
from cascade_bench.timing import machine
from cascade_bench.timing.report import bar, benchmark, grid, write_json

MOST_OPERATORS = 12


@click.command(short_help="Milliseconds per tier and stage, and by operator.")
@model_argument
@click.option("--rows", multiple=True, type=click.IntRange(min=1), default=ROWS, show_default=True, metavar="N",
              help="Rows of a batch; give it again for each number.")  # fmt: skip
@click.option("--lengths", multiple=True, type=click.IntRange(min=1), default=LENGTHS, show_default=True, metavar="N",
              help="Tokens of its longest row; as --rows.")  # fmt: skip
@count_option("--repeats", 5, "Turns of each.")
@threads_option
@json_option
def profile(
    model: str,
    rows: tuple[int, ...],
    lengths: tuple[int, ...],
    repeats: int,
    threads: int | None,
    json_file: Path | None,
) -> None:
    """Where the time goes: what each tier and stage costs by tokens and rows, and by operator.

    MODEL is a folder or a Hub id, of a classifier or a tagger. Every graph runs by itself over a grid of batches, all
    in turns. About two minutes with the default grid.

    \b
    Example:
      cascade-bench profile models/sentiment
      cascade-bench profile models/sentiment --rows 1 --rows 32 --lengths 64 --threads 2 --json profile.json
    """
    check_output("--json", json_file)
    count = check_threads(threads)
    pipeline = load(model, threads=count)
    check_tiers(pipeline)
    manifest = pipeline.bundle.manifest
    sizes = points(rows, lengths, max_length=min(manifest.tier1.max_length, manifest.tier2.max_length))
    before = machine.facts(threads=count)
    with bar() as step:
        made = measure(parts(pipeline), sizes, repeats=repeats, progress=step)
    click.echo(as_text(made, before))
    entries = [benchmark(name, seconds) for name, seconds in made.turns.seconds.items()]
    write_json(json_file, before, entries, details={"model": model, "repeats": repeats})


def as_text(made: Profile, facts: Mapping[str, Any]) -> str:
    """For terminals."""
    blocks = [
        "Milliseconds of one batch (medians):",
        _times(made),
        f"Share of the time by operator, {made.reference.name} tokens:",
        _operators(made),
        f"{len(made.turns.orders)} interleaved repeats on all threads.",
        machine.in_words(facts),
    ]
    return "\n\n".join(blocks)


def _times(made: Profile) -> str:
    rows = []
    for point in made.points:
        middle = (median(made.seconds[key, point]) for key in made.keys)
        rows.append([point.name, str(point.tokens), *(f"{1e3 * seconds:.2f}" for seconds in middle)])
    return grid(["rows x longest", "tokens", *made.keys.values()], rows)


def _operators(made: Profile) -> str:
    """A column per part, the stages together."""
    columns: dict[str, dict[str, float]] = {}
    for key, seen in made.operators.items():
        column = columns.setdefault("all stages" if key.startswith("stage-") else made.keys[key], defaultdict(float))
        for operator, seconds in seen.items():
            column[operator] += seconds
    names = {operator for column in columns.values() for operator in column}
    order = sorted(names, key=lambda name: (-sum(column.get(name, 0.0) for column in columns.values()), name))
    rows = [
        [name, *(f"{column.get(name, 0.0) / (sum(column.values()) or 1.0):.1%}" for column in columns.values())]
        for name in order[:MOST_OPERATORS]
    ]
    return grid(["operator", *columns], rows)

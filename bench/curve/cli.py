"""`cascade-bench curve`: its options, and what is checked before minutes of work."""

from __future__ import annotations

import importlib
from pathlib import Path

import click

from cascade.core.files import check_output
from cascade_bench.curve.measuring import Curve
from cascade_bench.curve.measuring import curve as measure
from cascade_bench.options import Asked, count_option, file_option, labelled_file_options
from cascade_bench.table.cli import columns, entries
from cascade_bench.timing import machine
from cascade_bench.timing.report import bar, grid, write_json


@click.command(short_help="Accuracy over speed: settings tried once, those on the front timed beside fixed depths.")
@labelled_file_options
@count_option("--deferrals", 8, "Thresholds of tier 1.")
@count_option("--exits", 4, "Of tier 2's exits.")
@count_option("--points", 6, "Of the front, timed.")
@file_option("--png", "png_file", "Draw it (extra: bench).")
def curve(asked: Asked, *, deferrals: int, exits: int, points: int, png_file: Path | None) -> None:
    """Sweep deferral and exit thresholds: what each setting is right about, and how fast the best of them are.

    MODEL is a folder or a Hub id, of a classifier or a tagger. Every pair of thresholds runs once. Some settings of the
    front, tier 2 whole and cut after each exit, tier 1 alone and the bundle as configured are then timed in turns.
    Without labels, agreement with tier 2 at full depth takes the place of accuracy.

    \b
    Example:
      cascade-bench curve models/sentiment --data dev.jsonl --threads 2
      cascade-bench curve models/sentiment --data dev.jsonl --json curve.json --png curve.png
    """
    for option, output in (("--json", asked.json_file), ("--png", png_file)):
        check_output(option, output, asked.file)
    # It guards its own door, before minutes of work.
    plot = None if png_file is None else importlib.import_module("cascade_bench.curve.plot")
    pipeline, data, before, _ = asked.open()
    with bar() as step:
        found = measure(
            pipeline, data, deferrals=deferrals, exits=exits, points=points, repeats=asked.repeats, progress=step
        )
    cells = columns(found.table)
    rows = [["*" if one.ahead else "", *(cell(one.row) for cell in cells.values())] for one in found.timed]
    shown = grid(["front", *cells], rows, left=2)
    click.echo("\n".join([shown, "", *data.notes, *_method(found), machine.in_words(before)]))
    write_json(asked.json_file, before, entries(found.table), details=asked.details, notes=data.notes)
    if plot is not None:
        plot.write_png(found, png_file)


def _method(made: Curve) -> list[str]:
    table = made.table
    timed = (
        f"{len(table.data)} {table.data.unit}, end to end with tokenisation, {len(table.turns.orders)} interleaved "
        "repeats; a speed-up is the median of ratios of seconds within a repeat, over tier 2 at full depth, in "
        "brackets its 95 % interval (another coverage is named). *: nothing else is both faster and as good."
    )
    return [timed, f"Lettered settings: of the front of {len(made.tried)} that ran once, chosen on these rows."]

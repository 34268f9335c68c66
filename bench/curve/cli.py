"""`cascade-bench curve`: its options, and what is checked before minutes of work."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from cascade.core.files import check_output
from cascade.exceptions import DataError, OptionError
from cascade_bench.compare.files import read_entries
from cascade_bench.curve.measuring import Curve
from cascade_bench.curve.measuring import curve as measure
from cascade_bench.curve.settings import Setting
from cascade_bench.options import Asked, count_option, file_option, labelled_file_options
from cascade_bench.table.rendering import as_entry
from cascade_bench.table.rendering import columns as columns_of
from cascade_bench.timing import machine
from cascade_bench.timing.console import bar, grid
from cascade_bench.timing.report_json import document, write_json


@click.command(short_help="Accuracy over speed: settings tried once, those on the front timed beside fixed depths.")
@labelled_file_options
@count_option("--deferrals", 8, "Thresholds of tier 1.")
@count_option("--exits", 4, "Of tier 2's exits.")
@count_option("--points", 6, "Of the front, timed.")
@file_option("--like", "like_file", "Time the settings that this JSON has timed; try nothing.")
@file_option("--png", "png_file", "Draw it (extra: bench).")
def curve(
    asked: Asked, *, deferrals: int, exits: int, points: int, like_file: Path | None, png_file: Path | None
) -> None:
    """Sweep deferral and exit thresholds: what each setting is right about, and how fast the best of them are.

    MODEL is a folder or a Hub id, of a classifier or a tagger. Every pair of thresholds runs once. Some settings of the
    front, tier 2 whole and cut after each exit, tier 1 alone and the bundle as configured are then timed in turns.
    Without labels, agreement with tier 2 at full depth takes the place of accuracy.

    \b
    Example:
      cascade-bench curve models/sentiment --data dev.jsonl --threads 2
      cascade-bench curve models/sentiment --data dev.jsonl --json curve.json --png curve.png
      cascade-bench curve models/sentiment --data dev.jsonl --like curve.json --json again.json
    """
    inputs = [asked.file] if like_file is None else [asked.file, like_file]
    for option, output in (("--json", asked.json_file), ("--png", png_file)):
        check_output(option, output, *inputs)
    # It guards its own door, before minutes of work.
    plot = None if png_file is None else importlib.import_module("cascade_bench.curve.plot")
    like = None if like_file is None else _settings(like_file)
    pipeline, data, before, _ = asked.open()
    with bar() as step:
        found = measure(
            pipeline,
            data,
            deferrals=deferrals,
            exits=exits,
            points=points,
            repeats=asked.repeats,
            like=like,
            progress=step,
        )
    click.echo(as_text(found, before))
    write_json(asked.json_file, as_json(found, before, {**asked.details, "deferrals": deferrals, "exits": exits}))
    if plot is not None:
        plot.write_png(found, png_file)


def as_text(made: Curve, facts: Mapping[str, Any]) -> str:
    """For terminals."""
    cells = columns_of(made.table)
    rows = [["*" if one.ahead else "", *(cell(one.row) for cell in cells.values())] for one in made.timed]
    shown = grid(["front", *cells], rows, left=2)
    return "\n".join([shown, "", *made.table.data.notes, *_method(made), machine.in_words(facts)])


def as_json(made: Curve, facts: Mapping[str, Any], details: Mapping[str, Any]) -> dict[str, Any]:
    """Everything. `details`: what was run, such as model, data and command."""
    data = made.table.data
    entries = []
    for one in made.timed:
        more = {"letter": one.letter, "setting": one.setting.to_json()} if one.setting is not None else {}
        entries.append(as_entry(one.row, made.table, "curve", front=one.ahead, **more))
    return document(
        facts,
        entries,
        details=dict(details),
        **data.facts,
        tried=[
            {"setting": point.setting.to_json(), data.metric: point.accuracy, "seconds_of_one_pass": point.seconds}
            for point in made.tried
        ],
        orders=made.table.turns.orders,
    )


def _method(made: Curve) -> list[str]:
    table = made.table
    timed = (
        f"{len(table.data)} {table.data.unit}, end to end with tokenisation, {len(table.turns.orders)} interleaved "
        "repeats; a speed-up is the median of ratios of seconds within a repeat, over tier 2 at full depth, in "
        "brackets its 95 % interval (another coverage is named). *: nothing else is both faster and as good."
    )
    tried = f"Lettered settings: of the front of {len(made.tried)} that ran once, chosen on these rows."
    return [timed, tried] if made.tried else [timed]


def _settings(file: Path) -> list[Setting]:
    """Those that `--json` of this command wrote."""
    written = [(entry.get("extra_info") or {}).get("setting") for entry in read_entries(file)]
    try:
        found = [Setting.from_json(one) for one in written if one is not None]
    except (KeyError, TypeError, OptionError) as fault:
        raise DataError(
            f"{file} must hold settings that can be read, but: {fault}; give what curve --json wrote"
        ) from None
    if not found:
        raise DataError(f"{file} must hold settings of a curve, but it holds none; give what curve --json wrote")
    return found

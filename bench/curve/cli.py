"""`cascade-bench curve`: its options, and what is checked before minutes of work."""

from __future__ import annotations

from pathlib import Path

import click

from cascade.exceptions import DataError, OptionError
from cascade.runtime.threads import check_threads
from cascade_bench.compare.files import read_entries
from cascade_bench.curve import rendering
from cascade_bench.curve.measuring import curve as measure
from cascade_bench.curve.settings import Setting
from cascade_bench.options import data_options, json_option, model_argument, repeats_option, threads_option
from cascade_bench.systems.local import load
from cascade_bench.table.data import Columns, read_data
from cascade_bench.timing import machine
from cascade_bench.timing.console import bar, check_output
from cascade_bench.timing.report_json import write_json

_count = click.IntRange(min=1)


@click.command(short_help="Accuracy over speed: settings tried once, those on the front timed beside fixed depths.")
@model_argument
@data_options
@click.option("--deferrals", type=_count, default=8, show_default=True, metavar="N", help="Thresholds of tier 1.")
@click.option("--exits", type=_count, default=4, show_default=True, metavar="N", help="Of tier 2's exits.")
@click.option("--points", type=_count, default=6, show_default=True, metavar="N", help="Of the front, timed.")
@repeats_option
@click.option("--like", "like_file", type=click.Path(path_type=Path), metavar="FILE",
              help="Time the settings that this JSON has timed; try nothing.")  # fmt: skip
@threads_option
@json_option
@click.option("--png", "png_file", type=click.Path(path_type=Path), metavar="FILE", help="Draw it (extra: bench).")
def curve(
    model: str,
    file: str,
    columns: Columns,
    deferrals: int,
    exits: int,
    points: int,
    repeats: int,
    like_file: Path | None,
    threads: int | None,
    json_file: Path | None,
    png_file: Path | None,
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
    check_output("--json", json_file)
    check_output("--png", png_file)
    if png_file is not None:
        import cascade_bench.curve.plot  # noqa: F401  # it guards its own door, before minutes of work
    like = None if like_file is None else _settings(like_file)
    count = check_threads(threads)
    pipeline = load(model, threads=count)
    data = read_data(file, pipeline, columns=columns)
    before = machine.facts(threads=count)
    with bar() as step:
        found = measure(
            pipeline,
            data,
            deferrals=deferrals,
            exits=exits,
            points=points,
            repeats=repeats,
            like=like,
            progress=step,
        )
    click.echo(rendering.as_text(found, before))
    if json_file is not None:
        details = {"model": model, "data": Path(file).name, "repeats": repeats, "deferrals": deferrals, "exits": exits}
        write_json(json_file, rendering.as_json(found, before, details))
    if png_file is not None:
        from cascade_bench.curve.plot import write_png

        write_png(found, png_file)


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

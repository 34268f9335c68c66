"""`cascade-bench compare`: two installs of this package."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from cascade.bundle.manifest import TAGGING
from cascade.bundle.opening import open_bundle
from cascade.exceptions import OptionError
from cascade_bench.compare.comparing import Compared, Comparison, Install, compare_installs
from cascade_bench.options import count_option
from cascade_bench.systems.process import Job
from cascade_bench.table.data import read_items
from cascade_bench.timing.report import bar, grid

CLEAR = 0.9  # of an interval's coverage, which five repeats have


@click.command(short_help="Before and after: two installs in turns, as ratios of seconds with intervals.")
@click.argument("a")
@click.argument("b")
@click.option("--model", required=True, metavar="BUNDLE", help="The bundle that both load.")
@click.option("--data", "file", required=True, metavar="FILE", help="What both answer; labels are not read.")
@click.option("--threads", multiple=True, type=click.IntRange(min=1), default=(1, 2), show_default=True, metavar="N",
              help="Of each; give it again for each number.")  # fmt: skip
@count_option("--repeats", 9, "Turns of each.")
@count_option("--single", 32, "Texts that are answered one by one.")
@click.option("--at-least", type=float, metavar="R", help="End with status 1 where B is less than R times as fast.")
def compare(
    a: str,
    b: str,
    model: str,
    file: str,
    threads: tuple[int, ...],
    repeats: int,
    single: int,
    at_least: float | None,
) -> None:
    """How many times as fast B is as A: medians of ratios that are paired by repeat, with 95 % intervals.

    A and B are two installs of this package: each a Python interpreter, or a folder that holds cascade/ for this
    interpreter. They answer a file with a bundle at full depth and as it is configured, all in one call and one by one,
    a process each, in turns. With --at-least a benchmark fails whose median is below the bound.

    \b
    Example:
      cascade-bench compare ../before . --model models/sentiment --data dev.jsonl --at-least 0.95
      cascade-bench compare old/bin/python new/bin/python --model models/pos --data dev.jsonl --threads 1
    """
    if at_least is not None and not 0 < at_least < float("inf"):
        raise OptionError(f"--at-least must be above 0 and finite, got {at_least}; 0.95 lets B take a twentieth longer")
    installs = [Install.of(a), Install.of(b)]
    tagging = open_bundle(model).manifest.task == TAGGING
    items = read_items(file, words=tagging)
    with tempfile.TemporaryDirectory(prefix="cascade-bench-") as folder, bar() as step:
        place = str(Path(model).absolute()) if Path(model).exists() else model
        job = Job(place, "", folder, 1, 0, tagging=tagging)
        found = compare_installs(installs, job, items, threads=threads, repeats=repeats, single=single, progress=step)
    _print(found, at_least or 0.0)


def _print(found: Comparison, at_least: float) -> None:
    slower = sum(row.ratio.median < at_least for row in found.rows)
    rows = [
        [row.name, f"{row.before:.4g}", f"{row.after:.4g}", row.ratio.text(".3f"), _conclusion(row, at_least)]
        for row in found.rows
    ]
    click.echo(grid(["benchmark", "A, seconds", "B, seconds", "B is times as fast", ""], rows))
    click.echo("\n".join(found.notes))
    if slower:
        click.echo(f"{slower} of {len(rows)} are less than {at_least:g} times as fast in B.", err=True)
        click.get_current_context().exit(1)


def _conclusion(row: Compared, at_least: float) -> str:
    clear = row.ratio.coverage >= CLEAR
    if row.ratio.median < at_least:
        return "too slow" if clear and row.ratio.high < at_least else "too slow, though not clearly"
    if not clear:
        return "too few repeats to say"
    return "faster" if row.ratio.low > 1 else "slower" if row.ratio.high < 1 else ""

"""`cascade-bench compare`: two files, or two installs."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from cascade.bundle.manifest import TAGGING
from cascade.bundle.opening import open_bundle
from cascade.exceptions import OptionError
from cascade_bench.compare.comparing import Compared, Comparison, Install, compare_files, compare_installs
from cascade_bench.options import count_option
from cascade_bench.systems.process import Job
from cascade_bench.table.data import read_items
from cascade_bench.timing.report import bar, grid


@click.command(short_help="Before and after, as ratios of seconds with intervals: two JSON files, or two installs.")
@click.argument("a")
@click.argument("b")
@click.option("--model", metavar="BUNDLE", help="Installs: the bundle that both load.")
@click.option("--data", "file", metavar="FILE", help="Installs: what both answer; labels are not read.")
@click.option("--threads", multiple=True, type=click.IntRange(min=1), default=(1, 2), show_default=True, metavar="N",
              help="Installs: of each; give it again for each number.")  # fmt: skip
@count_option("--repeats", 9, "Installs: turns of each.")
@count_option("--single", 32, "Installs: texts that are answered one by one.")
@click.option("--at-least", type=float, metavar="R", help="End with status 1 where B is less than R times as fast.")
def compare(
    a: str,
    b: str,
    model: str | None,
    file: str | None,
    threads: tuple[int, ...],
    repeats: int,
    single: int,
    at_least: float | None,
) -> None:
    """How many times as fast B is as A: medians of ratios that are paired by repeat, with 95 % intervals.

    A and B are two files that --json or pytest's --benchmark-json wrote, or two installs of this package: each a Python
    interpreter, or a folder that holds cascade/ for this interpreter. Installs answer a file with a bundle at full
    depth and as it is configured, all in one call and one by one, a process each, in turns; files are of two runs, and
    what the machine did differently between them is in the ratio. With --at-least a benchmark fails whose median is
    below the bound.

    \b
    Example:
      cascade-bench compare before.json after.json --at-least 0.95
      cascade-bench compare ../before . --model models/sentiment --data dev.jsonl
      cascade-bench compare old/bin/python new/bin/python --model models/pos --data dev.jsonl --threads 1
    """
    if at_least is not None and not 0 < at_least < float("inf"):
        raise OptionError(f"--at-least must be above 0 and finite, got {at_least}; 0.95 lets B take a twentieth longer")
    if a.endswith(".json") and b.endswith(".json"):
        if model is not None or file is not None:
            raise OptionError("--model and --data are for installs, got two files; leave them out")
        found = compare_files(Path(a), Path(b))
    else:
        installs = [Install.of(a), Install.of(b)]
        if model is None or file is None:
            raise OptionError("two installs need --model and --data, got neither or one of them; name both")
        tagging = open_bundle(model).manifest.task == TAGGING
        items = read_items(file, words=tagging)
        with tempfile.TemporaryDirectory(prefix="cascade-bench-") as folder, bar() as step:
            place = str(Path(model).absolute()) if Path(model).exists() else model
            job = Job(place, "", folder, 1, 0, tagging=tagging)
            found = compare_installs(
                installs, job, items, threads=threads, repeats=repeats, single=single, progress=step
            )
    _print(found, at_least)


def _print(found: Comparison, at_least: float | None) -> None:
    slower = [] if at_least is None else found.slower(at_least)
    rows = [
        [row.name, f"{row.before:.4g}", f"{row.after:.4g}", row.ratio.text(".3f"), _conclusion(row, at_least)]
        for row in found.rows
    ]
    click.echo(grid(["benchmark", "A, seconds", "B, seconds", "B is times as fast", ""], rows))
    click.echo("\n".join(found.notes))
    if slower:
        click.echo(f"{len(slower)} of {len(rows)} are less than {at_least:g} times as fast in B.", err=True)
        click.get_current_context().exit(1)


def _conclusion(row: Compared, at_least: float | None) -> str:
    if at_least is not None and row.ratio.median < at_least:
        return "too slow" if row.ratio.high < at_least else "too slow, though not clearly"
    return "faster" if row.ratio.low > 1 else "slower" if row.ratio.high < 1 else ""

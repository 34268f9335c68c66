"""Regression check of `make bench`: a ratio must not fall below its reference. It ends with status 1 where one does.

python -m cascade_bench.harness.check models/sentiment                      compare with the references
python -m cascade_bench.harness.check models/sentiment --write-reference    write them, on a quiet machine
"""

from __future__ import annotations

from pathlib import Path

import click

from cascade.core.console import finish
from cascade.pipelines.classifier import Classifier
from cascade.runtime.threads import check_threads
from cascade_bench.harness.ratios import (
    FILE,
    RATIOS,
    cpu_kind,
    measure,
    read_references,
    references_of,
    shortfall,
    texts_for,
    works,
    write_references,
)
from cascade_bench.options import threads_option
from cascade_bench.timing import machine
from cascade_bench.timing.report import bar, grid

TURNS = 15  # so that the interval of a median may leave out three at either end and cover 96 %
TEXTS = 1024


@click.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@threads_option
@click.option("--turns", type=click.IntRange(min=1), default=TURNS, show_default=True, help="Of each.")
@click.option("--reference", "file", type=click.Path(path_type=Path), default=FILE, help="The file of ratios to hold.")
@click.option("--write-reference", "writing", is_flag=True, help="Write the ratios as they are now.")
@click.pass_context
def check(context: click.Context, bundle: Path, threads: int | None, turns: int, file: Path, writing: bool) -> None:
    """Measure the ratios of a classifier's BUNDLE and compare them with their references."""
    count = check_threads(threads)
    classifier = Classifier.from_pretrained(bundle, threads=count)
    name, facts = bundle.resolve().name, machine.facts(threads=count)
    kind = cpu_kind(facts)
    references = None if writing else read_references(file, name, kind)
    if references is None and not writing:
        click.echo(f"{name} has no reference ratios for {kind}; use --write-reference on a quiet machine.")
        return
    texts = texts_for(bundle, TEXTS)
    one_thread = None if count == 1 else Classifier.from_pretrained(bundle, threads=1)
    with bar() as step:
        running = works(classifier, texts, threads=count, one_thread=one_thread)
        measured = measure(running, turns=turns, progress=step)
    if references is None:
        tolerances = {ratio.name: ratio.tolerance for ratio in RATIOS if ratio.tolerance is not None}
        references = references_of(measured, facts, tolerances=tolerances)
        write_references(file, name, kind, references)
    rows = []
    for key, interval in measured.items():
        held = references.ratios.get(key)
        rows.append(
            [key, interval.text(".3g"), *(["", ""] if held is None else [f"{held.value:g}", f"{held.floor:.3g}"])]
        )
    click.echo(f"{name}, {kind}, references of {references.date}:")
    click.echo(grid(["ratio", "measured", "reference", "at least"], rows))
    faults = [line for key in measured if (line := shortfall(key, measured[key], references)) is not None]
    for line in faults:
        click.echo(line, err=True)
    context.exit(1 if faults else 0)


if __name__ == "__main__":
    finish(check)

"""`cascade-bench startup`: its options, its table, its file."""

from __future__ import annotations

from pathlib import Path

import click

from cascade.bundle.manifest import TAGGING
from cascade.bundle.opening import open_bundle
from cascade.runtime.threads import check_threads
from cascade_bench.latency.startup import startup as measure
from cascade_bench.options import json_option, markdown_option, model_argument, threads_option
from cascade_bench.timing import machine
from cascade_bench.timing.console import bar, check_output, grid
from cascade_bench.timing.report_json import write_json

__all__ = ["startup"]


@click.command(short_help="Seconds of import and first answer, memory; in fresh processes.")
@model_argument
@click.option("--samples", type=click.IntRange(min=1), default=5, show_default=True, metavar="N", help="Of each.")
@threads_option
@json_option
@markdown_option
def startup(model: str, samples: int, threads: int | None, json_file: Path | None, markdown: bool) -> None:
    """What a first call costs: `import cascade`, an answer from a cold process, memory after 100 texts.

    MODEL is a folder or a Hub id. Every sample is a process of its own; medians are shown.

    \b
    Example:
      cascade-bench startup models/sentiment
      cascade-bench startup models/sentiment --threads 2 --json startup.json
    """
    check_output("--json", json_file)
    count = check_threads(threads)
    tagging = open_bundle(model).manifest.task == TAGGING  # what is wrong with it is said once, here
    with bar(3 * (samples + 1)) as step:
        found = measure(model, threads=count, tagging=tagging, samples=samples, progress=step)
    middle = found.medians()
    rows = [
        ["`import cascade`" if markdown else "import cascade", f"{middle['import_seconds']:.2f} s"],
        [f"with all that a {'Tagger' if tagging else 'Classifier'} needs", f"{middle['classifier_seconds']:.2f} s"],
        ["first answer of a cold process", f"{middle['answer_seconds']:.2f} s"],
        ["resident memory after 100 texts", f"{middle['resident_mib']:.0f} MiB"],
        ["peak until then", f"{middle['peak_mib']:.0f} MiB"],
    ]
    click.echo(grid(["", f"median of {samples}"], rows, markdown=markdown))
    if json_file is not None:
        facts = machine.facts(threads=count)
        write_json(json_file, {"machine_info": facts, "model": model, "median": middle, "data": vars(found)})

"""`cascade-bench table`: its options, what runs, its file."""

from __future__ import annotations

from typing import Any

import click

from cascade.pipelines.tagger import Tagger
from cascade_bench.options import Asked, labelled_file_options, markdown_option
from cascade_bench.systems.local import systems
from cascade_bench.table import rendering
from cascade_bench.table.measuring import measure
from cascade_bench.timing.report import bar, write_json

SUBSET = 256  # items on which the pipeline's batch sizes are tried


@click.command(short_help="Accuracy and seconds: tier 2 whole, cut, with exits; the cascade; a pipeline.")
@labelled_file_options
@click.option("--checkpoint", metavar="FOLDER", help="Also transformers.pipeline on this checkpoint (extra: bench).")
@markdown_option
def table(asked: Asked, *, checkpoint: str | None, markdown: bool) -> None:
    """Accuracy and seconds of every way to run a bundle, measured in one run in which all take turns.

    MODEL is a folder or a Hub id. Each pass answers the whole file, tokenisation included. With --checkpoint,
    transformers.pipeline runs the same second tier in fp32 at its best batch size. A tagger's file has lists of words
    and tags. Without labels, agreement with tier 2 at full depth takes the place of accuracy.

    \b
    Example:
      cascade-bench table models/sentiment --data dev.jsonl --threads 2
      cascade-bench table models/sentiment --data dev.jsonl --checkpoint runs/tier2 --markdown --json table.json
      cascade-bench table models/pos --data dev.jsonl --repeats 5
    """
    pipeline, data, before, count = asked.open()
    rates: dict[int, float] = {}
    with bar() as step:
        tested = systems(pipeline)
        if checkpoint is not None:
            from cascade_bench.systems.transformers_pipeline import TransformersPipeline, best_batch_size, system

            peer = TransformersPipeline.load(
                checkpoint,
                threads=count,
                max_length=pipeline.bundle.manifest.tier2.max_length,
                multi_label=pipeline.multi_label,
                tagging=data.words,
            )
            size, rates = best_batch_size(peer, data.items[:SUBSET], progress=step)
            tested.append(system(peer, size))
        made = measure(tested, data, repeats=asked.repeats, progress=step)
    click.echo(rendering.as_text(made, before, markdown=markdown))
    names = ("router", "exit_policy", "blend", *(("windows", "decoding") if isinstance(pipeline, Tagger) else ()))
    settings: dict[str, Any] = {name: getattr(pipeline, name) for name in names}
    settings = {name: own if name == "blend" else repr(own) for name, own in settings.items()}
    empty = "\n" * markdown
    click.echo(f"{empty}Settings: {', '.join(f'{name} {value}' for name, value in settings.items())}.")
    if rates:
        tried = ", ".join(f"{size}: {rate:.0f}" for size, rate in rates.items())
        click.echo(f"{empty}Pipeline, items/s by batch size on {min(SUBSET, len(data.items))} items: {tried}.")
    details = {**asked.details, "items": len(data.items), **settings, "checkpoint": checkpoint}
    write_json(asked.json_file, before, rendering.entries(made), details=details, notes=data.notes)

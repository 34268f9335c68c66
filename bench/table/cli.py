"""`cascade-bench table`: its options, what runs, how it is told: on a terminal, as Markdown for README, in a file.

With a conclusion in a sentence: is the cascade worth it beside the fixed depth that it replaces?
"""

from __future__ import annotations

import time
from typing import Any

import click

from cascade.core.statistics import speed_up
from cascade.pipelines.tagger import Tagger
from cascade_bench.options import Asked, labelled_file_options, markdown_option
from cascade_bench.systems.local import CASCADE, TRANSFORMERS, Answered, System, systems
from cascade_bench.table.measuring import Table, as_text, entries, measure
from cascade_bench.timing.interleaving import BATCH_SIZES, best_size
from cascade_bench.timing.machine import in_words
from cascade_bench.timing.report import bar, write_json

SUBSET = 256  # items on which the pipeline's batch sizes are tried


@click.command(short_help="Accuracy and seconds: the last tier whole, cut, with exits; the cascade; a pipeline.")
@labelled_file_options
@click.option("--checkpoint", metavar="FOLDER", help="Also transformers.pipeline on this checkpoint (extra: bench).")
@markdown_option
def table(asked: Asked, *, checkpoint: str | None, markdown: bool) -> None:
    """Accuracy and seconds of every way to run a bundle, measured in one run in which all take turns.

    MODEL is a folder or a Hub id, of two tiers or more: the last one at full depth and cut after each exit, every tier
    alone, of more than two every pair. Each pass answers the whole file, tokenisation included. With --checkpoint,
    transformers.pipeline runs the same last tier in fp32 at its best batch size. A tagger's file has lists of words and
    tags. Without labels, agreement with full depth takes the place of accuracy.

    \b
    Example:
      cascade-bench table models/sentiment --data dev.jsonl --threads 2
      cascade-bench table models/sentiment --data dev.jsonl --checkpoint runs/tier2 --markdown --json table.json
      cascade-bench table models/pos --data dev.jsonl --repeats 5
    """
    pipeline, data, before, count = asked.open()
    with bar() as step:
        tested = systems(pipeline)
        if checkpoint is not None:
            from cascade_bench.systems.transformers_pipeline import TransformersPipeline

            peer = TransformersPipeline.load(
                checkpoint,
                threads=count,
                max_length=pipeline.bundle.manifest.tiers[-1].max_length,
                multi_label=pipeline.multi_label,
                tagging=data.words,
            )
            some = data.items[:SUBSET]

            def seconds(size: int) -> float:
                step(f"pipeline, batches of {size}")
                begin = time.perf_counter()
                peer.labels(some, batch_size=size)
                return time.perf_counter() - begin

            peer.labels(some[:32], batch_size=8)
            size = best_size(BATCH_SIZES, len(some), seconds)
            name = f"transformers.pipeline, fp32, batches of {size}"
            tested.append(System(TRANSFORMERS, name, lambda items: Answered(peer.labels(items, batch_size=size))))
        made = measure(tested, data, repeats=asked.repeats, progress=step)
    click.echo(as_text(made, said_of(made), [method(made, asked.repeats), in_words(before)], markdown=markdown))
    own, words = pipeline.policies, isinstance(pipeline, Tagger)
    settings: dict[str, Any] = {"router": own.routers, "exit_policy": own.exits[1:], "blend": own.blend}
    settings = {name: "; ".join(map(str, value)) for name, value in settings.items()}
    settings |= {name: repr(getattr(own, name)) for name in (("windows", "decoding") if words else ())}
    click.echo(f"{chr(10) * markdown}Settings: {', '.join(f'{name} {value}' for name, value in settings.items())}.")
    details = {**asked.details, "items": len(data.items), **settings, "checkpoint": checkpoint}
    write_json(asked.json_file, before, entries(made), details=details, notes=data.notes)


def method(table: Table, repeats: int) -> str:
    """How its figures were measured."""
    return (
        f"{len(table.data)} {table.data.unit}, tokenisation included, {repeats} interleaved repeats; "
        "ratios are medians of those within a repeat, in brackets their 95 % intervals (another coverage is named). "
        f"Points: {table.data.metric} against full depth. Mean layer: of the {table.data.unit} that the last tier has."
    )


def said_of(table: Table) -> list[str]:
    """A conclusion, and what no router can beat."""
    if table.oracle is None:
        return [conclusion(table)]
    best, shares = table.oracle, " / ".join(f"{100 * share:.1f}" for share in table.oracle.by_tier)
    told = f"An oracle that asks the cheapest tier that is right is right on {best.accuracy:.2%}, by tier {shares} %"
    return [conclusion(table), f"{told}, and {best.over_full:.2f} times as fast as full depth."]


def conclusion(table: Table) -> str:
    """The cascade against the fastest cut of the last tier that is at least as accurate, in seconds."""
    cascade, cuts = table.row(CASCADE), [row for row in table.rows if row.cut is not None]
    accurate = [row for row in cuts if row.accuracy >= cascade.accuracy]
    which = "the fastest fixed depth that is at least as accurate is"
    if not accurate:
        which = "no cut of the last tier is as accurate, not even full depth; the most accurate is"
    best = min(accurate or cuts, key=lambda row: (0.0 if accurate else -row.accuracy, row.median_seconds))
    ratio = speed_up(best.seconds, cascade.seconds)
    clear = "faster" if ratio.low > 1 else "slower" if ratio.high < 1 else "no clear difference"
    return (
        f"The cascade is right on {cascade.accuracy:.2%}; {which} {best.name} ({best.accuracy:.2%}), beside which the "
        f"cascade is {ratio.text()} times as fast: {clear}."
    )

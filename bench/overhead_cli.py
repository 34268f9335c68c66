"""`cascade-bench overhead`: its options, its table, its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import click

from cascade.core.console import table as aligned
from cascade.pipelines.classifier import Classifier
from cascade.runtime.threads import check_threads
from cascade.text.reading import read_examples
from cascade_bench import machine
from cascade_bench.console import bar, check_json
from cascade_bench.options import json_option, model_argument, text_options, threads_option
from cascade_bench.overhead import PARTS, Overhead, measure
from cascade_bench.report_json import benchmark, document, write_json
from cascade_bench.statistics import Interval

__all__ = ["as_json", "as_text", "overhead"]


@click.command(short_help="Share of `predict` outside the graphs: tokens, packing, routing, merging.")
@model_argument
@text_options
@click.option("--texts", type=click.IntRange(min=1), default=10_000, show_default=True, metavar="N",
              help="Texts of a call; the file's come again and again.")  # fmt: skip
@click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True, metavar="N", help="Turns of each.")
@threads_option
@json_option
def overhead(
    model: str,
    file: str,
    text_column: str,
    pair_column: str,
    texts: int,
    repeats: int,
    threads: int | None,
    json_file: Path | None,
) -> None:
    """How much of a call of `predict` no graph runs: with one thread and with all, chunks of text known and not.

    MODEL is a folder or a Hub id, of a classifier as it is configured. The tokenizer remembers chunks of text, and the
    file's texts come again and again; so the call also runs with an empty table of chunks, and without one. With
    the defaults and several threads these are 36 calls, 6 of them to warm up.

    \b
    Example:
      cascade-bench overhead models/sentiment --data dev.jsonl --threads 2
      cascade-bench overhead models/sentiment --data dev.jsonl --texts 2000 --repeats 9 --json overhead.json
    """
    check_json(json_file)
    count = check_threads(threads)
    examples = read_examples(file, text_column=text_column, pair_column=pair_column)
    given = [example.text for example in examples if example.text is not None]
    classifiers = {one: Classifier.from_pretrained(model, threads=one) for one in sorted({1, count})}
    before = machine.facts(threads=count)
    with bar() as step:
        made = measure(classifiers, given, texts=texts, repeats=repeats, progress=step)
    click.echo(as_text(made, before))
    if json_file is not None:
        write_json(json_file, as_json(made, before, {"model": model, "data": Path(file).name, "repeats": repeats}))


def as_text(made: Overhead, facts: Mapping[str, Any]) -> str:
    """For terminals."""
    head = ["threads", "chunks", "texts/s", "outside graphs", *PARTS, "idle threads"]
    rows = [
        [
            str(way.threads),
            way.chunks.value,
            f"{made.texts / median(sample.wall for sample in taken):,.0f}",
            _percent(made.outside(way)),
            *(f"{made.part(way, part):.1%}" for part in PARTS),
            _percent(made.idle(way)),
        ]
        for way, taken in made.samples.items()
    ]
    blocks = [
        f"predict on {made.texts} texts: {made.distinct} of the file over and over, unchanged.",
        aligned(head, rows, right=(0, *range(2, len(head)))),
        _method(made),
        machine.in_words(dict(facts)),
    ]
    return "\n\n".join(blocks)


def as_json(made: Overhead, facts: Mapping[str, Any], details: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, in pytest-benchmark's shape: an entry per way, with the wall seconds of its calls."""
    benchmarks = [
        benchmark(
            "overhead",
            way.name,
            [sample.wall for sample in taken],
            info={
                "threads": way.threads,
                "chunks": way.chunks.value,
                "outside": asdict(made.outside(way)),
                "idle_threads": asdict(made.idle(way)),
                "parts": {part: made.part(way, part) for part in PARTS},
                "samples": [asdict(sample) for sample in taken],
            },
        )
        for way, taken in made.samples.items()
    ]
    counts = {"texts": made.texts, "distinct_texts": made.distinct}
    return document(facts, benchmarks, details={**details, **counts}, orders=made.turns.orders)


def _method(made: Overhead) -> str:
    return (
        "Outside graphs: share of the wall time during which no graph runs (1 - union of all runs / wall time), by "
        "parts. A graph runs from the call of its backend until that returns. Idle threads: 1 - sum of all runs / "
        "(threads x wall time), a run on the pool counting for all threads; with several threads work beside a "
        "running graph counts there only. Chunks: what the tokenizer's table knows when the call begins. Medians of "
        f"{min(map(len, made.samples.values()))} calls or more, in turns; in brackets their intervals (95 %, or the "
        "coverage named)."
    )


def _percent(share: Interval) -> str:
    covered = "" if share.coverage >= 0.95 else f" ({share.coverage:.0%})"
    return f"{share.median:.1%} [{share.low:.1%}, {share.high:.1%}]{covered}"

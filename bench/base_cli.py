"""`cascade-bench base`: its options, its table, its file."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cascade.bundle.opening import open_bundle
from cascade.core.console import table as aligned
from cascade.exceptions import DataError
from cascade.runtime.threads import check_threads
from cascade.text.reading import read_examples
from cascade_bench import machine
from cascade_bench.console import bar, check_json
from cascade_bench.options import json_option, model_argument, text_options, threads_option
from cascade_bench.peer_turns import ORDERS
from cascade_bench.render import ratio
from cascade_bench.report_json import benchmark, document, write_json

if TYPE_CHECKING:
    from cascade_bench.base import Shape
    from cascade_bench.peers_table import PeerTable

__all__ = ["as_json", "as_text", "base"]


@click.command(short_help="A model of BERT base's size, random weights: full depth against optimum and ONNX Runtime.")
@model_argument
@text_options
@click.option("--layers", type=click.IntRange(min=1), default=12, show_default=True, metavar="N", help="Of the model.")
@click.option("--width", type=click.IntRange(min=1), default=768, show_default=True, metavar="N", help="Of its states.")
@click.option("--heads", type=click.IntRange(min=1), default=12, show_default=True, metavar="N", help="Of attention.")
@click.option("--texts", type=click.IntRange(min=1), metavar="N", help="The first of the file.  [default: all]")
@click.option("--repeats", type=click.IntRange(min=1), default=7, show_default=True, metavar="N", help="Turns of each.")
@threads_option
@json_option
def base(
    model: str,
    file: str,
    text_column: str,
    pair_column: str,
    layers: int,
    width: int,
    heads: int,
    texts: int | None,
    repeats: int,
    threads: int | None,
    json_file: Path | None,
) -> None:
    """Full depth of an encoder of any size, int8, beside optimum's int8 pipeline and bare ONNX Runtime int8.

    MODEL is a folder or a Hub id and gives its tokenizer, the file gives the lengths of rows; weights are drawn by
    lot, so answers mean nothing and only seconds are shown. The model is exported into a temporary folder; of BERT
    base the weights alone are 0.35 GB, and there are four copies in fp32 for a while. All of a file of a thousand
    sentences takes about half an hour, most of it the peers' batch sizes and turns.

    \b
    Example:
      cascade-bench base models/sentiment --data dev.jsonl --threads 2
      cascade-bench base models/sentiment --data dev.jsonl --texts 200 --repeats 3 --json base.json
    """
    from cascade_bench.base import Shape, make, measure  # torch is an extra's, and not every command needs it

    check_json(json_file)
    count, shape = check_threads(threads), Shape(layers, width, heads)
    tokenizer = open_bundle(model).folder
    examples = read_examples(file, text_column=text_column, pair_column=pair_column)
    given = [example.text for example in examples if example.text is not None][:texts]
    if not given:
        raise DataError(f"{file} must have at least one text, had none; give another file")
    before = machine.facts(threads=count)
    with tempfile.TemporaryDirectory(prefix="cascade-bench-") as folder, bar() as step:
        made = make(shape, tokenizer, Path(folder), progress=step)
        work = Path(folder) / "peers"
        work.mkdir()
        table = measure(made, given, work, threads=count, repeats=repeats, progress=step)
    click.echo(as_text(table, shape, before))
    if json_file is not None:
        details = {"model": f"random weights, {shape}", "tokenizer": model, "data": Path(file).name}
        write_json(json_file, as_json(table, before, {**details, **asdict(shape), "repeats": repeats}))


def as_text(table: PeerTable, shape: Shape, facts: Mapping[str, Any]) -> str:
    """For terminals."""
    from cascade_bench.base import gains

    found = gains(table)
    head = ["", "texts", "batch", "texts/s", "full depth here is faster by", "peak MiB"]
    rows = [
        [
            row.kind.name,
            "own order" if row.kind.own else ORDERS[row.by_length],
            "" if row.batch_size is None else str(row.batch_size),
            f"{table.count / row.median_seconds:,.1f}",
            ratio(found.get(row.name)),
            "" if row.peak_mib is None else f"{row.peak_mib:,.0f}",
        ]
        for row in table.rows
    ]
    blocks = [
        f"Random weights, {shape}: only seconds mean something.",
        aligned(head, rows, right=range(2, len(head))),
        "\n".join(f"{one.kind.name}: {'failed: ' * one.failed}{one.reason}." for one in table.absent),
        (
            f"{table.count} texts, tokenisation included, {len(table.orders)} interleaved repeats, a process each, "
            "equal threads, best batch size of each. Ratios are medians of those within a repeat, in brackets their "
            "intervals (95 %, or the coverage named)."
        ),
        machine.in_words(dict(facts)),
    ]
    return "\n\n".join(block for block in blocks if block)


def as_json(table: PeerTable, facts: Mapping[str, Any], details: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, in pytest-benchmark's shape: an entry per contestant and order."""
    from cascade_bench.base import gains

    found = gains(table)
    benchmarks = [
        benchmark(
            "base",
            row.name,
            [value for value in row.seconds if value is not None],
            iterations=row.passes,
            info={
                "name": row.kind.name,
                "order": ORDERS[row.by_length],
                "texts": table.count,
                "batch_size": row.batch_size,
                "texts_per_second_by_batch_size": row.tried,
                "seconds_by_repeat": list(row.seconds),
                "full_depth_is_faster_by": asdict(found[row.name]) if row.name in found else None,
                "peak_mib": row.peak_mib,
            },
        )
        for row in table.rows
    ]
    absent = [{"key": one.kind.key, "reason": one.reason, "failed": one.failed} for one in table.absent]
    return document(facts, benchmarks, details=dict(details), absent=absent, orders=table.orders)

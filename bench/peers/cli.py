"""`cascade-bench peers`: its options, its tables, its file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from cascade.core.statistics import shown
from cascade.exceptions import OptionError
from cascade_bench.options import Asked, count_option, labelled_file_options, markdown_option
from cascade_bench.peers.running import ORDERS
from cascade_bench.peers.table import PeerRow, PeerTable, compare
from cascade_bench.systems.baselines import BASELINES
from cascade_bench.systems.process import Job
from cascade_bench.timing import machine
from cascade_bench.timing.report import bar, benchmark, grid, write_json


@click.command(short_help="The same checkpoint through transformers, optimum, ONNX Runtime, OpenVINO, CTranslate2.")
@labelled_file_options
@click.option("--checkpoint", required=True, metavar="FOLDER", help="Tier 2 as transformers reads it.")
@click.option("--only", multiple=True, type=click.Choice(list(BASELINES)), help="Run these only; may be repeated.")
@count_option("--single", 0, "Texts that are answered one at a time as well; 0: none.", least=0)
@click.option("--work", metavar="FOLDER", help="Keep converted files here.  [default: a temporary folder]")
@markdown_option
def peers(
    asked: Asked, *, checkpoint: str, only: tuple[str, ...], single: int, work: str | None, markdown: bool
) -> None:
    """What else could run this checkpoint, and how fast: each in a process of its own, all taking turns.

    MODEL is a bundle, FOLDER the checkpoint that its second tier was made from. Each pass labels all texts of the file
    (or tags all sentences), tokenisation included, with equal threads; each system at the batch size that is best for
    it, in the order of the file and sorted by length. What is not installed is listed with the line that installs it.

    With --single N a second table follows: p50, p95 and p99 of the time that one text (or sentence) takes when each is
    given after the last is answered. N texts spread evenly over the file are answered by every system, in turns of some
    20 texts, after a pass that does not count. Texts that the cascade's first tier answers alone, and those that it
    defers, have lines of their own. 200 give a p95 worth reading, 1000 a p99.

    \b
    Example:
      cascade-bench peers models/sentiment --data dev.jsonl --checkpoint runs/tier2 --threads 2
      cascade-bench peers models/sentiment --data dev.jsonl --checkpoint runs/tier2 --only full --only onnxruntime-int8
      cascade-bench peers models/sentiment --data dev.jsonl --checkpoint runs/tier2 --threads 2 --repeats 1 --single 200
    """
    pipeline, data, before, count = asked.open()
    kinds = [kind for kind in BASELINES.values() if not only or kind.key in only]
    with ExitStack() as stack:
        folder = Path(work or stack.enter_context(tempfile.TemporaryDirectory(prefix="cascade-bench-")))
        if not folder.is_dir():
            raise OptionError(f"--work must be a folder that is there, got {folder}; make it first")
        job = Job(
            model=asked.model,
            checkpoint=checkpoint,
            folder=str(folder.absolute()),
            threads=count,
            max_length=pipeline.bundle.manifest.tier2.max_length,
            multi_label=pipeline.multi_label,
            tagging=data.words,
        )
        del pipeline  # its threads and its memory are not part of this
        step = stack.enter_context(bar())
        made = compare(kinds, job, data, repeats=asked.repeats, progress=step, single=single)
    click.echo(as_text(made, before, markdown=markdown))
    details = {**asked.details, "checkpoint": checkpoint, "single": single, "peer_versions": _versions(made)}
    write_json(asked.json_file, before, entries(made), details=details, notes=[*data.notes, *_notes(made)])


def as_text(table: PeerTable, facts: Mapping[str, Any], *, markdown: bool = False) -> str:
    """For terminals, or for README."""
    columns = _columns(table)
    cells = [[cell(row) for cell in columns.values()] for row in table.rows]
    blocks = [grid(list(columns), cells, left=2, markdown=markdown), ""]
    if table.single is not None:
        blocks += [grid(*table.single.cells(), markdown=markdown), ""]
    notes = [*table.data.notes, *_notes(table)]
    versions = ", ".join(f"{name} {version}" for name, version in _versions(table).items())
    said = [_method(table), machine.in_words(facts) + (f" Peers: {versions}." if versions else "")]
    if markdown:
        return "\n".join([*blocks, *(f"- {note}" for note in notes), "", " ".join(said)])
    return "\n".join([*blocks, *notes, *said])


def entries(table: PeerTable) -> list[dict[str, Any]]:
    """Its lines, and those of one text at a time, as benchmarks of a JSON file."""
    kept = ("kind", "seconds")
    made = [
        benchmark(row.name, row.seconds, {name: value for name, value in vars(row).items() if name not in kept})
        for row in table.rows
    ]
    return made + ([] if table.single is None else table.single.entries())


def _columns(table: PeerTable) -> dict[str, Callable[[PeerRow], str]]:
    return {
        "system": lambda row: row.kind.name,
        "texts": lambda row: "own order" if row.kind.own else ORDERS[row.by_length],
        "batch": lambda row: "" if row.batch_size is None else str(row.batch_size),
        table.data.metric: lambda row: f"{row.accuracy:.2%}",
        "as full tier 2": lambda row: "" if row.agreement is None else f"{row.agreement:.2%}",
        f"{table.data.unit}/s": lambda row: f"{len(table.data) / row.median_seconds:,.0f}",
        "over full tier 2": lambda row: shown(row.over_full),
        "over pipeline": lambda row: shown(row.over_pipeline),
        "peak MiB": lambda row: "" if row.peak_mib is None else f"{row.peak_mib:,.0f}",
    }


def _notes(table: PeerTable) -> list[str]:
    kinds = dict.fromkeys(row.kind for row in table.rows)
    notes = [f"{kind.name}: {kind.note}." for kind in kinds if kind.note]
    return [*notes, *(f"{one.kind.name}: {'failed: ' * one.failed}{one.reason}." for one in table.absent)]


def _method(table: PeerTable) -> str:
    return (
        f"{len(table.data)} {table.data.unit}, tokenisation included, {len(table.orders)} interleaved repeats, a "
        "process each, equal threads, best batch size of each. Ratios are medians of those within a repeat, in "
        "brackets their intervals (95 %, or the coverage named). Over pipeline: the transformers pipeline with the "
        "texts as given. Peak memory: of the process in all, both orders and all batch sizes tried."
        + ("" if table.single is None else f" {table.single.method()}")
    )


def _versions(table: PeerTable) -> dict[str, str]:
    """Of the libraries in the table; the machine's facts name those that this engine needs itself."""
    names = dict.fromkeys(part for row in table.rows for part in row.kind.packages)
    return {name: machine.version_of(name) or "unknown" for name in names}  # unknown: a module from somewhere else

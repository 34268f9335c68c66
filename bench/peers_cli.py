"""`cascade-bench peers`: its options, its tables, its file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from cascade.core.console import table as aligned
from cascade.exceptions import OptionError, TaskError
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger
from cascade.runtime.threads import check_threads
from cascade_bench import machine, peers_single
from cascade_bench.console import bar, check_json
from cascade_bench.curve_data import read_for_curve
from cascade_bench.data import Columns
from cascade_bench.options import data_options, json_option, model_argument, threads_option
from cascade_bench.peer_kinds import KINDS
from cascade_bench.peer_process import Job
from cascade_bench.peer_turns import ORDERS
from cascade_bench.peers_table import PeerRow, PeerTable, compare
from cascade_bench.render import ratio
from cascade_bench.report_json import benchmark, document, write_json
from cascade_bench.tag_data import TagColumns

__all__ = ["as_json", "as_markdown", "as_text", "peers"]


@click.command(short_help="The same checkpoint through transformers, optimum, ONNX Runtime, OpenVINO, CTranslate2.")
@model_argument
@data_options
@click.option("--checkpoint", required=True, metavar="FOLDER", help="Tier 2 as transformers reads it.")
@click.option("--only", multiple=True, type=click.Choice(list(KINDS)), help="Run these only; may be repeated.")
@click.option("--repeats", type=click.IntRange(min=1), default=7, show_default=True, metavar="N", help="Turns of each.")
@click.option("--single", type=click.IntRange(min=0), default=0, show_default=True, metavar="N",
              help="Texts that are answered one at a time as well; 0: none.")  # fmt: skip
@click.option("--work", metavar="FOLDER", help="Keep converted files here.  [default: a temporary folder]")
@threads_option
@json_option
@click.option("--markdown", is_flag=True, help="Print the table for a README.")
def peers(
    model: str,
    file: str,
    text_column: str,
    pair_column: str,
    label_column: str,
    tokens_column: str,
    tags_column: str,
    checkpoint: str,
    only: tuple[str, ...],
    repeats: int,
    single: int,
    work: str | None,
    threads: int | None,
    json_file: Path | None,
    markdown: bool,
) -> None:
    """What else could run this checkpoint, and how fast: each in a process of its own, all taking turns.

    MODEL is a bundle, FOLDER the checkpoint that its second tier was made from. Each pass labels all texts of the file
    (or tags all sentences), tokenisation included, with equal threads; each peer at the batch size that is best for
    it, in the order of the file and sorted by length. What is not installed is listed with the line that installs it.

    With --single N a second table follows: p50, p95 and p99 of the time that one text (or sentence) takes when each is
    given after the last is answered. N texts spread evenly over the file are answered by everybody, in turns of some 20
    texts, after a pass that does not count. Texts that the cascade's first tier answers alone, and those that it
    defers, have lines of their own. 200 give a p95 worth reading, 1000 a p99.

    \b
    Example:
      cascade-bench peers models/sentiment --data dev.jsonl --checkpoint runs/tier2 --threads 2
      cascade-bench peers models/sentiment --data dev.jsonl --checkpoint runs/tier2 --only full --only onnxruntime-int8
      cascade-bench peers models/sentiment --data dev.jsonl --checkpoint runs/tier2 --threads 2 --repeats 1 --single 200
    """
    check_json(json_file)
    count = check_threads(threads)
    face: Classifier | Tagger
    try:
        face = Classifier.from_pretrained(model, threads=count)
    except TaskError:
        face = Tagger.from_pretrained(model, threads=count)
    columns = Columns(text_column, pair_column, label_column)
    given = read_for_curve(file, face, columns=columns, tag_columns=TagColumns(tokens_column, tags_column))
    kinds = [kind for kind in KINDS.values() if not only or kind.key in only]
    before = machine.facts(threads=count)
    with ExitStack() as stack:
        folder = Path(work or stack.enter_context(tempfile.TemporaryDirectory(prefix="cascade-bench-")))
        if not folder.is_dir():
            raise OptionError(f"--work must be a folder that is there, was: {folder}; make it first")
        job = Job(
            model=model,
            checkpoint=checkpoint,
            folder=str(folder.absolute()),
            threads=count,
            max_length=face.bundle.manifest.tier2.max_length,
            multi_label=isinstance(face, Classifier) and face.multi_label,
            tagging=isinstance(face, Tagger),
        )
        del face  # its threads and its memory are not part of this
        step = stack.enter_context(bar())
        made = compare(kinds, job, given.data, repeats=repeats, progress=step, single=single)
    shown = as_markdown if markdown else as_text
    click.echo(shown(made, before, metric=given.metric, notes=given.notes))
    if json_file is not None:
        details = {"model": model, "data": Path(file).name, "checkpoint": checkpoint, "repeats": repeats}
        details |= {"single": single}
        details |= {"metric": given.metric, "notes": list(given.notes), "sha256": given.sha256}
        write_json(json_file, as_json(made, before, details))


def as_text(table: PeerTable, facts: Mapping[str, Any], *, metric: str = "accuracy", notes: Sequence[str] = ()) -> str:
    """For terminals. `metric`: what right answers are called; `notes`: on the data."""
    head, rows = _cells(table, metric)
    shown = aligned(head, rows, right=tuple(range(2, len(head))))
    blocks = [shown, ""]
    if table.single is not None:
        head, rows = peers_single.cells(table.single)
        blocks += [aligned(head, rows, right=tuple(range(1, len(head)))), ""]
    return "\n".join([*blocks, *notes, *_notes(table), _method(table), _where(table, facts)])


def as_markdown(
    table: PeerTable, facts: Mapping[str, Any], *, metric: str = "accuracy", notes: Sequence[str] = ()
) -> str:
    """For README. Arguments as in `as_text`."""
    head, rows = _cells(table, metric)
    lines = _grid(head, rows, left=2)
    if table.single is not None:
        lines += ["", *_grid(*peers_single.cells(table.single), left=1)]
    listed = [f"- {note}" for note in (*notes, *_notes(table))]
    return "\n".join([*lines, "", *listed, "", f"{_method(table)} {_where(table, facts)}"])


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> list[str]:
    """Lines of a Markdown table. `left`: columns at the beginning that hold words."""
    lines = [f"| {' | '.join(head)} |", f"{'|---' * left}{'|--:' * (len(head) - left)}|"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows)]


def as_json(table: PeerTable, facts: Mapping[str, Any], details: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, in pytest-benchmark's shape."""
    absent = [{"key": one.kind.key, "name": one.kind.name, "reason": one.reason, "failed": one.failed}
              for one in table.absent]  # fmt: skip
    benchmarks = [_benchmark(row, table) for row in table.rows]
    more: dict[str, Any] = {"absent": absent, "orders": table.orders, "peer_versions": _versions(table)}
    if table.single is not None:
        benchmarks += peers_single.as_benchmarks(table.single)
        more["single"] = peers_single.as_document(table.single)
    return document(facts, benchmarks, details=dict(details), **more)


def _benchmark(row: PeerRow, table: PeerTable) -> dict[str, Any]:
    info = {
        "name": row.kind.name,
        "order": ORDERS[row.by_length],
        table.unit: table.count,
        "accuracy": row.accuracy,
        "agreement_with_full": row.agreement,
        "batch_size": row.batch_size,
        "texts_per_second_by_batch_size": row.tried,
        "seconds_by_repeat": list(row.seconds),
        "speed_up_over_full": None if row.over_full is None else asdict(row.over_full),
        "speed_up_over_pipeline": None if row.over_pipeline is None else asdict(row.over_pipeline),
        "load_seconds": row.load_seconds,
        "peak_mib": row.peak_mib,
        "note": row.kind.note,
    }
    data = [value for value in row.seconds if value is not None]
    return benchmark("peers", row.name, data, iterations=row.passes, info=info)


def _cells(table: PeerTable, metric: str) -> tuple[list[str], list[list[str]]]:
    columns: dict[str, Callable[[PeerRow], str]] = {
        "contestant": lambda row: row.kind.name,
        "texts": lambda row: "own order" if row.kind.own else ORDERS[row.by_length],
        "batch": lambda row: "" if row.batch_size is None else str(row.batch_size),
        metric: lambda row: f"{row.accuracy:.2%}",
        "as full tier 2": lambda row: "" if row.agreement is None else f"{row.agreement:.2%}",
        f"{table.unit}/s": lambda row: f"{table.count / row.median_seconds:,.0f}",
        "over full tier 2": lambda row: ratio(row.over_full),
        "over pipeline": lambda row: ratio(row.over_pipeline),
        "peak MiB": lambda row: "" if row.peak_mib is None else f"{row.peak_mib:,.0f}",
    }
    return list(columns), [[shown(row) for shown in columns.values()] for row in table.rows]


def _notes(table: PeerTable) -> list[str]:
    shown = list(dict.fromkeys(row.kind for row in table.rows))
    notes = [f"{kind.name}: {kind.note}." for kind in shown if kind.note]
    return [*notes, *(f"{one.kind.name}: {'failed: ' * one.failed}{one.reason}." for one in table.absent)]


def _method(table: PeerTable) -> str:
    return (
        f"{table.count} {table.unit}, tokenisation included, {len(table.orders)} interleaved repeats, a process each, "
        "equal threads, best batch size of each. Ratios are medians of those within a repeat, in brackets their "
        "intervals (95 %, or the coverage named). Over pipeline: the transformers pipeline with the texts as given. "
        "Peak memory: of the process in all, both orders and all batch sizes tried."
        + ("" if table.single is None else f" {peers_single.method(table.single)}")
    )


def _where(table: PeerTable, facts: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in _versions(table).items())
    return machine.in_words(dict(facts)) + (f" Peers: {versions}." if versions else "")


def _versions(table: PeerTable) -> dict[str, str]:
    """Of what the peers in the table are; the machine's facts name those that this engine needs itself."""
    return {name: _version(name) for name in dict.fromkeys(part for row in table.rows for part in row.kind.packages)}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:  # its module is there, from somewhere else
        return "unknown"

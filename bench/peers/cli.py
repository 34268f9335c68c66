"""`cascade-bench peers`: its options, the comparison, its table, its file."""

from __future__ import annotations

import tempfile

import click

from cascade.exceptions import OptionError
from cascade.runtime.host import version_of
from cascade_bench.options import Asked, count_option, labelled_file_options, markdown_option
from cascade_bench.peers.running import Peers, compare
from cascade_bench.systems.baselines import BASELINES
from cascade_bench.systems.local import CASCADE, FULL, TRANSFORMERS
from cascade_bench.systems.process import Job
from cascade_bench.table.measuring import Table, as_text, entries
from cascade_bench.timing import machine
from cascade_bench.timing.report import bar, write_json

CHECK = (FULL, CASCADE, TRANSFORMERS)  # what runs beside an original


@click.command(short_help="The same checkpoint through transformers, optimum, ONNX Runtime, OpenVINO.")
@labelled_file_options
@click.option("--checkpoint", metavar="FOLDER", help="Tier 2 as transformers reads it.")
@click.option("--original", metavar="MODEL", help="What the bundle was built from: this alone beside the bundle.")
@click.option("--only", multiple=True, type=click.Choice(list(BASELINES)), help="Run these only; may be repeated.")
@count_option("--single", 0, "Texts that are answered one by one as well; 0: none.", least=0)
@markdown_option
def peers(
    asked: Asked, *, checkpoint: str | None, original: str | None, only: tuple[str, ...], single: int, markdown: bool
) -> None:
    """What else could run this checkpoint, and how fast: each in a process of its own, all taking turns.

    MODEL is a bundle, FOLDER the checkpoint that its second tier was made from. Each pass labels all texts of the file
    (or tags all sentences), tokenisation included, with equal threads; each system at the batch size that is best for
    it, in the order of the file and sorted by length. What is not installed is listed with the line that installs it.

    With --original in the place of --checkpoint it is a check of what `cascade build` made, on texts of your own, with
    labels or not: how many of them get another answer than transformers' pipeline gives (of a tagger, sentences with
    another tag), and how fast the bundle is beside that pipeline and beside its own full depth.

    With --single N every system has another line: N texts (or sentences), spread evenly over the file, each given after
    the last is answered, with p50, p95 and p99 of the time that one takes. 200 give a p95 worth reading, 1000 a p99.

    \b
    Example:
      cascade-bench peers runs/mine --data dev.jsonl --original my-finetuned-model
      cascade-bench peers models/sentiment --data dev.jsonl --checkpoint runs/tier2 --threads 2
      cascade-bench peers models/sentiment --data dev.jsonl --checkpoint runs/tier2 --only full --only onnxruntime-int8
      cascade-bench peers models/sentiment --data dev.jsonl --checkpoint runs/tier2 --threads 2 --single 200
    """
    source = original or checkpoint
    if source is None or (original and checkpoint):
        given = "both" if source else "none"
        raise OptionError(f"one of --checkpoint and --original must be given, got {given}; give the model you have")
    pipeline, data, before, count = asked.open(tiers=1)
    kinds = [kind for kind in BASELINES.values() if kind.key in (only or (CHECK if original else BASELINES))]
    with tempfile.TemporaryDirectory(prefix="cascade-bench-") as folder, bar() as step:
        job = Job(
            model=asked.model,
            checkpoint=source,
            folder=folder,
            threads=count,
            max_length=pipeline.bundle.manifest.tiers[-1].max_length,
            multi_label=pipeline.multi_label,
            tagging=data.words,
        )
        del pipeline  # its threads and its memory are not part of this
        made = compare(kinds, Peers(job, data.items, single=single, progress=step), data, repeats=asked.repeats)
    ran = [kind for kind in kinds if kind.name in {row.name for row in made.rows}]
    # Of modules from somewhere else nothing is known.
    versions = {name: version_of(name) or "unknown" for kind in ran for name in kind.packages}
    notes = [f"{kind.name}: {kind.note}." for kind in ran if kind.note]
    notes += [f"{name}: {reason}." for name, reason in (made.absent or {}).items()]
    said = ", ".join(f"{name} {version}" for name, version in versions.items())
    host = machine.in_words(before) + (f" Peers: {said}." if said else "")
    click.echo(as_text(made, notes, [_method(made, asked.repeats), host], markdown=markdown))
    details = {**asked.details, "checkpoint": source, "single": single, "peer_versions": versions}
    write_json(asked.json_file, before, entries(made), details=details, notes=[*data.notes, *notes])


def _method(table: Table, repeats: int) -> str:
    return (
        f"{len(table.data)} {table.data.unit}, tokenisation included, {repeats} interleaved repeats, a "
        "process each, equal threads, best batch size of each. Ratios are medians of those within a repeat, in "
        "brackets their intervals (95 %, or the coverage named), over what has the texts as given, or also one by one. "
        f"Unlike pipeline: share of {'sentences' if table.data.words else 'texts'} that transformers' pipeline answers "
        "otherwise. Peak memory: of the process in all."
    )

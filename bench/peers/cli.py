"""`cascade-bench peers`: its options, the comparison, its tables, its file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from cascade.core.rows import BoolArray
from cascade.core.statistics import Interval, shown, speed_up
from cascade.exceptions import OptionError
from cascade.runtime.host import version_of
from cascade_bench.options import Asked, count_option, labelled_file_options, markdown_option
from cascade_bench.peers.running import ORDERS, PAUSE, Peers, SingleTable, chosen, name_of, one_at_a_time, summarise
from cascade_bench.systems.baselines import BASELINES, TRANSFORMERS, Baseline
from cascade_bench.systems.local import CASCADE, FULL, by_tier1_alone
from cascade_bench.systems.process import Job, WorkerProcess
from cascade_bench.table.data import Data
from cascade_bench.table.measuring import Measured
from cascade_bench.timing import machine
from cascade_bench.timing.interleaving import BATCH_SIZES, Progress, quiet
from cascade_bench.timing.report import bar, benchmark, grid, write_json

CHECK = (FULL, CASCADE, TRANSFORMERS)  # what runs beside an original


@click.command(short_help="The same checkpoint through transformers, optimum, ONNX Runtime, OpenVINO.")
@labelled_file_options
@click.option("--checkpoint", metavar="FOLDER", help="Tier 2 as transformers reads it.")
@click.option("--original", metavar="MODEL", help="What the bundle was built from: this alone beside the bundle.")
@click.option("--only", multiple=True, type=click.Choice(list(BASELINES)), help="Run these only; may be repeated.")
@count_option("--single", 0, "Texts that are answered one at a time as well; 0: none.", least=0)
@click.option("--work", metavar="FOLDER", help="Keep converted files here.  [default: a temporary folder]")
@markdown_option
def peers(
    asked: Asked,
    *,
    checkpoint: str | None,
    original: str | None,
    only: tuple[str, ...],
    single: int,
    work: str | None,
    markdown: bool,
) -> None:
    """What else could run this checkpoint, and how fast: each in a process of its own, all taking turns.

    MODEL is a bundle, FOLDER the checkpoint that its second tier was made from. Each pass labels all texts of the file
    (or tags all sentences), tokenisation included, with equal threads; each system at the batch size that is best for
    it, in the order of the file and sorted by length. What is not installed is listed with the line that installs it.

    With --original in the place of --checkpoint it is a check of what `cascade build` made, on texts of your own, with
    labels or not: how many of them get another answer than transformers' pipeline gives (of a tagger, sentences with
    another tag), and how fast the bundle is beside that pipeline and beside its own full depth.

    With --single N a second table follows: p50, p95 and p99 of the time that one text (or sentence) takes when each is
    given after the last is answered. N texts spread evenly over the file are answered by every system, in turns of some
    20 texts, after a pass that does not count. Texts that the cascade's first tier answers alone, and those that it
    defers, have lines of their own. 200 give a p95 worth reading, 1000 a p99.

    \b
    Example:
      cascade-bench peers runs/mine --data dev.jsonl --original my-finetuned-model
      cascade-bench peers models/sentiment --data dev.jsonl --checkpoint runs/tier2 --threads 2
      cascade-bench peers models/sentiment --data dev.jsonl --checkpoint runs/tier2 --only full --only onnxruntime-int8
      cascade-bench peers models/sentiment --data dev.jsonl --checkpoint runs/tier2 --threads 2 --repeats 1 --single 200
    """
    source = original or checkpoint
    if source is None or (original and checkpoint):
        given = "both" if source else "none"
        raise OptionError(f"one of --checkpoint and --original must be given, got {given}; give the model you have")
    pipeline, data, before, count = asked.open(tiers=1)
    kinds = [kind for kind in BASELINES.values() if kind.key in (only or (CHECK if original else BASELINES))]
    with ExitStack() as stack:
        folder = Path(work or stack.enter_context(tempfile.TemporaryDirectory(prefix="cascade-bench-")))
        if not folder.is_dir():
            raise OptionError(f"--work must be a folder that is there, got {folder}; make it first")
        job = Job(
            model=asked.model,
            checkpoint=source,
            folder=str(folder.absolute()),
            threads=count,
            max_length=pipeline.bundle.manifest.tiers[-1].max_length,
            multi_label=pipeline.multi_label,
            tagging=data.words,
        )
        some = [data.items[row] for row in chosen(len(data.items), single)]
        routes = by_tier1_alone(pipeline, some) if single else None
        del pipeline  # its threads and its memory are not part of this
        step = stack.enter_context(bar())
        made = compare(kinds, job, data, repeats=asked.repeats, progress=step, single=single, by_tier1=routes)
    click.echo(as_text(made, before, markdown=markdown))
    details = {**asked.details, "checkpoint": source, "single": single, "peer_versions": _versions(made)}
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
    alone = () if table.single is None else table.single.rows
    made = []
    for row in table.rows:
        info = {name: value for name, value in vars(row).items() if name not in kept}
        made.append(benchmark(name_of(row.kind, row.by_length), row.seconds, info))
    return [*made, *(benchmark(f"{row.key}-one-at-a-time", row.seconds.tolist()) for row in alone)]


def _columns(table: PeerTable) -> dict[str, Callable[[PeerRow], str]]:
    return {
        "system": lambda row: row.kind.name,
        "texts": lambda row: "own order" if row.kind.own else ORDERS[row.by_length],
        "batch": lambda row: "" if row.batch_size is None else str(row.batch_size),
        table.data.metric: lambda row: f"{row.accuracy:.2%}",
        "as full tier 2": lambda row: "" if row.agreement is None else f"{row.agreement:.2%}",
        "unlike pipeline": lambda row: "" if row.unlike is None else f"{row.unlike:.2%}",
        f"{table.data.unit}/s": lambda row: f"{len(table.data) / row.median_seconds:,.0f}",
        "over full tier 2": lambda row: shown(row.over_full),
        "over pipeline": lambda row: shown(row.over_pipeline),
        "peak MiB": lambda row: "" if row.peak_mib is None else f"{row.peak_mib:,.0f}",
    }


def _notes(table: PeerTable) -> list[str]:
    kinds = dict.fromkeys(row.kind for row in table.rows)
    notes = [f"{kind.name}: {kind.note}." for kind in kinds if kind.note]
    return [*notes, *(f"{name}: {reason}." for name, reason in table.absent.items())]


def _method(table: PeerTable) -> str:
    return (
        f"{len(table.data)} {table.data.unit}, tokenisation included, {len(table.orders)} interleaved repeats, a "
        "process each, equal threads, best batch size of each. Ratios are medians of those within a repeat, in "
        "brackets their intervals (95 %, or the coverage named). Over pipeline: the transformers pipeline with the "
        f"texts as given; unlike pipeline: share of {'sentences' if table.data.words else 'texts'} that it answers "
        "otherwise. Peak memory: of the process in all, both orders and all batch sizes tried."
        + ("" if table.single is None else f" {table.single.method()}")
    )


def _versions(table: PeerTable) -> dict[str, str]:
    """Of the libraries in the table; the machine's facts name those that this engine needs itself."""
    names = dict.fromkeys(part for row in table.rows for part in row.kind.packages)
    return {name: version_of(name) or "unknown" for name in names}  # unknown: a module from somewhere else


@dataclass(frozen=True, kw_only=True)
class PeerRow(Measured):
    """A baseline in one order of the texts.

    Attributes:
        by_length: it sorted the texts by their characters first; this engine sorts by itself and is given them as is.
        batch_size: its best; `None` for this engine.
        agreement: share of answers that are the same as those of tier 2 at full depth; `None` if that failed.
        unlike: share of texts or sentences with another answer than transformers' pipeline; `None` if that failed.
        peak_mib: the most memory that its process held in all, in both orders.
    """

    kind: Baseline
    by_length: bool
    batch_size: int | None
    agreement: float | None
    unlike: float | None
    over_full: Interval | None
    peak_mib: float | None


@dataclass(frozen=True)
class PeerTable:
    """What was measured: a line per baseline and order, why others have none, which system ran when in each repeat."""

    rows: tuple[PeerRow, ...]
    absent: Mapping[str, str]
    data: Data
    orders: list[list[str]]
    single: SingleTable | None = None


def compare(
    kinds: Sequence[Baseline],
    job: Job,
    data: Data,
    *,
    repeats: int = 7,
    sizes: Sequence[int] = BATCH_SIZES,
    start: Callable[[], WorkerProcess] | None = None,
    progress: Progress = quiet,
    pause: float = PAUSE,
    single: int = 0,
    by_tier1: BoolArray | None = None,
) -> PeerTable:
    """Run baselines beside each other: `repeats` turns of each over all texts, then `single` texts one at a time.

    The job's folder must be there. `start`: starts a process; `WorkerProcess` if left out; `by_tier1`: see `summarise`.
    If none can be run at all that is an `OptionError`.
    """
    peers = Peers(job, data.items, sizes=sizes, start=start, progress=progress)
    with peers:
        peers.load(kinds)
        turns = peers.take_turns(repeats, pause=pause)
        singles = one_at_a_time(peers, single, pause=pause, progress=progress) if single else None
        peaks = peers.quit()
    absent = {kind.name: peers.absent[kind.key] for kind in kinds if kind.key in peers.absent}
    if not peers.running:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in absent.items())
        raise OptionError(f"one system at least must run, none did ({reasons}); install one, or mend the checkpoint")
    full = peers.running.get(FULL)
    piped = peers.running.get(TRANSFORMERS)
    rows = []
    for key, peer in peers.running.items():
        for by_length, labels in peer.labels.items():
            name = name_of(peer.kind, by_length)
            own = turns.seconds[name]
            row = PeerRow(
                kind=peer.kind,
                by_length=by_length,
                batch_size=None if peer.kind.own else peer.sizes[by_length],
                accuracy=data.accuracy(labels),
                agreement=None if full is None else data.agreement(labels, full.labels[False]),
                unlike=None if piped is None else data.unlike(labels, piped.labels[False]),
                seconds=tuple(own),
                over_full=None if full is None else speed_up(turns.seconds[FULL], own),
                over_pipeline=speed_up(turns.seconds[TRANSFORMERS], own) if piped is not None else None,
                peak_mib=peaks[key],
            )
            rows.append(row)
    left = [peer.kind for peer in peers.running.values()]
    latencies = None if singles is None else summarise(singles, left, by_tier1=by_tier1, tagging=job.tagging)
    return PeerTable(tuple(rows), absent, data, turns.orders, latencies)

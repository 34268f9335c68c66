"""`cascade-bench profile`: where the time of the graphs goes, by ONNX Runtime's own profiler.

A figure holds the profiler's own cost, so shares say more than sums.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import onnxruntime

from cascade.engine.multi_exit import MultiExit
from cascade.pipelines.loading import load
from cascade.pipelines.tagger import Tagger
from cascade.runtime.backend import Array, FunctionBackend, OnnxBackend, session_options
from cascade.runtime.threads import check_threads
from cascade_bench.options import count_option, model_argument, threads_option
from cascade_bench.systems.local import Model, alone
from cascade_bench.table.data import read_items
from cascade_bench.timing import machine
from cascade_bench.timing.interleaving import Progress, quiet
from cascade_bench.timing.report import bar, grid

MOST_OPERATORS = 12


@click.command(short_help="Milliseconds per tier and stage, and by operator.")
@model_argument
@click.option("--data", "file", required=True, metavar="FILE", help="Texts, of a tagger lists of words.")
@count_option("--repeats", 5, "Passes over them.")
@threads_option
def profile(model: str, file: str, repeats: int, threads: int | None) -> None:
    """Where the time goes: what each tier and stage takes, and each kind of operator in it.

    MODEL is a folder or a Hub id, of a classifier or a tagger. Every tier by itself answers the texts of FILE at full
    depth, in batches as always, each graph on all threads and under ONNX Runtime's profiler.

    \b
    Example:
      cascade-bench profile models/sentiment --data dev.jsonl
      cascade-bench profile models/pos --data dev.jsonl --threads 2
    """
    count = check_threads(threads)
    pipeline = load(model, threads=1)  # batches come one by one, each for all threads
    items = read_items(file, words=isinstance(pipeline, Tagger))
    with bar(repeats * len(pipeline.tiers)) as step:
        found = measure(pipeline, items, repeats=repeats, threads=count, progress=step)
    click.echo(as_text(found))
    click.echo(f"\n{len(items)} items, means of {repeats} passes. {machine.in_words(machine.facts(threads=count))}")


def measure(
    pipeline: Model, items: Sequence[Any], *, repeats: int, threads: int, progress: Progress = quiet
) -> dict[tuple[str, str], dict[str, float]]:
    """Seconds of a pass over the items by tier, graph and kind of operator. `pipeline`: loaded for one thread."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="cascade-bench-") as folder:
        for number, tier in enumerate(pipeline.tiers):
            own: Any = tier  # all graphs of a bundle are `OnnxBackend`s
            graphs = [own.embed, *own.stages] if isinstance(tier, MultiExit) else [own.backend]
            names = ["embed", *(f"to layer {layer}" for layer in tier.layers)] if isinstance(tier, MultiExit) else [""]
            watched = [_watched(graph, threads, f"{folder}/{number}-{n}") for n, graph in enumerate(graphs)]
            first, *others = (backend for backend, _ in watched)
            parts = {"embed": first, "stages": others} if isinstance(tier, MultiExit) else {"backend": first}
            tiers = (*pipeline.tiers[:number], replace(own, **parts), *pipeline.tiers[number + 1 :])
            run = alone(replace(pipeline, tiers=tiers), number + 1)
            for _ in range(repeats):
                progress(f"tier {number + 1}")
                run.predict(items)
            for name, (_, session) in zip(names, watched, strict=True):
                events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
                found[f"tier {number + 1}", name] = {kind: own / repeats for kind, own in read(events).items()}
    return found


def _watched(graph: OnnxBackend, threads: int, prefix: str) -> tuple[FunctionBackend, Any]:
    """A graph under the profiler, and its session."""
    options = session_options(threads)
    options.enable_profiling, options.profile_file_prefix = True, prefix
    session = onnxruntime.InferenceSession(str(graph.path), options, providers=["CPUExecutionProvider"])

    def run(feeds: dict[str, Array]) -> Mapping[str, Array]:
        return dict(zip(graph.outputs, session.run(list(graph.outputs), feeds), strict=True))

    return FunctionBackend(run, graph.inputs, graph.outputs), session


def read(events: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds by kind of operator, as the profiler's events say."""
    seconds = Counter[str]()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            seconds[event["args"]["op_name"]] += event["dur"] / 1e6
    return dict(seconds)


def as_text(found: Mapping[tuple[str, str], Mapping[str, float]]) -> str:
    """For terminals: a line per graph, and a line per kind of operator."""
    total = sum(sum(own.values()) for own in found.values()) or 1.0
    rows = [
        [*names, f"{1e3 * sum(own.values()):.2f}", f"{sum(own.values()) / total:.1%}"] for names, own in found.items()
    ]
    tiers: dict[str, Counter[str]] = {}
    for (tier, _), own in found.items():
        tiers.setdefault(tier, Counter()).update(own)
    kinds = sum(tiers.values(), Counter[str]())
    shares = [
        [kind, *(f"{column[kind] / (sum(column.values()) or 1.0):.1%}" for column in tiers.values())]
        for kind in sorted(kinds, key=lambda kind: -kinds[kind])[:MOST_OPERATORS]
    ]
    return f"{grid(['tier', 'graph', 'ms', 'share'], rows, left=2)}\n\n{grid(['operator', *tiers], shares)}"

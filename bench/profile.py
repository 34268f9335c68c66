"""`cascade-bench profile`: milliseconds of each tier and stage by batch, all in turns, and by operator.

Graphs run as they do alone, on all threads.
"""

from __future__ import annotations

import itertools
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
import onnxruntime

from cascade.core.files import check_output
from cascade.core.rows import IntArray, Rows, offsets_of
from cascade.engine.packing import ACTIVE_FEEDS, FEEDS, Actives, Packing, padded
from cascade.exceptions import OptionError
from cascade.pipelines.loading import load
from cascade.runtime.backend import Array, OnnxBackend, session_options
from cascade.runtime.threads import check_threads
from cascade_bench.options import count_option, json_option, model_argument, threads_option
from cascade_bench.systems.local import Model, check_tiers
from cascade_bench.timing import machine
from cascade_bench.timing.interleaving import Clock, Interleaved, Progress, interleave, quiet
from cascade_bench.timing.report import bar, benchmark, grid, write_json

ROWS, LENGTHS = (1, 4, 16, 64), (8, 32, 128)
MOST_TOKENS = 4096  # points with more are left out: no policy makes such batches
MOST_OPERATORS = 12
RUNS = 5


@click.command(short_help="Milliseconds per tier and stage, and by operator.")
@model_argument
@click.option("--rows", multiple=True, type=click.IntRange(min=1), default=ROWS, show_default=True, metavar="N",
              help="Rows of a batch; give it again for each number.")  # fmt: skip
@click.option("--lengths", multiple=True, type=click.IntRange(min=1), default=LENGTHS, show_default=True, metavar="N",
              help="Tokens of its longest row; as --rows.")  # fmt: skip
@count_option("--repeats", 5, "Turns of each.")
@threads_option
@json_option
def profile(
    model: str,
    rows: tuple[int, ...],
    lengths: tuple[int, ...],
    repeats: int,
    threads: int | None,
    json_file: Path | None,
) -> None:
    """Where the time goes: what each tier and stage costs by tokens and rows, and by operator.

    MODEL is a folder or a Hub id, of a classifier or a tagger. Every graph runs by itself over a grid of batches, all
    in turns. About two minutes with the default grid.

    \b
    Example:
      cascade-bench profile models/sentiment
      cascade-bench profile models/sentiment --rows 1 --rows 32 --lengths 64 --threads 2 --json profile.json
    """
    check_output("--json", json_file)
    count = check_threads(threads)
    pipeline = load(model, threads=count)
    check_tiers(pipeline)
    manifest = pipeline.bundle.manifest
    sizes = points(rows, lengths, max_length=min(manifest.tier1.max_length, manifest.tier2.max_length))
    before = machine.facts(threads=count)
    with bar() as step:
        made = measure(parts(pipeline), sizes, repeats=repeats, progress=step)
    click.echo(as_text(made, before))
    entries = [benchmark(name, seconds) for name, seconds in made.turns.seconds.items()]
    write_json(json_file, before, entries, details={"model": model, "repeats": repeats})


def as_text(made: Profile, facts: Mapping[str, Any]) -> str:
    """For terminals."""
    rows = []
    for point in made.points:
        middle = (median(made.seconds[key, point]) for key in made.keys)
        rows.append([point.name, str(point.tokens), *(f"{1e3 * seconds:.2f}" for seconds in middle)])
    blocks = [
        "Milliseconds of one batch (medians):",
        grid(["rows x longest", "tokens", *made.keys.values()], rows),
        f"Share of the time by operator, {made.reference.name} tokens:",
        _operators(made),
        f"{len(made.turns.orders)} interleaved repeats on all threads.",
        machine.in_words(facts),
    ]
    return "\n\n".join(blocks)


def _operators(made: Profile) -> str:
    """A column per part, the stages together."""
    columns: dict[str, dict[str, float]] = {}
    for key, seen in made.operators.items():
        column = columns.setdefault("all stages" if key.startswith("stage-") else made.keys[key], defaultdict(float))
        for operator, seconds in seen.items():
            column[operator] += seconds
    names = {operator for column in columns.values() for operator in column}
    order = sorted(names, key=lambda name: (-sum(column.get(name, 0.0) for column in columns.values()), name))
    rows = [
        [name, *(f"{column.get(name, 0.0) / (sum(column.values()) or 1.0):.1%}" for column in columns.values())]
        for name in order[:MOST_OPERATORS]
    ]
    return grid(["operator", *columns], rows)


@dataclass(frozen=True)
class Point:
    """A batch: tokens of each row. `mixed`: from a quarter of the longest up, otherwise all rows alike."""

    lengths: tuple[int, ...]
    mixed: bool

    @property
    def tokens(self) -> int:
        """Of all rows together."""
        return sum(self.lengths)

    @property
    def name(self) -> str:
        """For readers and programs."""
        return f"{len(self.lengths)}x{max(self.lengths)}{' mixed' if self.mixed else ''}"


@dataclass(frozen=True, eq=False)
class Part:
    """A graph of a bundle. `key`, `name`: for programs and readers. `feeds`: its inputs for rows of these lengths."""

    key: str
    name: str
    backend: OnnxBackend
    feeds: Callable[[IntArray], Mapping[str, Array]]


def points(rows: Sequence[int], lengths: Sequence[int], *, max_length: int) -> list[Point]:
    """A grid, with mixed lengths too wherever there are several rows. Lengths above `max_length` are cut to it."""
    found: dict[Point, None] = {}
    for count in rows:
        for longest in sorted({min(length, max_length) for length in lengths}):
            some = np.linspace(max(2, longest // 4), longest, count).round().astype(int)
            for point in (Point((longest,) * count, mixed=False), Point(tuple(some.tolist()), mixed=True)):
                if point.tokens <= MOST_TOKENS and (count > 1 or not point.mixed):
                    found[point] = None
    return list(found)


def parts(model: Model) -> list[Part]:
    """The graphs of a bundle, in the order in which they run."""
    one: Any = model.tier1  # all graphs of a bundle are `OnnxBackend`s
    two: Any = model.tier2
    ids = model.tokenizer.encode(["a gripping film, and not one minute too long"]).units.rows.ids
    second = model.bundle.manifest.tier2

    def batch(lengths: IntArray) -> Rows:
        tokens = int(lengths.sum())
        return Rows(np.resize(ids, tokens), np.zeros(tokens, dtype=np.int64), offsets_of(lengths))

    def whole(lengths: IntArray) -> Mapping[str, Array]:
        names = ("input_ids", "attention_mask", "token_type_ids")
        return dict(zip(names, padded(batch(lengths), max_length=2**31), strict=True))

    def embed(lengths: IntArray) -> Mapping[str, Array]:
        made, positions = batch(lengths), Packing.of(lengths).position_ids(two.position_offset)
        return {"input_ids": made.ids, "token_type_ids": made.types, "position_ids": positions}

    def stage(lengths: IntArray) -> Mapping[str, Array]:
        packing, tokens = Packing.of(lengths, heads=second.heads), int(lengths.sum())
        hidden = np.random.default_rng(0).normal(size=(tokens, second.width)).astype(np.float32)
        every = np.arange(tokens, dtype=np.int64)  # of a tagger: no word has exited, each token is a word
        actives = Actives(packing, packing, every)
        tagging = {name: actives.array(name) for name in ACTIVE_FEEDS}
        return {"hidden": hidden, **packing.feeds(FEEDS), **tagging, "words": every}

    starts = (0, *two.layers[:-1])
    return [
        Part("tier1", "tier 1", one.backend, whole),
        Part("embed", "embed", two.embed, embed),
        *(
            Part(f"stage-{last}", f"layer {last}" if last == first + 1 else f"{first + 1}-{last}", graph, stage)
            for first, last, graph in zip(starts, two.layers, two.stages, strict=True)
        ),
    ]


def look(backend: OnnxBackend, feeds: Mapping[str, Array], *, runs: int = RUNS) -> dict[str, float]:
    """Run a graph under the profiler, after a run that does not count; see `read`. Its own session stays as it is."""
    with tempfile.TemporaryDirectory(prefix="cascade-bench-") as folder:
        options = session_options(backend.threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "run")
        session = onnxruntime.InferenceSession(str(backend.path), options, providers=["CPUExecutionProvider"])
        known = {name: feeds[name] for name in backend.inputs}
        for _ in range(runs + 1):
            session.run(None, known)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return read(events)


def read(events: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds by kind of operator, most first, as the profiler's events say. The first run of each node does not count.

    They are medians over runs and hold the profiler's own cost, so their shares say more than their sum.
    """
    taken: dict[str, list[float]] = defaultdict(list)
    kinds: dict[str, str] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            taken[event["name"]].append(event["dur"] / 1e6)
            kinds[event["name"]] = event["args"]["op_name"]
    seconds: dict[str, float] = defaultdict(float)
    for name, durations in taken.items():
        seconds[kinds[name]] += median(durations[1:] or durations)
    return dict(sorted(seconds.items(), key=lambda one: -one[1]))


@dataclass(frozen=True)
class Profile:
    """What was measured: seconds of one run by part and point, and by part and operator.

    `keys`: names of the parts. `reference`: the point with most tokens, where operators were looked at.
    """

    points: tuple[Point, ...]
    keys: Mapping[str, str]
    seconds: Mapping[tuple[str, Point], list[float]]
    operators: Mapping[str, Mapping[str, float]]
    reference: Point
    turns: Interleaved


def measure(
    found: Sequence[Part],
    grid: Sequence[Point],
    *,
    repeats: int = 5,
    progress: Progress = quiet,
    clock: Clock = time.perf_counter,
) -> Profile:
    """Time every part at every point, `repeats` turns of each; without points an `OptionError`."""
    reference = max(grid, key=lambda point: (point.tokens, -max(point.lengths)), default=None)
    if reference is None:
        raise OptionError("the grid must have points, got none; give rows and lengths")
    runs = {
        f"{part.key} {point.name}": partial(part.backend.run, part.feeds(np.array(point.lengths)))
        for part, point in itertools.product(found, grid)
    }
    turns = interleave(runs, repeats=repeats, progress=progress, clock=clock)
    return Profile(
        points=tuple(grid),
        keys={part.key: part.name for part in found},
        seconds={(part.key, point): turns.there(f"{part.key} {point.name}") for part in found for point in grid},
        operators={part.key: look(part.backend, part.feeds(np.array(reference.lengths))) for part in found},
        reference=reference,
        turns=turns,
    )

"""What each tier and stage costs on this host: every part at every point of the grid, beside two large matrix products.

All take turns, so a share of the peak is a ratio of seconds of one run. Graphs run as they do alone, on all threads.
"""

from __future__ import annotations

import itertools
import json
import math
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime

from cascade.core.statistics import Interval, median_interval
from cascade.exceptions import OptionError
from cascade.runtime.backend import Array, OnnxBackend
from cascade_bench.profile.parts import Part, Point
from cascade_bench.profile.peak import LARGE, runner, session_options
from cascade_bench.timing.interleaving import Clock, Interleaved, Progress, interleave, quiet

INT8 = {"MatMulIntegerToFloat", "MatMulInteger", "DynamicQuantizeMatMul", "QGemm", "QLinearMatMul"}
FP32 = {"MatMul", "Gemm", "FusedMatMul", "FusedGemm"}
RUNS = 5


@dataclass(frozen=True)
class Operators:
    """What one run of a graph consists of: seconds by kind of operator, operations of matrix products by precision.

    Seconds are medians over runs and hold the profiler's own cost, so their shares say more than their sum.
    """

    seconds: Mapping[str, float]
    operations: Mapping[str, int]


def look(backend: OnnxBackend, feeds: Mapping[str, Array], *, runs: int = RUNS) -> Operators:
    """Run a graph under the profiler, after a run that does not count. The backend's own session stays as it is."""
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


def read(events: Sequence[Mapping[str, Any]]) -> Operators:
    """What the profiler's events say. The first run of each node does not count."""
    taken: dict[str, list[float]] = defaultdict(list)
    nodes: dict[str, Mapping[str, Any]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            taken[event["name"]].append(event["dur"] / 1e6)
            nodes[event["name"]] = event["args"]
    seconds: Counter[str] = Counter()
    operations: Counter[str] = Counter()
    for name, durations in taken.items():
        kind = nodes[name]["op_name"]
        seconds[kind] += median(durations[1:] or durations)  # type: ignore[assignment]  # Counter adds floats too
        if kind in INT8 | FP32:
            operations["int8" if kind in INT8 else "fp32"] += _operations(nodes[name])
    return Operators(dict(seconds.most_common()), {kind: count for kind, count in operations.items() if count})


def _operations(facts: Mapping[str, Any]) -> int:
    """Of one matrix product: two for each element that is made and each that is summed over."""
    first = next(iter(facts["input_type_shape"][0].values()))
    made = next(iter(facts["output_type_shape"][0].values()))
    return 2 * math.prod(made) * int(first[-1]) if len(first) > 1 and len(made) > 1 else 0


@dataclass(frozen=True)
class Profile:
    """What was measured: seconds of one run by part and point, the rest by part or by precision.

    `keys`: names of the parts. `reference`: the point with most tokens, where operators and shares were taken. `rates`:
    operations per second of the large products. `shares`: the share of a part's time that its matrix products would
    take at these rates; parts without products have none.
    """

    points: tuple[Point, ...]
    keys: Mapping[str, str]
    seconds: Mapping[tuple[str, Point], list[float]]
    operators: Mapping[str, Operators]
    reference: Point
    rates: Mapping[str, Interval]
    shares: Mapping[str, Interval]
    turns: Interleaved


def measure(
    found: Sequence[Part],
    grid: Sequence[Point],
    *,
    threads: int,
    repeats: int = 5,
    progress: Progress = quiet,
    clock: Clock = time.perf_counter,
) -> Profile:
    """Time every part at every point, `repeats` turns of each; without points an `OptionError`."""
    reference = max(grid, key=lambda point: (point.tokens, -max(point.lengths)), default=None)
    if reference is None:
        raise OptionError("the grid must have points, got none; give rows and lengths")
    operators = {part.key: look(part.backend, part.feeds(np.array(reference.lengths))) for part in found}
    runs = {product.name: runner(product, threads=threads) for product in LARGE.values()}
    for part, point in itertools.product(found, grid):
        runs[f"{part.key} {point.name}"] = partial(part.backend.run, part.feeds(np.array(point.lengths)))
    turns = interleave(runs, repeats=repeats, progress=progress, clock=clock)
    seconds = {(part.key, point): turns.there(f"{part.key} {point.name}") for part in found for point in grid}
    shares = {key: _share(seen, turns.seconds[f"{key} {reference.name}"], turns) for key, seen in operators.items()}
    return Profile(
        points=tuple(grid),
        keys={part.key: part.name for part in found},
        seconds=seconds,
        operators=operators,
        reference=reference,
        rates={
            kind: median_interval([product.operations / taken for taken in turns.there(product.name)])
            for kind, product in LARGE.items()
        },
        shares={key: median_interval(share) for key, share in shares.items() if share},
        turns=turns,
    )


def _share(seen: Operators, taken: Sequence[float | None], turns: Interleaved) -> list[float]:
    """By repeat in which the part and the products that it needs had a turn; empty without products."""
    found = []
    for repeat, own in enumerate(taken):
        large = {kind: turns.seconds[LARGE[kind].name][repeat] for kind in seen.operations}
        needed = [
            count * seconds / LARGE[kind].operations
            for kind, count in seen.operations.items()
            if (seconds := large[kind]) is not None
        ]
        if own is not None and needed and len(needed) == len(large):
            found.append(sum(needed) / own)
    return found

"""What each tier and stage costs on this host: every part at every point of the grid, all in turns.

Graphs run as they do alone, on all threads.
"""

from __future__ import annotations

import itertools
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime

from cascade.exceptions import OptionError
from cascade.runtime.backend import Array, OnnxBackend, session_options
from cascade_bench.profile.parts import Part, Point
from cascade_bench.timing.interleaving import Clock, Interleaved, Progress, interleave, quiet

RUNS = 5


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

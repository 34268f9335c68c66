"""What each tier and stage costs on this host: every part at every point of the grid, beside two large matrix products.

All take turns, so a share of the peak is a ratio of seconds of one run. Graphs run as they do alone, on all threads.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from cascade.core.statistics import Interval, median_interval
from cascade.exceptions import OptionError
from cascade_bench.profile.operators import Operators, look
from cascade_bench.profile.parts import Part, Point
from cascade_bench.profile.peak import LARGE, runner
from cascade_bench.timing.interleaving import Clock, Interleaved, Progress, interleave, quiet


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
    """Time every part at every point, `repeats` turns of each.

    Raises:
        OptionError: no points.
    """
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

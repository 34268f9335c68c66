"""Interleaved timing: each repeat runs every system once, in an order of its own.

Separate runs cannot be compared on a machine whose speed drifts by more than the difference; turns can. What runs later
in a repeat meets a warmer machine, so every second order is the one before it reversed.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from cascade.core.checks import check_whole

SHORTEST = 0.2  # seconds of a turn, in which a fast system runs several times
MOST_PASSES = 64
BATCH_SIZES = (1, 8, 16, 32, 64, 128)
WORSE = 0.8  # of the best rate so far: where a size is as slow as that, larger ones are not tried
PAUSE = 0.02  # seconds between turns, in which threads of the one before stop spinning

Clock = Callable[[], float]
Progress = Callable[[str], object]


def quiet(_name: str) -> None:
    """Progress that nobody watches."""


def interleave(
    systems: Mapping[str, Callable[[], object]],
    *,
    repeats: int,
    warm_up: Mapping[str, float],
    progress: Progress = quiet,
    clock: Clock = time.perf_counter,
    pause: float = PAUSE,
) -> dict[str, list[float]]:
    """Run systems in turns, `pause` seconds between them, `repeats` times (an `OptionError` below 1).

    By name, seconds of one pass by repeat.

    `warm_up`: seconds of a pass by name, from a run before this one; fast systems run several times in a turn, whose
    seconds are divided by that.
    """
    check_whole("repeats", repeats, "7 give an interval that covers 98 %")
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    with _quiet_collector():
        for order in balanced_orders(list(systems), repeats):
            gc.collect()
            for name in order:
                progress(name)
                time.sleep(pause)
                passes = min(MOST_PASSES, math.ceil(SHORTEST / max(warm_up[name], SHORTEST / MOST_PASSES)))
                begin = clock()
                for _ in range(passes):
                    systems[name]()
                seconds[name].append((clock() - begin) / passes)
    return seconds


def best_size(sizes: Sequence[int], count: int, seconds: Callable[[int], float]) -> int:
    """The fastest batch size; each is tried twice, the better run counting.

    `seconds`: runs `count` items in batches of a size.
    """
    rates: dict[int, float] = {}
    for size in sizes:
        rates[size] = count / max(min(seconds(size), seconds(size)), 1e-9)
        if rates[size] < WORSE * max(rates.values()):
            break
    return max(rates, key=rates.__getitem__)


def balanced_orders(names: Sequence[str], count: int) -> list[list[str]]:
    """So many orders of the names, random ones, every second reversed: each of a pair comes first equally often."""
    rng = np.random.default_rng(0)
    orders: list[list[str]] = []
    for number in range(count):
        orders.append(orders[-1][::-1] if number % 2 else [names[place] for place in rng.permutation(len(names))])
    return orders


@contextmanager
def _quiet_collector() -> Iterator[None]:
    """No garbage is collected inside a turn: with torch loaded, one collection takes longer than a fast system.

    What is there already is set aside, so that collecting between repeats is cheap.
    """
    enabled = gc.isenabled()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()

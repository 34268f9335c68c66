"""Contenders that take turns: each repeat runs every contender once, in an order of its own.

Separate runs cannot be compared on a machine whose speed drifts by more than the difference; turns can. It leaves to
others: what runs (`contenders`, `peers`) and what the seconds say (`statistics`).
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from cascade.core.checks import check_whole

__all__ = ["Plan", "Turns", "interleave"]

SLOW = 60.0  # seconds that one contender may take in all, before it runs in fewer repeats
FEWEST = 3
SHORTEST = 0.2  # seconds of a turn, in which a fast contender runs several times
MOST_PASSES = 64
PAUSE = 0.02  # seconds between turns, in which threads of the one before stop spinning

Clock = Callable[[], float]


@dataclass(frozen=True)
class Plan:
    """When a contender runs.

    Attributes:
        repeats: the numbers of the repeats in which it has a turn, from 0.
        passes: how often it runs in a turn; the turn's seconds are divided by it.
    """

    repeats: tuple[int, ...]
    passes: int

    @classmethod
    def of(cls, seconds: float, repeats: int) -> Plan:
        """For a contender that takes this long.

        A slow one runs in fewer repeats, at least 3, spread evenly; a fast one several times in a turn.
        """
        turns = min(repeats, max(FEWEST, math.floor(SLOW / max(seconds, 1e-9))))
        spread = np.linspace(0, repeats - 1, turns).round().astype(int)
        return cls(tuple(spread.tolist()), min(MOST_PASSES, math.ceil(SHORTEST / max(seconds, SHORTEST / MOST_PASSES))))


@dataclass(frozen=True)
class Turns:
    """What came out.

    Attributes:
        seconds: per contender and repeat, of one pass; `None` where it did not run.
        plans: per contender.
        orders: per repeat, the names in the order in which they ran.
    """

    seconds: Mapping[str, list[float | None]]
    plans: Mapping[str, Plan]
    orders: list[list[str]]


def interleave(
    contenders: Mapping[str, Callable[[], object]],
    *,
    repeats: int,
    warm_up: Mapping[str, float],
    progress: Callable[[str], object] | None = None,
    clock: Clock = time.perf_counter,
    pause: float = PAUSE,
    seed: int = 0,
) -> Turns:
    """Run contenders in turns.

    Args:
        contenders: what runs, by name.
        repeats: how often each has a turn, but for slow ones.
        warm_up: seconds of a pass by name, from a run before this one; they decide who is slow.
        progress: called before each turn with the name.
        clock: gives seconds.
        pause: seconds between turns.
        seed: of the orders.

    Raises:
        OptionError: repeats below 1.
    """
    check_whole("repeats", repeats, "7 give an interval that covers 98 %")
    plans = {name: Plan.of(warm_up[name], repeats) for name in contenders}
    seconds: dict[str, list[float | None]] = {name: [None] * repeats for name in contenders}
    names = list(contenders)
    orders: list[list[str]] = []
    rng = np.random.default_rng(seed)
    with _quiet_collector():
        for repeat in range(repeats):
            order = [names[number] for number in rng.permutation(len(names)) if repeat in plans[names[number]].repeats]
            orders.append(order)
            gc.collect()
            for name in order:
                if progress is not None:
                    progress(name)
                time.sleep(pause)
                run, passes = contenders[name], plans[name].passes
                begin = clock()
                for _ in range(passes):
                    run()
                seconds[name][repeat] = (clock() - begin) / passes
    return Turns(seconds, plans, orders)


@contextmanager
def _quiet_collector() -> Iterator[None]:
    """No garbage is collected inside a turn: with torch loaded, one collection takes longer than a fast contender.

    What is there already is set aside, so that collecting between repeats is cheap.
    """
    enabled, frozen = gc.isenabled(), gc.get_freeze_count()
    gc.disable()
    if not frozen:
        gc.freeze()
    try:
        yield
    finally:
        if not frozen:
            gc.unfreeze()
        if enabled:
            gc.enable()

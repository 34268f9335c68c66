"""Medians of paired ratios, with intervals that assume nothing about the shape of the noise.

A ratio is taken within a repeat, in which both systems ran within seconds of each other, so a machine that slows down
for a minute slows both.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cascade.exceptions import OptionError

Samples = Sequence["float | None"]
"""Seconds by repeat; `None` where there was no turn."""
_COVERAGE = 0.95


@dataclass(frozen=True)
class Interval:
    """A median, the ends of an interval, and with which probability one made like this holds the true median."""

    median: float
    low: float
    high: float
    coverage: float
    samples: int

    def text(self, form: str = ".2f") -> str:
        """In words; a coverage below 95 % is named. `form`: of each number."""
        covered = "" if self.coverage >= _COVERAGE else f" ({self.coverage:.0%})"
        return f"{self.median:{form}} [{self.low:{form}}, {self.high:{form}}]{covered}"


def shown(ratio: Interval | None) -> str:
    """A ratio in words: empty without one, plainly 1 where it is the base's own."""
    if ratio is None:
        return ""
    return "1" if ratio.low == ratio.high == 1 else ratio.text()


def median_interval(values: Sequence[float]) -> Interval:
    """The median with the order-statistic interval: exact for independent samples of any continuous distribution.

    The ends are the k-th smallest and the k-th largest sample, with the largest k that covers at least 95 %
    (David and Nagaraja, Order Statistics, section 7.1). Fewer than 6 samples cannot cover 95 %; then the ends are the
    extremes, and `coverage` says what they are worth.

    Example: of 7 samples the extremes cover 98.4 %, of 9 the second smallest and largest 96.1 %. No samples are an
    `OptionError`.
    """
    n = len(values)
    if not n:
        raise OptionError("a median needs at least one sample, got none; run more repeats")
    ordered = sorted(values)
    k = 1
    while k < (n + 1) // 2 and _coverage(n, k + 1) >= _COVERAGE:
        k += 1
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    return Interval(middle, ordered[k - 1], ordered[n - k], max(_coverage(n, k), 0.0), n)


def speed_up(base: Samples, other: Samples) -> Interval:
    """How many times as fast as the base another system is: the median over repeats in which both ran.

    From their seconds. Above 1 where the other system is faster; an `OptionError` if no repeat had both.
    """
    both = zip(base, other, strict=True)
    return median_interval([slow / fast for slow, fast in both if slow is not None and fast is not None])


def in_turns(
    ways: Mapping[str, Callable[[], object]],
    *,
    turns: int,
    least: int = 1,
    seconds: float = math.inf,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each way by turn, every other turn backwards, so that none always comes first.

    At least so many turns; after these only as many as end, with one before them, within about so many `seconds`.
    """
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns):
        for name in list(ways)[:: -1 if turn % 2 else 1]:
            begin = clock()
            ways[name]()
            taken[name].append(max(clock() - begin, 1e-9))
        if turn + 1 >= least and sum(map(sum, taken.values())) * (turn + 3) / (turn + 1) > seconds:
            break
    return taken


def percentile(values: npt.NDArray[np.float64], share: float) -> float:
    """A value that this share (in percent) of the samples did not exceed: a measured one, not an interpolated one."""
    place = math.ceil(round(share / 100 * len(values), 6))  # rounded, as 99.9 % of 1000 are 999.0000000000001
    return float(np.sort(values)[max(place, 1) - 1])


def _coverage(n: int, k: int) -> float:
    """Probability that the true median lies between the k-th smallest and the k-th largest of n samples."""
    outside: float = sum(math.comb(n, count) for count in range(k)) / 2.0**n
    return 1 - 2 * outside

"""Three ways to be asked, named after MLPerf's scenarios; nothing here is an MLPerf result.

    single stream   one text at a time, the next when the last is answered: latency
    offline         all texts in one call: throughput
    server          texts arrive at random moments (a Poisson process), and whatever waits is answered in one call: the
                    highest rate of arrivals at which latency stays within a bound

A text's latency in the server scenario begins when it arrives, not when its call begins, so waiting counts. Contestants
take turns.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.exceptions import OptionError
from cascade_bench.contenders import Contender
from cascade_bench.interleaving import Turns, interleave

__all__ = ["PERCENTILES", "Limits", "Probe", "Server", "offline", "percentile", "serve", "server", "single_stream"]

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
TICK = 1e-6  # seconds: rounding must not make a sleep so short that the clock stands still
LOWEST = 1 / 64  # of the offline rate: where the search for a server's rate gives up

Floats = npt.NDArray[np.float64]
Clock = Callable[[], float]
Progress = Callable[[str], object]


@dataclass(frozen=True)
class Limits:
    """How long a scenario may take.

    Attributes:
        queries: texts at most, per contestant and (in the server scenario) per rate that is tried.
        seconds: at most, of the same.
    """

    queries: int = 2000
    seconds: float = 20.0

    def __post_init__(self) -> None:
        if self.queries < 1 or not 0 < self.seconds < float("inf"):
            raise OptionError(
                f"queries must be at least 1 and seconds above 0, were: {self.queries} and {self.seconds}; "
                "leave them out for 2000 and 20"
            )


@dataclass(frozen=True, eq=False)
class Probe:
    """A server at one rate of arrivals.

    Attributes:
        rate: arrivals per second that were drawn.
        latencies: seconds of each text, waiting included.
        throughput: texts per second that were answered.
        batch: texts in a call, on average.
        within: whether the latency's percentile was within the bound, and all texts were answered in time.
    """

    rate: float
    latencies: Floats
    throughput: float
    batch: float
    within: bool


@dataclass(frozen=True)
class Server:
    """The search for the highest rate.

    Attributes:
        probes: in the order in which they were tried.
        best: the one within the bound with the highest rate; `None`: not even the lowest was.
    """

    probes: tuple[Probe, ...]
    best: Probe | None


def percentile(latencies: Floats, share: float) -> float:
    """A latency that this share (in percent) of the texts did not exceed: one that was measured, not interpolated."""
    place = math.ceil(round(share / 100 * len(latencies), 6))  # rounded, as 99.9 % of 1000 are 999.0000000000001
    return float(np.sort(latencies)[max(place, 1) - 1])


def single_stream(
    contenders: Sequence[Contender],
    texts: Sequence[Any],
    *,
    limits: Limits,
    progress: Progress | None = None,
    clock: Clock = time.perf_counter,
) -> dict[str, Floats]:
    """Seconds of each text by contestant. All answer the same text before the next one comes, in a changing order."""
    rng = np.random.default_rng(0)
    order = [texts[row] for row in rng.permutation(len(texts))]
    for contender in contenders:
        contender.run(order[: min(len(order), 8)])
        contender.run(order[:1])
    found: dict[str, list[float]] = {contender.key: [] for contender in contenders}
    end = clock() + limits.seconds * len(contenders)
    for number in range(limits.queries):
        if clock() >= end and number:
            break
        if progress is not None and not number % 100:
            progress("single stream")
        text = [order[number % len(order)]]
        for turn in rng.permutation(len(contenders)):
            begin = clock()
            contenders[turn].run(text)
            found[contenders[turn].key].append(clock() - begin)
    return {key: np.array(seconds) for key, seconds in found.items()}


def offline(
    contenders: Sequence[Contender],
    texts: Sequence[Any],
    *,
    repeats: int,
    progress: Progress | None = None,
    clock: Clock = time.perf_counter,
) -> Turns:
    """All texts in one call, in turns."""
    warm_up = {}
    for contender in contenders:
        begin = clock()
        contender.run(texts)
        warm_up[contender.key] = clock() - begin
    runs = {contender.key: _bound(contender, texts) for contender in contenders}
    return interleave(
        runs,
        repeats=repeats,
        warm_up=warm_up,
        progress=None if progress is None else lambda key: progress(f"offline: {key}"),
        clock=clock,
    )


def server(
    contenders: Sequence[Contender],
    texts: Sequence[Any],
    *,
    highest: Mapping[str, float],
    bound: float,
    share: float = 99.0,
    tries: int = 7,
    limits: Limits,
    progress: Progress | None = None,
    clock: Clock = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
) -> dict[str, Server]:
    """The highest rate of arrivals at which each contestant keeps its latency, by bisection; they take turns at it.

    Args:
        contenders: who.
        texts: what arrives, in a random order and again from the start when all did.
        highest: texts per second of each when offline: no rate above it is tried.
        bound: seconds that a latency may take.
        share: percentile of the latencies that the bound is for.
        tries: rates that are tried.
        limits: of one try.
        progress: called before each try.
        clock: gives seconds.
        sleep: waits.
    """
    low = {contender.key: highest[contender.key] * LOWEST for contender in contenders}
    high = {contender.key: highest[contender.key] for contender in contenders}
    probes: dict[str, list[Probe]] = {contender.key: [] for contender in contenders}
    for _ in range(tries):
        for contender in contenders:
            key = contender.key
            rate = float(np.sqrt(low[key] * high[key]))
            if progress is not None:
                progress(f"server: {key}, {rate:.0f} texts/s")
            seed = len(probes[key])
            probe = serve(
                contender,
                texts,
                rate=rate,
                bound=bound,
                share=share,
                limits=limits,
                seed=seed,
                clock=clock,
                sleep=sleep,
            )
            probes[key].append(probe)
            (low if probe.within else high)[key] = rate
    found = {}
    for key, tried in probes.items():
        within = [probe for probe in tried if probe.within]
        found[key] = Server(tuple(tried), max(within, key=lambda probe: probe.rate, default=None))
    return found


def serve(
    contender: Contender,
    texts: Sequence[Any],
    *,
    rate: float,
    bound: float,
    share: float = 99.0,
    limits: Limits,
    seed: int = 0,
    clock: Clock = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
) -> Probe:
    """One rate of arrivals. What has arrived while a call was under way is answered in the next one.

    Arrivals are drawn beforehand and wait for nobody; once answering has fallen behind by ten bounds it is given up.

    Args:
        contender: who answers.
        texts: what arrives.
        rate: texts per second.
        bound: seconds that a latency may take.
        share: percentile of the latencies that the bound is for.
        limits: texts and seconds of arrivals.
        seed: of arrivals.
        clock: gives seconds.
        sleep: waits.
    """
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1 / rate, limits.queries))
    arrivals = arrivals[: max(int(np.searchsorted(arrivals, limits.seconds)), 1)]
    rows = rng.integers(0, len(texts), len(arrivals))
    done = np.empty(len(arrivals))
    begin, answered, calls = clock(), 0, 0
    while answered < len(arrivals):
        now = clock() - begin
        waiting = int(np.searchsorted(arrivals, now, side="right"))
        if waiting <= answered:
            sleep(max(float(arrivals[answered]) - now, TICK))
            continue
        if now - arrivals[answered] > 10 * bound:
            break
        contender.run([texts[row] for row in rows[answered:waiting]])
        done[answered:waiting] = clock() - begin
        answered, calls = waiting, calls + 1
    latencies = done[:answered] - arrivals[:answered]
    whole = answered == len(arrivals)
    return Probe(
        rate=rate,
        latencies=latencies,
        throughput=answered / max(clock() - begin, 1e-9),
        batch=answered / max(calls, 1),
        within=whole and percentile(latencies, share) <= bound,
    )


def _bound(contender: Contender, texts: Sequence[Any]) -> Callable[[], object]:
    return lambda: contender.run(texts)

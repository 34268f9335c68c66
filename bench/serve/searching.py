"""Runs of the client in processes of their own, and a search for the highest rate that a server answers in time."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cascade.core.rows import Doubles, IntArray
from cascade_bench.serve import client
from cascade_bench.systems.process import WorkerError

OK = 200
FIRST, LOWEST = 20.0, 0.5  # requests a second
NEAR = 1.06  # times the rate that held: where the search stops
LOWER, TRIES = 0.95, 6  # of the rate before, where a run that is to confirm it misses


@dataclass(frozen=True, eq=False)
class Loaded:
    """What `client.Client.run` gives, by request in the order of the answers, shapes `(requests,)`; its seconds."""

    due: Doubles
    latency: Doubles
    status: IntArray
    marked: IntArray
    unanswered: int
    retried: int
    cpu: float

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Loaded:
        """As the client writes it."""
        arrays: dict[str, Any] = {name: np.array(found.get(name, ()), np.float64) for name in ("due", "latency")}
        arrays |= {name: np.array(found.get(name, ()), np.int64) for name in ("status", "marked")}
        return cls(**{**found, **arrays})

    @property
    def codes(self) -> dict[int, int]:
        """Answers by status, 0 of lost ones."""
        return dict(sorted(Counter(self.status.tolist()).items()))

    def quantile(self, share: float) -> float:
        """Seconds within which this share of the accepted requests was answered; infinite without any."""
        accepted = self.latency[self.status == OK]
        return float(np.quantile(accepted, share)) if len(accepted) else math.inf

    def holds(self, limit: float) -> bool:
        """Whether every request was accepted, 99 of 100 in less than `limit` seconds."""
        return not self.unanswered and set(self.codes) <= {OK} and self.quantile(0.99) < limit


def load(job: client.Job) -> Loaded:
    """Run a client in a process of its own."""
    command, given = [sys.executable, client.__file__], json.dumps(asdict(job))
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise WorkerError(f"the client failed: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
    return Loaded.of(json.loads(done.stdout))


def highest_rate(run: Callable[[float], Loaded], limit: float) -> tuple[float, Loaded] | None:
    """Requests a second at which runs hold `limit` seconds, and the last such run; `None` where none does.

    The rate doubles until it is missed twice in a row, then goes half way to the lowest missed one, as a ratio, until
    they are near. As the best of many runs is a lucky one, a further run confirms it, or a lower rate.
    """
    good, bad, rate = 0.0, math.inf, FIRST
    while rate >= LOWEST and bad > good * NEAR:
        if run(rate).holds(limit) or run(rate).holds(limit):
            good = rate
        else:
            bad = rate
        rate = good * 2 if math.isinf(bad) else math.sqrt(good * bad) if good else bad / 4
    for rate in (good * LOWER**power for power in range(TRIES if good else 0)):
        last = run(rate)
        if last.holds(limit):
            return rate, last
    return None

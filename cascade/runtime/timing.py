"""Backends that note how long each of their runs took."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cascade.runtime.backend import Array, Backend


@dataclass(frozen=True)
class Run:
    """One run of a packed graph.

    Attributes:
        seconds: wall-clock time.
        active: tokens that went on; all of them in a graph that knows no others.
        live: tokens that were there, halted ones included.
    """

    seconds: float
    active: int
    live: int


@dataclass(frozen=True, eq=False)
class Timed:
    """A backend that notes its runs.

    Attributes:
        backend: what runs: `embed` or a stage.
        runs: shared with `serial`.
        clock: gives seconds.
    """

    backend: Backend
    runs: list[Run] = field(default_factory=list)
    clock: Callable[[], float] = time.perf_counter

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return self.backend.inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return self.backend.outputs

    @property
    def serial(self) -> Timed:
        """The same graph for runs beside others, noted in the same place."""
        return Timed(self.backend.serial, self.runs, self.clock)

    @property
    def seconds(self) -> float:
        """Of all runs; of runs side by side the sum."""
        return sum(run.seconds for run in self.runs)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name."""
        begin = self.clock()
        made = self.backend.run(feeds)
        seconds = self.clock() - begin
        live = feeds["hidden" if "hidden" in feeds else "input_ids"]
        self.runs.append(Run(seconds, len(feeds.get("active", live)), len(live)))
        return made

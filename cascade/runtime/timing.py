"""Backends that note how long each of their runs took."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from cascade.runtime.backend import Array, Backend


@dataclass(frozen=True, eq=False)
class Timed:
    """A backend that notes its runs.

    Attributes:
        backend: what runs: `embed` or a stage.
        runs: wall-clock seconds of each run so far; shared with `serial`.
    """

    backend: Backend
    runs: list[float] = field(default_factory=list)

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
        return Timed(self.backend.serial, self.runs)

    @property
    def seconds(self) -> float:
        """Of all runs; of runs side by side the sum."""
        return sum(self.runs)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name."""
        begin = time.perf_counter()
        made = self.backend.run(feeds)
        self.runs.append(time.perf_counter() - begin)
        return made

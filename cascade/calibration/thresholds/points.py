"""Operating points: policies, and what they did on examples."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from cascade.calibration.runs import two_tiers
from cascade.calibration.temperature import Temperatures
from cascade.policies.decoding import Decoder
from cascade.policies.exits import ExitPolicy
from cascade.policies.routing import Router
from cascade.policies.settings import Policies
from cascade.policies.windows import WindowPolicy

__all__ = ["Point", "front"]


@dataclass(frozen=True, kw_only=True)
class Point:
    """Policies and what they did in a replay.

    Attributes:
        router, exit_policy, windows, blend: as a pipeline's `with_...` take them; a classifier has no windows.
        accuracy: of texts or words, in [0, 1].
        drop: accuracy of tier 2 at full depth on the same examples less this one; below 0 where it is better.
        deferred: share that tier 2 answers.
        mean_layer: of the deferred; 0 where there are none.
        cost: relative to tier 2 at full depth without tier 1.
    """

    router: Router
    exit_policy: ExitPolicy
    windows: WindowPolicy | None = None
    blend: float = 0.0
    accuracy: float
    drop: float
    deferred: float
    mean_layer: float
    cost: float

    def policies(self, temperatures: Temperatures, decoding: Decoder | None = None) -> Policies:
        """Of this point, for a cascade with these temperatures."""
        return two_tiers(
            self.router,
            self.exit_policy,
            blend=self.blend,
            temperatures=temperatures,
            windows=self.windows,
            decoding=decoding,
        )

    @property
    def predicted_speed_up(self) -> float:
        """Over tier 2 at full depth; infinite where nothing is paid."""
        return 1 / self.cost if self.cost else math.inf


def front(points: Iterable[Point]) -> list[Point]:
    """The points that no other beats in both accuracy and cost, cheapest first (the Pareto front)."""
    found: list[Point] = []
    for point in sorted(points, key=lambda point: (point.cost, point.drop)):
        if not found or point.drop < found[-1].drop:
            found.append(point)
    return found

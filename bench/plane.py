"""The plane of a curve: settings, where they lie, who is on the front; and two bounds beside them.

oracle   defers exactly what tier 1 gets wrong and tier 2 at full depth gets right; whole sentences of a tagger
random   defers by lot, between nobody and everybody, to tier 2 at full depth
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from cascade.calibration import Costs, WordCosts
from cascade.core.rows import BoolArray, IntArray
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger
from cascade.policies.batching import BatchingPolicy
from cascade.policies.exits import AtExit, ExitPolicy, never
from cascade.policies.routing import Router, defer_all, defer_none
from cascade.policies.windows import WindowPolicy

__all__ = ["Axes", "Bounds", "Estimate", "Setting", "Sweep", "configured", "fixed", "front", "is_fixed"]

LOTS = 21  # points on the line of random deferral

Kind: TypeAlias = Literal["setting", "full", "cut", "tier1", "oracle", "random"]
Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Axes:
    """What is swept.

    Attributes:
        deferral: deferral thresholds at most; deferring nobody and everybody comes on top.
        exits: exit thresholds at most; `never` comes on top.
        caps: also with a cap on depth after every exit.
        batching: policies; the bundle's own (`None`) if it is the only one.
    """

    deferral: int
    exits: int
    caps: bool = True
    batching: tuple[BatchingPolicy | None, ...] = (None,)


@dataclass(frozen=True)
class Setting:
    """What a bundle is run with. `windows`: of a tagger. `batching`: `None` is the bundle's own."""

    router: Router
    exit_policy: ExitPolicy
    windows: WindowPolicy | None = None
    batching: BatchingPolicy | None = None

    def __str__(self) -> str:
        parts = [self.router, self.exit_policy, *(part for part in (self.windows, self.batching) if part is not None)]
        return ", ".join(map(repr, parts))


@dataclass(frozen=True)
class Estimate:
    """A place in the plane that was replayed, not run.

    Attributes:
        kind: which sort of place.
        setting: what to run to get there; `None` for bounds.
        accuracy: in [0, 1], replayed.
        deferred: share of the texts (or words) that tier 2 answers.
        mean_layer: of the deferred; 0 where there are none.
        seconds: of one pass over the data, estimated.
        speed_up: estimated seconds of tier 2 at full depth over these.
    """

    kind: Kind
    setting: Setting | None
    accuracy: float
    deferred: float
    mean_layer: float
    seconds: float
    speed_up: float


@dataclass(frozen=True, eq=False)
class Sweep:
    """The plane.

    Attributes:
        points: settings, those of the grid and the fixed ones.
        oracle: the router that knows the answers.
        random: deferral by lot, from nobody to everybody.
        tokens: that a pass over the data reads.
        rows: texts (windows of long ones apart) or sentences.
        costs: measured, by batching policy; seconds per token.
    """

    points: tuple[Estimate, ...]
    oracle: Estimate
    random: tuple[Estimate, ...]
    tokens: int
    rows: int
    costs: tuple[Costs | WordCosts, ...] = field(repr=False)

    @property
    def fixed(self) -> list[Estimate]:
        """Tier 2 at full depth and cut after each exit, tier 1 alone: what adaptive settings must beat."""
        return [point for point in self.points if point.kind != "setting"]


def configured(model: Classifier | Tagger, setting: Setting) -> Classifier | Tagger:
    """A copy of the bundle with a setting."""
    made = model.with_router(setting.router).with_exit_policy(setting.exit_policy)
    if setting.batching is not None:
        made = made.with_batching(setting.batching)
    if isinstance(made, Tagger) and setting.windows is not None:
        made = made.with_windows(setting.windows)
    return made


def front(points: Iterable[Estimate]) -> list[Estimate]:
    """Those that no other beats in both accuracy and seconds, fastest first (the Pareto front)."""
    found: list[Estimate] = []
    for point in sorted(points, key=lambda point: (point.seconds, -point.accuracy)):
        if not found or point.accuracy > found[-1].accuracy:
            found.append(point)
    return found


@dataclass(frozen=True, eq=False)
class Bounds:
    """What bounds are made of.

    Attributes:
        right1, right2: whether tier 1, and tier 2 at full depth, is right on each text or word. Shape `(n,)`.
        rows: number of the row that each is in. Shape `(n,)`.
        before, deep: seconds of all that comes before tier 2, and of tier 2 at full depth, per row. Shape `(rows,)`.
        always: the part of `before` that tier 2 alone pays too; a number for all rows together.
        layer: the last.
    """

    right1: BoolArray
    right2: BoolArray
    rows: IntArray
    before: Floats
    deep: Floats
    always: float
    layer: int

    @property
    def full(self) -> float:
        """Seconds of tier 2 alone at full depth."""
        return self.always + float(self.deep.sum())

    def oracle(self) -> Estimate:
        """Defers exactly what tier 1 gets wrong and tier 2 right."""
        wanted: BoolArray = ~self.right1 & self.right2
        read = np.zeros(len(self.deep), dtype=np.bool_)
        read[self.rows[wanted]] = True
        seconds = float(self.before.sum() + self.deep[read].sum())
        accuracy = float((self.right1 | self.right2).mean())
        share = float(wanted.mean())
        return Estimate("oracle", None, accuracy, share, self.layer * bool(share), seconds, self.full / seconds)

    def lots(self) -> tuple[Estimate, ...]:
        """Deferral by lot, from nobody to everybody: expectations, for which no lot is drawn."""
        first, second = float(self.right1.mean()), float(self.right2.mean())
        made = []
        for share in np.linspace(0, 1, LOTS).tolist():
            seconds = float(self.before.sum() + share * self.deep.sum())
            accuracy = first + share * (second - first)
            layer = self.layer * bool(share)
            made.append(Estimate("random", None, accuracy, share, layer, seconds, self.full / seconds))
        return tuple(made)


def is_fixed(router: Router, policy: ExitPolicy) -> bool:
    """Whether a setting is one of `fixed`, or tier 1 alone with exits that nobody reaches."""
    return router == defer_none or (router == defer_all and (policy == never or isinstance(policy, AtExit)))


def fixed(bounds: Bounds, right: Floats, paid: Floats, layers: Sequence[int], base: Setting) -> list[Estimate]:
    """Full depth first, then cuts, then tier 1 alone."""
    made = []
    for exit_ in reversed(range(len(layers))):
        whole = exit_ == len(layers) - 1
        setting = base if whole else replace(base, exit_policy=AtExit(layers[exit_]))
        seconds = float(paid[exit_])
        accuracy, kind = float(right[exit_]), "full" if whole else "cut"
        made.append(Estimate(kind, setting, accuracy, 1.0, layers[exit_], seconds, bounds.full / seconds))  # type: ignore[arg-type]  # one of two literals
    seconds, setting = float(bounds.before.sum()), replace(base, router=defer_none)
    return [*made, Estimate("tier1", setting, float(bounds.right1.mean()), 0.0, 0.0, seconds, bounds.full / seconds)]

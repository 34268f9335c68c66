"""What both tiers say about every text, at every exit, recorded once: any setting is replayed without running a model.

An item is what the caller calls a text; a row is one window of it. The two are the same but for long texts.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from cascade.calibration.costs import Costs
from cascade.calibration.leaving import leave
from cascade.calibration.runs import Run, Sample, two_tiers
from cascade.calibration.temperature import Temperatures, logits_of, rescale
from cascade.core.confidence import answers, evidence, max_probability, probabilities
from cascade.core.rows import BoolArray, FloatArray, IntArray, offsets_of, ranges, read_only
from cascade.exceptions import OptionError
from cascade.policies import routing
from cascade.policies.exits import never
from cascade.policies.routing import DeferAll, RoutingState, defer_all
from cascade.policies.settings import Policies


@dataclass(frozen=True, eq=False)
class TextAnswers(Sample):
    """Probabilities of both tiers, at all exits; a `Sample`.

    Attributes:
        tier1: of whole items. Shape `(items, labels)`.
        tier2: of rows. Shape `(rows, exits, labels)`.
        items: number of the item that each row belongs to, from 0, none left out, never falling. Shape `(rows,)`.
        lengths: tokens of each row. Shape `(rows,)`.
        layers: number of the layer below each exit, counted from 1; the last is full depth.
        truth: number of the right label of each item, shape `(items,)`; 0 and 1 per label where the labels are
            independent, shape `(items, labels)`; `None` where it is not known.
        temperatures: that the probabilities were made with.
        costs: of a token, one for each exit.
        multi_label: the labels are independent yes/no decisions.
        original: see `Sample`. Shape `(items, columns)`.
    """

    tier1: FloatArray
    tier2: FloatArray
    items: IntArray
    lengths: IntArray
    layers: tuple[int, ...]
    truth: IntArray | None
    temperatures: Temperatures
    costs: Costs
    multi_label: bool = False
    original: IntArray | None = None
    _blended: dict[float, FloatArray] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        rows, count, labels = self.tier2.shape
        truth = (len(self), labels) if self.binary else (len(self),)
        wanted = {
            "tier1": (self.tier1.shape, (len(self), labels)),
            "items": (self.items.shape, (rows,)),
            "lengths": (self.lengths.shape, (rows,)),
            "layers": ((len(self.layers),), (count,)),
            "costs": ((len(self.costs.stages),), (count,)),
            "truth": (truth if self.truth is None else self.truth.shape, truth),
        }
        wrong = [f"{name} {got} instead of {shape}" for name, (got, shape) in wanted.items() if got != shape]
        if rows == 0 or wrong:
            raise OptionError(
                f"answers must be about one example at least and of fitting shapes, got tier2 {self.tier2.shape}"
                f"{''.join(f', {fault}' for fault in wrong)}; give one row per window, one truth per item"
            )

    def __len__(self) -> int:
        return int(self.items[-1]) + 1 if len(self.items) else 0

    @property
    def binary(self) -> bool:
        """Whether an answer is a set of labels, or yes or no, rather than the likeliest label."""
        return self.multi_label or self.tier2.shape[-1] == 1

    @property
    def at_full_depth(self) -> Policies:
        """Tier 2 alone."""
        return two_tiers(defer_all, never, temperatures=self.temperatures)

    @property
    def full_probabilities(self) -> FloatArray:
        """What tier 2 says at full depth. Shape `(items, labels)`."""
        return _means(self.tier2[:, -1], self.items)

    @cached_property
    def routing_state(self) -> RoutingState:
        """What a router sees of all items together."""
        sure = max_probability(self.tier1, multi_label=self.multi_label)
        lengths = np.bincount(self.items, weights=self.lengths, minlength=len(self)).astype(np.int64)
        return RoutingState(read_only(self.tier1), read_only(sure), read_only(lengths), self.multi_label)

    def run(self, policies: Policies) -> Run:
        """Route, exit and merge as the engine does; the policies themselves are asked.

        The router sees all items at once, so no `Budget`, whose share would be one of these examples. Temperatures are
        those of the answers (`with_temperatures`).
        """
        router, costs = policies.routers[0] if policies.routers else defer_all, self.costs  # of one tier alone
        alone = isinstance(router, DeferAll)
        deferred = np.ones(len(self), dtype=np.bool_) if alone else routing.decide(router, self.routing_state)
        rows = np.flatnonzero(deferred[self.items])
        owners = self.items[rows]
        # Where everything is deferred tier 1 is not run, and has no answer that could count.
        both = (self.tier2 if alone else self.blended(policies.blend[0]))[rows]
        taken = leave(policies.exits[-1], both, self.layers, multi_label=self.multi_label)
        found = self.tier1.copy()
        found[deferred] = _means(both[np.arange(len(rows)), taken], owners)
        layers = np.zeros(len(self), dtype=np.int64)
        np.maximum.at(layers, owners, np.asarray(self.layers)[taken])
        paid = self.lengths.sum() * (costs.always + (0.0 if alone else costs.tier1))
        paid += float(self.lengths[rows] @ (costs.embed + np.cumsum(costs.stages)[taken]))
        return Run(self.answered(found), deferred, layers, float(paid))

    def answered(self, found: FloatArray) -> IntArray:
        """What probabilities of the items answer, in the form of `Run.answers`. Shape `(items, labels)`."""
        return answers(found, multi_label=self.multi_label)

    def timed(self, policies: Policies) -> tuple[float, float]:
        """Predicted seconds per item of these policies and of full depth."""
        return self.run(policies).seconds / len(self), self.full.seconds / len(self)

    def events(self, mask: BoolArray) -> BoolArray:
        """An item is an example, so the mask itself."""
        return mask

    def classes(self, answers: IntArray) -> BoolArray:
        """Which items have which label. Shape `(items, columns)` to `(labels, items)`."""
        labels = np.arange(self.tier2.shape[-1])[:, None]
        return answers.T.astype(np.bool_) if self.binary else answers[:, 0] == labels

    def select(self, examples: IntArray) -> TextAnswers:
        """These items, numbered from 0 in this order. Shape `(chosen,)`."""
        starts = offsets_of(np.bincount(self.items, minlength=len(self)).astype(np.int64))
        windows = np.diff(starts)[examples]
        rows = ranges(starts[:-1][examples], windows)
        return replace(
            self,
            tier1=self.tier1[examples],
            tier2=self.tier2[rows],
            items=np.repeat(np.arange(len(examples), dtype=np.int64), windows),
            lengths=self.lengths[rows],
            truth=None if self.truth is None else self.truth[examples],
            original=None if self.original is None else self.original[examples],
        )

    def with_temperatures(self, temperatures: Temperatures) -> TextAnswers:
        """The same answers with other temperatures, of each tier and exit."""
        if temperatures == self.temperatures:
            return self
        rescaled = [
            [
                rescale(tier[:, exit_], was=was, now=now, multi_label=self.multi_label)
                for exit_, (was, now) in enumerate(zip(old, new, strict=True))
            ]
            for tier, old, new in zip((self.tier1[:, None], self.tier2), self.temperatures, temperatures, strict=True)
        ]
        return replace(self, tier1=rescaled[0][0], tier2=np.stack(rescaled[1], axis=1), temperatures=temperatures)

    def blended(self, blend: float) -> FloatArray:
        """Probabilities at every exit, tier 1's answer counting so much beside it. Shape `(rows, exits, labels)`."""
        if not blend:
            return self.tier2
        if blend not in self._blended:
            known = evidence(self.tier1, weight=blend, multi_label=self.multi_label)[self.items, None]
            own = logits_of(self.tier2, multi_label=self.multi_label)
            self._blended.clear()  # a path has one blend, and every setting of it is replayed
            self._blended[blend] = probabilities(own, multi_label=self.multi_label, prior=known)
        return self._blended[blend]


def _means(rows: FloatArray, owners: IntArray) -> FloatArray:
    """Of the rows of each owner. Shape `(rows, labels)` and `(rows,)`, never falling, to `(owners, labels)`."""
    starts = np.flatnonzero(np.diff(owners, prepend=-1))
    if len(starts) == len(rows):
        return rows
    windows = np.diff(np.append(starts, len(rows)))
    return np.asarray(np.add.reduceat(rows, starts, axis=0) / windows[:, None], dtype=np.float32)

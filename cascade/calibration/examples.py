"""What both tiers say about labelled examples, reduced to what thresholds need, and what each part costs.

Probabilities are looked at once: a threshold on confidence only needs to know how sure each exit is and whether it is
right.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from cascade.core.confidence import answers, evidence, max_probability, probabilities
from cascade.core.rows import BoolArray, FloatArray, IntArray
from cascade.exceptions import OptionError

__all__ = ["Costs", "Examples"]


@dataclass(frozen=True, eq=False)
class Examples:
    """How sure and how right tier 1 and every exit of tier 2 are; make one with `Examples.of`.

    Attributes:
        lengths: tokens of each example. Shape `(n,)`.
        layers: number of the layer below each exit, counted from 1; the last is full depth.
        sure1: confidence of tier 1. Shape `(n,)`.
        right1: whether tier 1 answers as labelled. Shape `(n,)`.
        sure2: confidence of each exit. Shape `(n, exits)`.
        right2: whether each exit answers as labelled. Shape `(n, exits)`.
        blend: how much tier 1's answer counts beside that of each exit in the next two (`engine.Cascade`).
        sure_both: confidence of each exit together with tier 1. Shape `(n, exits)`.
        right_both: whether the two together answer as labelled. Shape `(n, exits)`.
    """

    lengths: IntArray
    layers: tuple[int, ...]
    sure1: FloatArray
    right1: BoolArray
    sure2: FloatArray
    right2: BoolArray
    blend: float
    sure_both: FloatArray
    right_both: BoolArray
    _of: Callable[..., Examples] = field(repr=False)

    def __len__(self) -> int:
        return len(self.lengths)

    @classmethod
    def of(
        cls,
        tier1: FloatArray,
        tier2: FloatArray,
        truth: IntArray,
        *,
        lengths: IntArray,
        layers: Sequence[int],
        multi_label: bool = False,
        blend: float = 0.0,
    ) -> Examples:
        """Reduce probabilities to confidence (the largest probability) and correctness.

        Args:
            tier1: probabilities of tier 1. Shape `(n, labels)`.
            tier2: probabilities at every exit, as `MultiExit.all_exits` gives them. Shape `(n, exits, labels)`.
            truth: number of the right label, shape `(n,)`; or 0 and 1 per label, shape `(n, labels)`, where the labels
                are independent (an answer is right where all its labels are).
            lengths: tokens of each example. Shape `(n,)`.
            layers: of the exits.
            multi_label: the labels are independent yes/no decisions.
            blend: how much tier 1's answer counts beside that of each exit.

        Raises:
            OptionError: no examples, or arrays whose shapes do not fit each other.
        """
        n, exits, labels = tier2.shape
        independent = multi_label or labels == 1
        wanted = {
            "tier1": (tier1.shape, (n, labels)),
            "truth": (truth.shape, (n, labels) if independent else (n,)),
            "lengths": (lengths.shape, (n,)),
            "layers": ((len(layers),), (exits,)),
        }
        wrong = [f"{name} {was} instead of {shape}" for name, (was, shape) in wanted.items() if was != shape]
        if n == 0 or wrong:
            raise OptionError(
                f"there must be at least one example and arrays of fitting shapes, was: tier2 {tier2.shape}"
                f"{''.join(f', {fault}' for fault in wrong)}; give one row per example"
            )
        goal = truth if independent else truth[:, None]
        both = tier2
        if blend:
            known = evidence(tier1, weight=blend, multi_label=multi_label)[:, None]
            own = evidence(tier2, weight=1.0, multi_label=multi_label)
            both = probabilities(own, multi_label=multi_label, prior=known)

        def sure(exits_: FloatArray) -> FloatArray:
            flat = max_probability(exits_.reshape(n * exits, labels), multi_label=multi_label)
            return _number(flat.reshape(n, exits))

        return cls(
            lengths=lengths,
            layers=tuple(layers),
            sure1=_number(max_probability(tier1, multi_label=multi_label)),
            right1=(answers(tier1, multi_label=multi_label) == goal).all(axis=-1),
            sure2=sure(tier2),
            right2=(answers(tier2, multi_label=multi_label) == goal[:, None]).all(axis=-1),
            blend=blend,
            sure_both=sure(both),
            right_both=(answers(both, multi_label=multi_label) == goal[:, None]).all(axis=-1),
            _of=functools.partial(cls.of, tier1, tier2, truth, lengths=lengths, layers=layers, multi_label=multi_label),
        )

    def with_blend(self, blend: float) -> Examples:
        """The same answers, those of tier 1 counting so much beside those of tier 2."""
        return self if blend == self.blend else self._of(blend=blend)


@dataclass(frozen=True)
class Costs:
    """What a token costs in each part, in any one unit: seconds, or layers.

    Attributes:
        tier1: of tier 1, paid by every row unless the router is `defer_all`.
        stages: of each stage of tier 2, the embedding being part of the first; paid by the rows that go through it.
        always: of what everyone pays, tier 2 at full depth too: tokenisation.
    """

    tier1: float
    stages: tuple[float, ...]
    always: float = 0.0

    def __post_init__(self) -> None:
        values = (self.tier1, *self.stages, self.always)
        if not self.stages or not all(0 <= value < float("inf") for value in values) or self.full <= 0:
            raise OptionError(
                f"costs must be at least 0, finite and above 0 for tier 2, were: {self!r}; give seconds or layers"
            )

    @property
    def full(self) -> float:
        """Of a token in tier 2 at full depth, tier 1 not run."""
        return self.always + sum(self.stages)

    @classmethod
    def by_layers(cls, layers: Sequence[int], *, tier1: float) -> Costs:
        """Every layer of tier 2 costs the same; nothing else but tier 1 counts.

        Layers are not time: prefer costs that were measured (`observing.observe`).

        Args:
            layers: of the exits, counted from 1.
            tier1: as a share of tier 2 at full depth.
        """
        stages = np.diff(np.asarray([0, *layers], dtype=np.float64))
        return cls(tier1=tier1 * float(stages.sum()), stages=tuple(stages.tolist()))


def _number(sure: FloatArray) -> FloatArray:
    # NaN compares as unsure in every policy; so does -1 here, and it can be sorted.
    return np.where(np.isnan(sure), np.float32(-1), sure)

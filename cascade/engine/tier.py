"""What a tier is, what it says, and tiers that are any function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np

from cascade.core.confidence import evidence, max_probability, probabilities
from cascade.core.rows import BoolArray, FloatArray, IntArray, Units
from cascade.engine.inputs import Inputs
from cascade.exceptions import OptionError

T = TypeVar("T")

Progress: TypeAlias = Callable[[int], object]
"""Called with the number of units that were just answered."""

Readable: TypeAlias = Inputs | Units
"""What shipped tiers read: inputs, or rows of which each unit is one of the caller's."""


@dataclass(frozen=True, eq=False)
class Scores:
    """What a tier says about units, in their order.

    Attributes:
        probabilities: after the temperature. Shape `(units, labels)`.
        confidence: the largest probability (`confidence.max_probability`). Shape `(units,)`.
        tier: number of the tier inside that answered, from 1. Shape `(units,)`.
        exit_layer: number of the layer after which a unit exited, counted from 1; 0 in a tier without exits. Shape
            `(units,)`.
    """

    probabilities: FloatArray
    confidence: FloatArray
    tier: IntArray
    exit_layer: IntArray

    @classmethod
    def of(cls, probabilities: FloatArray, exit_layer: IntArray | None = None, *, multi_label: bool = False) -> Scores:
        """Those of a single tier; without exits if `exit_layer` is left out."""
        count = len(probabilities)
        layers = np.zeros(count, dtype=np.int64) if exit_layer is None else exit_layer
        sure = max_probability(probabilities, multi_label=multi_label)
        return cls(probabilities, sure, np.ones(count, dtype=np.int64), layers)

    def __len__(self) -> int:
        return len(self.tier)

    def __getitem__(self, units: slice) -> Scores:
        return Scores(self.probabilities[units], self.confidence[units], self.tier[units], self.exit_layer[units])

    def above(self, tiers: int) -> Scores:
        """The same, numbered above so many tiers."""
        return Scores(self.probabilities, self.confidence, self.tier + tiers, self.exit_layer)


class Tier(Protocol):
    """Any model that scores units, or a cascade of them."""

    @property
    def labels(self) -> int:
        """How many labels there are."""

    @property
    def leaves(self) -> tuple[Tier, ...]:
        """The single tiers inside, first to last."""

    def score(
        self,
        inputs: Inputs,
        *,
        targets: BoolArray | None = None,
        context_layers: int | None = None,
        prior: FloatArray | None = None,
        progress: Progress | None = None,
    ) -> Scores:
        """Scores with one entry per unit of `inputs`, which may be empty.

        Args:
            inputs: what to read.
            targets: units that need an answer; the others are context, and their scores are not read. `None`: all.
                Shape `(units,)`.
            context_layers: context stops after this layer at the latest; a tier without exits does not read it.
            prior: what another tier's answer adds to logits, after the temperature (`confidence.evidence`). Shape
                `(units, labels)`.
            progress: called with the number of targets that were just answered.
        """


class Leaf:
    """What single tiers share, whatever exits they have."""

    @property
    def leaves(self: T) -> tuple[T, ...]:
        """Itself."""
        return (self,)


@dataclass(frozen=True, eq=False)
class CallableTier(Leaf):
    """Any function as a tier: a rule, a request over HTTP, an LLM, a person's queue.

    Attributes:
        function: from a list of items to probabilities, one row per unit: per text, or per word, all words of the
            first sentence, then those of the second, ... Shape `(units, labels)`. Texts or sentences without a unit
            that needs an answer are not given to it.
        price: what one item costs, in any unit; for reports.
        labels: how many.
        multi_label: the labels are independent yes/no decisions.
    """

    function: Callable[[list[Any]], Any]
    price: float
    labels: int
    multi_label: bool = False

    def score(
        self,
        inputs: Inputs,
        *,
        targets: BoolArray | None = None,
        context_layers: int | None = None,  # there is one depth
        prior: FloatArray | None = None,
        progress: Progress | None = None,
    ) -> Scores:
        """Scores of all units; see `Tier.score`.

        Inputs of rows only, or an array of another shape from the function, are an `OptionError`.
        """
        check_targets(targets, inputs.n_units)
        wanted = np.ones(inputs.n_units, dtype=np.bool_) if targets is None else targets
        items, offsets = inputs.items, inputs.offsets
        if len(items) != len(offsets) - 1:  # long texts, of several rows each
            offsets = np.arange(len(items) + 1, dtype=np.int64)
        asked = np.flatnonzero(np.add.reduceat(np.append(wanted, False), offsets[:-1]) * (np.diff(offsets) > 0))
        units = np.repeat(np.isin(np.arange(len(items)), asked), np.diff(offsets))
        made = np.zeros((len(wanted), self.labels), dtype=np.float32)
        if len(asked):
            made[units] = self._ask([items[number] for number in asked.tolist()], int(units.sum()))
        if prior is not None:
            own = evidence(made, weight=1.0, multi_label=self.multi_label)
            made = probabilities(own, multi_label=self.multi_label, prior=prior)
        if progress is not None and len(asked):
            progress(int(wanted.sum()))
        return Scores.of(made, multi_label=self.multi_label)

    def _ask(self, items: list[Any], units: int) -> FloatArray:
        found = np.asarray(self.function(items), dtype=np.float32)
        if found.shape != (units, self.labels):
            raise OptionError(
                f"a tier's function must return probabilities of shape ({units}, {self.labels}), "
                f"got shape {found.shape}; return one row per text, or per word of all sentences"
            )
        return found


def as_inputs(given: Readable) -> Inputs:
    """Inputs of rows whose units are the caller's; inputs are returned as they are."""
    return Inputs.encoded(given) if isinstance(given, Units) else given


def check_targets(targets: BoolArray | None, units: int) -> None:
    """Refuse, by an `OptionError`, what is no mask of units that need an answer; `None` stands for all."""
    if targets is not None and (targets.shape != (units,) or targets.dtype != np.bool_):
        raise OptionError(
            f"targets must be bools of shape ({units},), got {targets.dtype} of shape {targets.shape}; "
            "give True for each unit that needs an answer"
        )

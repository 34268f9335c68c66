"""Exit policies: after each stage of tier 2, which rows are sure enough to leave with the answer of this exit.

A policy is called with an `ExitState` and returns a mask, True = leave. It decides each row by that row alone, so
order, batch size and neighbours do not change who leaves. In a tagger a row is a word, and all of these serve. No
policy is asked after the last stage.

    never                                full depth
    AtExit(layer)                        everyone leaves there: truncation, and in `any_of` a cap on depth
    MaxProbability, Margin, Entropy      sure enough now
    Patience(patience)                   the same answer several times in a row
    any_of(...), all_of(...)             combinations
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cascade.core.checks import check_share, check_whole
from cascade.core.confidence import Measure, answers, certainty, margin, max_probability
from cascade.core.rows import BoolArray
from cascade.exceptions import OptionError
from cascade.policies.exit_policy import ExitPolicy, ExitState, check, decide, from_json, shipped, to_json

__all__ = [
    "AllOf",
    "AnyOf",
    "AtExit",
    "Entropy",
    "ExitPolicy",
    "ExitState",
    "Margin",
    "MaxProbability",
    "Never",
    "Patience",
    "PerExit",
    "all_of",
    "any_of",
    "check",
    "decide",
    "from_json",
    "never",
    "shipped",
    "to_json",
]


@dataclass(frozen=True)
class PerExit:
    """What policies with a threshold have in common.

    Attributes:
        threshold: in [0, 1]; one number for all exits or a tuple with one per exit (the last may be left out).
    """

    threshold: float | tuple[float, ...]

    def __post_init__(self) -> None:
        remedy = "give one number, or a tuple with one per exit"
        given: object = self.threshold
        if isinstance(given, tuple | list):
            checked: object = tuple(check_share("threshold", value, remedy) for value in given)
        else:
            checked = check_share("threshold", given, remedy)
        object.__setattr__(self, "threshold", checked)

    def at(self, exit_: int) -> float:
        """The threshold of the exit of this number, counted from 0."""
        return self.threshold[exit_] if isinstance(self.threshold, tuple) else self.threshold

    def check(self, layers: Sequence[int]) -> None:
        """Whether there is one threshold per exit."""
        if isinstance(self.threshold, tuple) and len(self.threshold) not in (len(layers), len(layers) - 1):
            raise OptionError(
                f"threshold must be one number or one per exit ({len(layers)}, after layers {_names(layers)}; the "
                f"last may be left out), was: {len(self.threshold)} numbers; give {len(layers)}"
            )


class _Threshold(PerExit):
    """Leave where a measure of confidence reaches a threshold."""

    measure: ClassVar[Measure]

    def __call__(self, state: ExitState) -> BoolArray:
        """Mask of shape `(rows,)`, True = leave."""
        return self.measure(state.probabilities, multi_label=state.multi_label) >= self.at(state.exit_index)


@shipped
class MaxProbability(_Threshold):
    """Leave where the largest probability is at least `threshold` (Right Tool, ACL 2020).

    With several labels at once: where each label's max(p, 1 - p) is.
    """

    measure = max_probability


@shipped
class Margin(_Threshold):
    """Leave where the two largest probabilities differ by at least `threshold`. Several labels: each |2p - 1|."""

    measure = margin


@shipped
class Entropy(_Threshold):
    """Leave where certainty, 1 - H / log(labels), is at least `threshold`.

    DeeBERT (ACL 2020) leaves where the entropy H is below S: the same rule with `threshold` = 1 - S / log(labels).
    """

    measure = certainty


@shipped
@dataclass(frozen=True)
class Patience:
    """Leave after `patience` + 1 equal answers in a row (PABEE, NeurIPS 2020, section 3.2).

    The answer is the likeliest label; with several labels at once the set of those with p >= 0.5.

    Attributes:
        patience: how often an answer has to be confirmed, at least 1.
    """

    patience: int

    def __post_init__(self) -> None:
        check_whole("patience", self.patience, "for full depth use never, to leave at a fixed exit use AtExit")

    def __call__(self, state: ExitState) -> BoolArray:
        """Mask of shape `(rows,)`, True = leave."""
        if state.exit_index < self.patience:
            return np.zeros(len(state.probabilities), dtype=np.bool_)
        recent = answers(state.history[:, -self.patience - 1 :], multi_label=state.multi_label)
        same: BoolArray = (recent == recent[:, -1:]).all(axis=(1, 2))
        return same


@shipped
@dataclass(frozen=True)
class AtExit:
    """Everyone leaves after this layer: truncation. In `any_of` it caps the depth.

    Attributes:
        layer: number of a layer with an exit, counted from 1.
    """

    layer: int

    def __post_init__(self) -> None:
        check_whole("layer", self.layer, "give the number of a layer with an exit")

    def __call__(self, state: ExitState) -> BoolArray:
        """Mask of shape `(rows,)`, True = leave."""
        return np.full(len(state.probabilities), state.exit_layer >= self.layer)

    def check(self, layers: Sequence[int]) -> None:
        """Whether there is an exit after this layer."""
        if self.layer not in layers:
            raise OptionError(f"AtExit must name a layer with an exit, was: {self.layer}; choose from {_names(layers)}")


@shipped
@dataclass(frozen=True, repr=False)
class Never:
    """Nobody leaves early; use the ready-made value `never`."""

    name: ClassVar[str] = "never"

    def __call__(self, state: ExitState) -> BoolArray:
        """Mask of shape `(rows,)`, all False."""
        return np.zeros(len(state.probabilities), dtype=np.bool_)

    def __repr__(self) -> str:
        return "never"


never = Never()
"""Full depth for everyone."""


@dataclass(frozen=True, repr=False)
class _Combination:
    name: ClassVar[str]
    policies: tuple[ExitPolicy, ...]

    def __post_init__(self) -> None:
        if not self.policies or not all(callable(policy) for policy in self.policies):
            raise OptionError(
                f"{self.name} must have one or more exit policies, was: {self.policies!r}; "
                f"write {self.name}(MaxProbability(0.9), Patience(2))"
            )

    def check(self, layers: Sequence[int]) -> None:
        """Whether every policy inside fits."""
        for policy in self.policies:
            check(policy, layers)

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(map(repr, self.policies))})"


@shipped
class AnyOf(_Combination):
    """Leave where at least one policy says so; write `any_of(...)`."""

    name = "any_of"

    def __call__(self, state: ExitState) -> BoolArray:
        """Mask of shape `(rows,)`, True = leave."""
        mask: BoolArray = np.logical_or.reduce([decide(policy, state) for policy in self.policies])
        return mask


@shipped
class AllOf(_Combination):
    """Leave where every policy says so; write `all_of(...)`."""

    name = "all_of"

    def __call__(self, state: ExitState) -> BoolArray:
        """Mask of shape `(rows,)`, True = leave."""
        mask: BoolArray = np.logical_and.reduce([decide(policy, state) for policy in self.policies])
        return mask


def any_of(*policies: ExitPolicy) -> AnyOf:
    """Leave where at least one of these policies says so."""
    return AnyOf(policies)


def all_of(*policies: ExitPolicy) -> AllOf:
    """Leave where all of these policies say so."""
    return AllOf(policies)


def _names(layers: Sequence[int]) -> str:
    return ", ".join(map(str, layers))

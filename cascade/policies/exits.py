"""Exit policies: after each stage of a tier, which units are sure enough to exit with the answer of this exit.

A policy is called with an `ExitState` and returns a mask, True = exit. It decides each unit by that unit alone, so
order, batch size and neighbours do not change the answers. No policy is asked after the last stage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeAlias, TypeVar

import numpy as np

from cascade.core.checks import check_mask, check_share, check_whole, is_real
from cascade.core.confidence import Measure, answers, certainty, margin, max_probability
from cascade.core.rows import BoolArray, FloatArray
from cascade.exceptions import OptionError
from cascade.policies.registry import ModelInfo, Registry, Same


@dataclass(frozen=True, eq=False)
class ExitState:
    """What a policy may look at: the units that are still inside. Its arrays must not be written to.

    Attributes:
        exit_index: number of this exit, counted from 0.
        exit_layer: number of the layer below it, counted from 1; exits are named by it.
        last: whether this is full depth.
        probabilities: of the head at this exit. Shape `(units, labels)`.
        history: of every head so far, this one last. Shape `(units, exit_index + 1, labels)`.
        multi_label: the labels are independent yes/no decisions.
    """

    exit_index: int
    exit_layer: int
    last: bool
    probabilities: FloatArray
    history: FloatArray
    multi_label: bool = False


ExitPolicy: TypeAlias = Callable[[ExitState], BoolArray]
"""A mask of shape `(units,)`, True = exit."""

_REGISTRY: Registry[ExitPolicy] = Registry("exit policy", "with_exit_policy", "use Settled")
register, to_json, from_json, check = _REGISTRY.register, _REGISTRY.to_json, _REGISTRY.from_json, _REGISTRY.check

_S = TypeVar("_S", bound="PerExit")


def decide(policy: ExitPolicy, state: ExitState) -> BoolArray:
    """Ask a policy; anything but a mask of one bool per unit is an `OptionError`."""
    return check_mask(policy(state), len(state.probabilities), "exit policy", policy, "that exits")


def each(threshold: Any, function: Callable[[Any], Any]) -> Any:
    """A function of a threshold, or of each of several."""
    return tuple(map(function, threshold)) if isinstance(threshold, tuple | list) else function(threshold)


@dataclass(frozen=True)
class PerExit:
    """Exit where a score, by default a measure of confidence, is at least a threshold; each such policy is `Tunable`.

    `threshold`: in [0, 1]; one number for all exits or a tuple with one per exit (the last may be left out).
    """

    for_labels: ClassVar[bool] = True
    measure: ClassVar[Measure]

    threshold: float | tuple[float, ...]

    def __post_init__(self) -> None:
        remedy = "give one number, or a tuple with one per exit"
        checked = each(self.threshold, lambda value: check_share("threshold", value, remedy))
        object.__setattr__(self, "threshold", checked)

    def threshold_of(self, exit_index: int) -> float:
        """The threshold of this exit, counted from 0."""
        return self.threshold[exit_index] if isinstance(self.threshold, tuple) else self.threshold

    def score(self, state: ExitState) -> FloatArray:
        """The measure, in [0, 1]. Shape `(units,)`."""
        return self.measure(state.probabilities, multi_label=state.multi_label)

    def at(self: _S, threshold: float | tuple[float, ...]) -> _S:
        """The same policy with this threshold."""
        return replace(self, threshold=threshold)

    def __call__(self, state: ExitState) -> BoolArray:
        return self.score(state) >= self.threshold_of(state.exit_index)

    def check(self, model: ModelInfo) -> None:
        """Whether there is one threshold per exit."""
        count = len(model.layers)
        if isinstance(self.threshold, tuple) and len(self.threshold) not in (count, count - 1):
            raise OptionError(
                f"threshold must be one number or one per exit ({count}, after layers {model.exits}; the "
                f"last may be left out), got {len(self.threshold)} numbers; give {count}"
            )


@register
class MaxProbability(PerExit):
    """Exit where the largest probability is at least `threshold` (Right Tool, ACL 2020).

    With several labels at once: where each label's max(p, 1 - p) is.
    """

    measure = staticmethod(max_probability)


@register
class Margin(PerExit):
    """Exit where the two largest probabilities differ by at least `threshold`. Several labels: each |2p - 1|."""

    measure = staticmethod(margin)


@register
class Entropy(PerExit):
    """Exit where certainty, 1 - H / log(labels), is at least `threshold`.

    DeeBERT (ACL 2020) exits where the entropy H is below S: the same rule with `threshold` = 1 - S / log(labels).
    """

    measure = staticmethod(certainty)


@register
@dataclass(frozen=True)
class Patience:
    """Exit after `patience` + 1 equal answers in a row (PABEE, NeurIPS 2020, section 3.2).

    The answer is the likeliest label; with several labels at once the set of those with p >= 0.5. `patience`: how often
    an answer has to be confirmed, at least 1.
    """

    for_labels: ClassVar[bool] = True

    patience: int

    def __post_init__(self) -> None:
        check_whole("patience", self.patience, "for full depth use never, to exit at a fixed layer use AtExit")

    def __call__(self, state: ExitState) -> BoolArray:
        if state.exit_index < self.patience:
            return np.zeros(len(state.probabilities), dtype=np.bool_)
        recent = answers(state.history[:, -self.patience - 1 :], multi_label=state.multi_label)
        return np.asarray((recent == recent[:, -1:]).all(axis=(1, 2)))


@register
@dataclass(frozen=True)
class Settled:
    """Exit where the number of a regression moves by less than `tau` from exit to exit (PABEE, section 3.2).

    `tau`: in the unit of the number, above 0; `patience`: how often in a row, at least 1.
    """

    tau: float
    patience: int = 1

    def __post_init__(self) -> None:
        if not is_real(self.tau) or not 0 < self.tau < float("inf"):
            raise OptionError(f"tau must be above 0 and finite, got {self.tau!r}; for full depth use never")
        check_whole("patience", self.patience, "for full depth use never, to exit at a fixed layer use AtExit")

    def __call__(self, state: ExitState) -> BoolArray:
        if state.exit_index < self.patience:
            return np.zeros(len(state.probabilities), dtype=np.bool_)
        moves = np.abs(np.diff(state.history[:, -self.patience - 1 :, 0], axis=1))
        return np.asarray(np.all(moves < self.tau, axis=1))

    def check(self, model: ModelInfo) -> None:
        """Whether the answer is a number."""
        if model.words or (model.labels and not model.regression):
            raise OptionError("Settled must be asked about the number of a regression, got labels; use Patience")


@register
@dataclass(frozen=True)
class AtExit:
    """All units exit after this layer, which has an exit, counted from 1: truncation. In `any_of` it caps the depth."""

    layer: int

    def __post_init__(self) -> None:
        check_whole("layer", self.layer, "give the number of a layer with an exit")

    def __call__(self, state: ExitState) -> BoolArray:
        return np.full(len(state.probabilities), state.exit_layer >= self.layer)

    def check(self, model: ModelInfo) -> None:
        """Whether there is an exit after this layer."""
        if self.layer not in model.layers:
            raise OptionError(f"AtExit must name a layer with an exit, got {self.layer}; choose from {model.exits}")


@register
class Never(Same):
    """No unit exits early; use the ready-made value `never`."""

    name = "never"
    answer = False


never = Never()
"""Full depth for all units."""


@register
@dataclass(frozen=True, repr=False)
class AnyOf:
    """Exit where at least one policy says so; write `any_of(...)`."""

    name: ClassVar[str] = "any_of"
    policies: tuple[ExitPolicy, ...]

    def __post_init__(self) -> None:
        given: object = self.policies
        if not isinstance(given, tuple) or not given or not all(callable(policy) for policy in given):
            raise OptionError(
                f"any_of must have one or more exit policies, got {given!r}; "
                "write any_of(MaxProbability(0.9), Patience(2))"
            )

    def __call__(self, state: ExitState) -> BoolArray:
        return np.asarray(np.logical_or.reduce([decide(policy, state) for policy in self.policies]))

    def check(self, model: ModelInfo) -> None:
        """Whether every policy inside fits."""
        for policy in self.policies:
            check(policy, model)

    def __repr__(self) -> str:
        return f"any_of({', '.join(map(repr, self.policies))})"


def any_of(*policies: ExitPolicy) -> AnyOf:
    """Exit where at least one of these policies says so."""
    return AnyOf(policies)

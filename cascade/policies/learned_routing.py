"""A router that was taught where tier 2 helps, instead of trusting tier 1's largest probability.

Confidence alone fails where tier 2 is right on some kinds of text only: an unsure unit that tier 2 gets wrong too does
not pay. Post-hoc deferral (Jitkrittum et al., NeurIPS 2023) asks a small model on tier 1's answer how likely
tier 2 is to mend it. The model is a logistic one with a handful of weights, which stand in the manifest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cascade.core.checks import check_share, is_real
from cascade.core.confidence import certainty, evidence, margin, sigmoid
from cascade.core.rows import BoolArray, Doubles, FloatArray
from cascade.exceptions import OptionError
from cascade.policies.registry import ModelInfo, needs_labels
from cascade.policies.routing import REGRESSION, RoutingState, register

_LEAST = np.float32(1e-6)
_OTHERS = 3  # certainty, margin, length

Columns = list[Doubles]


def features(state: RoutingState, *, top: int) -> Columns:
    """What the model sees of each unit: `top` columns of probabilities, then certainty, margin and length.

    The largest probabilities, in order, as logarithms; the first as log-odds. With yes/no labels those of max(p, 1 - p)
    that are smallest, as log-odds. Length: logarithm of the number of tokens. `top`: at most as many as there are
    labels. Each column has shape `(units,)`.
    """
    values = state.probabilities
    with np.errstate(invalid="ignore"):  # NaN stays NaN
        if state.multi_label or values.shape[1] == 1:
            ordered = np.sort(np.maximum(values, 1 - values), axis=1)[:, :top]
            columns = [_log_odds(ordered[:, place]) for place in range(top)]
        else:
            ordered = np.sort(values, axis=1)[:, ::-1][:, :top]
            columns = [_log_odds(ordered[:, 0])]
            columns += [np.log(np.maximum(ordered[:, place], _LEAST)) for place in range(1, top)]
        columns += [measure(values, multi_label=state.multi_label) for measure in (certainty, margin)]
    columns.append(np.log(np.maximum(state.lengths, 1)))
    return [column.astype(np.float64) for column in columns]


@register
@dataclass(frozen=True, repr=False)
class Learned:
    """Defer the units that tier 2 is likely enough to mend. Each is decided by itself.

    Attributes:
        threshold: in [0, 1]; deferred are units of which 1 - P(tier 2 helps) is below it. 0 defers no unit.
        weights: of `features`, all but the last three being of probabilities.
        bias: what they are added to. The sum is the log-odds that tier 2 helps.
    """

    threshold: float
    weights: tuple[float, ...]
    bias: float

    def __post_init__(self) -> None:
        remedy = "0.95 defers where tier 2 helps more than one row in twenty"
        object.__setattr__(self, "threshold", check_share("threshold", self.threshold, remedy))
        given: object = self.weights
        if not isinstance(given, tuple | list) or len(given) <= _OTHERS or not all(map(_finite, (*given, self.bias))):
            raise OptionError(
                f"weights and bias must be finite numbers, at least {_OTHERS + 1} weights, got {self.weights!r} and "
                f"{self.bias!r}; let cascade.calibration.helping find them"
            )
        object.__setattr__(self, "weights", tuple(map(float, given)))
        object.__setattr__(self, "bias", float(self.bias))

    def __call__(self, state: RoutingState) -> BoolArray:
        kept: BoolArray = self.score(state) >= self.threshold
        return ~kept

    def score(self, state: RoutingState) -> FloatArray:
        """What `threshold` is compared with: 1 - P(tier 2 helps), in [0, 1]; NaN stays. Shape `(units,)`.

        Fewer labels than weights for probabilities are an `OptionError`.
        """
        top = self._top(state.probabilities.shape[1])
        columns = features(state, top=top)
        # Column by column and not as a matrix product, whose order of summation depends on the number of rows.
        odds = np.full(len(state.probabilities), self.bias)
        for weight, column in zip(self.weights, columns, strict=True):
            odds += weight * column
        return sigmoid(-odds).astype(np.float32)

    def at(self, threshold: float) -> Learned:
        """The same weights with this threshold."""
        return replace(self, threshold=threshold)

    def check(self, model: ModelInfo) -> None:
        """Whether the model has labels for all weights."""
        needs_labels(self, model, REGRESSION)
        self._top(len(model.labels))

    def _top(self, labels: int) -> int:
        top = len(self.weights) - _OTHERS
        if top > labels:
            raise OptionError(
                f"Learned must have at most {labels + _OTHERS} weights for {labels} labels, got {len(self.weights)}; "
                "take a router that was learned for this model"
            )
        return top

    def __repr__(self) -> str:
        return f"Learned({self.threshold}, {len(self.weights)} weights)"


def _log_odds(values: FloatArray) -> FloatArray:
    return evidence(values, weight=1.0, multi_label=True)


def _finite(value: Any) -> bool:
    return is_real(value) and math.isfinite(value)

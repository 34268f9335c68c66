"""An exit policy whose threshold is an accuracy: leave where answers this sure have been right often enough.

The same confidence promises another accuracy at every exit. Each exit has a map from confidence to the accuracy that
was seen on held-out examples, and one threshold means the same for all (PCEE: arXiv 2412.19325). It leaves to others:
making the maps (`certification.isotonic`), promises for unseen texts (`certification`): accuracy as seen is no bound.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from cascade.batch import BoolArray, FloatArray
from cascade.checks import check_share
from cascade.confidence import max_probability
from cascade.exceptions import OptionError
from cascade.exit_policy import ExitState, shipped

__all__ = ["Accuracy", "Step", "StepMap", "least_confidence"]

Step: TypeAlias = tuple[float, float]
"""The least confidence for which it holds, and the accuracy."""

StepMap: TypeAlias = tuple[Step, ...]
"""An accuracy for each confidence: that of the last step that begins at it or below. Rising in both."""


def least_confidence(steps: StepMap, accuracy: float) -> float:
    """The least confidence that a map gives this accuracy; infinite where it reaches it nowhere."""
    return next((confidence for confidence, reached in steps if reached >= accuracy), math.inf)


@shipped
@dataclass(frozen=True)
class Accuracy:
    """Leave where the accuracy of answers as sure as this one was at least `threshold` (PCEE).

    Sure is the largest probability; with several labels at once each label's max(p, 1 - p), the least of them.

    Attributes:
        threshold: an accuracy, in [0, 1].
        maps: one for each exit, in order; the last exit's may be left out.
    """

    threshold: float
    maps: tuple[StepMap, ...]
    confidences: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        remedy = "0.95 leaves where 95 of 100 such answers were right"
        object.__setattr__(self, "threshold", check_share("threshold", self.threshold, remedy))
        given: object = self.maps
        if not isinstance(given, tuple | list):
            raise OptionError(f"maps must be a tuple with one map per exit, was: {given!r}; see Accuracy")
        object.__setattr__(self, "maps", tuple(map(_checked, given)))
        least = tuple(least_confidence(steps, self.threshold) for steps in self.maps)
        object.__setattr__(self, "confidences", least)

    def __call__(self, state: ExitState) -> BoolArray:
        """Mask of shape `(rows,)`, True = leave."""
        return max_probability(state.probabilities, multi_label=state.multi_label) >= self.confidences[state.exit]

    def score(self, exit_: int, probabilities: FloatArray, *, multi_label: bool = False) -> npt.NDArray[np.float64]:
        """The accuracy that `threshold` is compared with.

        Args:
            exit_: number of the exit, counted from 0.
            probabilities: of the head there. Shape `(rows, labels)`.
            multi_label: the labels are independent yes/no decisions.

        Returns:
            In [0, 1]; -1 where the map does not reach so far down, or where a probability is NaN. Shape `(rows,)`.
        """
        begins, accuracy = np.array(self.maps[exit_]).T
        sure = max_probability(probabilities, multi_label=multi_label)
        place = np.searchsorted(begins.astype(np.float32), np.where(np.isnan(sure), np.float32(-1), sure), side="right")
        reached: npt.NDArray[np.float64] = np.append(-1.0, accuracy)[place]
        return reached

    def at(self, threshold: float) -> Accuracy:
        """The same maps with this threshold."""
        return replace(self, threshold=threshold)

    def check(self, layers: Sequence[int]) -> None:
        """Whether there is one map per exit."""
        if len(self.maps) not in (len(layers), len(layers) - 1):
            raise OptionError(
                f"Accuracy must have a map for each of the {len(layers)} exits (the last may be left out), were: "
                f"{len(self.maps)}; make them from this model's answers"
            )

    @property
    def levels(self) -> tuple[float, ...]:
        """The accuracies that any map knows, rising: thresholds between two of them decide as the higher one."""
        return tuple(sorted({accuracy for steps in self.maps for _, accuracy in steps}))

    def __repr__(self) -> str:
        return f"Accuracy({self.threshold}, maps of {len(self.maps)} exits)"


def _checked(steps: object) -> StepMap:
    given = list(steps) if isinstance(steps, tuple | list) else []
    pairs = [tuple(step) for step in given if isinstance(step, tuple | list) and len(step) == 2]
    if given and len(pairs) == len(given) and all(map(_share, itertools.chain(*pairs))):
        found = tuple((float(confidence), float(accuracy)) for confidence, accuracy in pairs)
        if all(low[0] < high[0] and low[1] <= high[1] for low, high in itertools.pairwise(found)):
            return found
    raise OptionError(
        f"a map must be pairs of a confidence and an accuracy, both in [0, 1] and rising, was: {steps!r}; see Accuracy"
    )


def _share(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real) and 0 <= float(value) <= 1

"""What a tier is, what it says, and tiers that are any function."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np

from cascade.core.checks import check_whole, is_number
from cascade.core.confidence import evidence, max_probability, probabilities
from cascade.core.rows import BoolArray, FloatArray, IntArray, Units, ranges
from cascade.engine.inputs import Inputs
from cascade.exceptions import CascadeWarning, OptionError, printable

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
        tier: number of the tier inside that answered, from 1; 0 where none did. Shape `(units,)`.
        exit_layer: number of the layer after which a unit exited, counted from 1; 0 in a tier without exits. Shape
            `(units,)`.
        failed: number of the last tier that was asked about a unit and could not answer; 0 where all could. Shape
            `(units,)`.
    """

    probabilities: FloatArray
    confidence: FloatArray
    tier: IntArray
    exit_layer: IntArray
    failed: IntArray

    @classmethod
    def of(cls, probabilities: FloatArray, exit_layer: IntArray | None = None, *, multi_label: bool = False) -> Scores:
        """Those of a single tier; without exits if `exit_layer` is left out."""
        count = len(probabilities)
        layers = np.zeros(count, dtype=np.int64) if exit_layer is None else exit_layer
        sure = max_probability(probabilities, multi_label=multi_label)
        return cls(probabilities, sure, np.ones(count, dtype=np.int64), layers, np.zeros(count, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.tier)

    def __getitem__(self, units: slice | IntArray | BoolArray) -> Scores:
        return Scores(*(column[units] for column in vars(self).values()))

    def above(self, tiers: int) -> Scores:
        """The same, numbered above so many tiers."""
        tier, failed = (np.where(own > 0, own + tiers, 0) for own in (self.tier, self.failed))
        return replace(self, tier=tier, failed=failed)

    def over(self, before: Scores) -> Scores:
        """These; where no tier answered those of the tiers before, about the same units."""
        places = np.flatnonzero(self.tier == 0)
        made = {name: column.copy() for name, column in vars(self).items()} if len(places) else vars(self)
        for name, column in vars(before).items() if len(places) else ():
            made[name][places] = column[places]
        return Scores(**{**made, "failed": np.maximum(self.failed, before.failed)})


class Tier(Protocol):
    """Any model that scores units, or a cascade of them."""

    @property
    def labels(self) -> int:
        """How many labels there are."""

    @property
    def leaves(self) -> tuple[Tier, ...]:
        """The single tiers inside, first to last."""

    def score(self, inputs: Inputs, *, progress: Progress | None = None) -> Scores:
        """Scores with one entry per unit of `inputs`, which may be empty.

        `progress` is called with the number of targets that were just answered.
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

    Where it raises, takes too long, or returns an array of another shape or something other than probabilities, its
    items keep the answer of the tier before, `Route.failed` says so, and a `CascadeWarning` says why.

    Attributes:
        function: from a list of items to probabilities, one row per unit: per text, or per word, all words of the
            first sentence, then those of the second, ... Shape `(units, labels)`. Texts or sentences without a unit
            that needs an answer are not given to it.
        price: what one item costs, in any unit; for reports.
        labels: how many.
        multi_label: the labels are independent yes/no decisions.
        at_once: items that it is given at most in one call, which fails or succeeds as a whole; `None`: all.
        timeout: seconds after which a call has failed, though it goes on in a thread of its own; `None`: none.
    """

    function: Callable[[list[Any]], Any]
    price: float
    labels: int
    multi_label: bool = False
    at_once: int | None = None
    timeout: float | None = None

    def __post_init__(self) -> None:
        if self.at_once is not None:
            check_whole("at_once", self.at_once, "None gives all items to one call")
        if self.timeout is not None and not (is_number(self.timeout) and self.timeout > 0):
            raise OptionError(f"timeout must be above 0 seconds, got {self.timeout!r}; None waits for any time")

    def score(self, inputs: Inputs, *, progress: Progress | None = None) -> Scores:
        """Scores of all units; see `Tier.score`.

        Inputs of rows only are an `OptionError`.
        """
        wanted = np.ones(inputs.n_units, dtype=np.bool_) if inputs.targets is None else inputs.targets
        items, offsets = inputs.items, inputs.offsets
        if len(items) != len(offsets) - 1:  # long texts, of several rows each
            offsets = np.arange(len(items) + 1, dtype=np.int64)
        asked = np.flatnonzero(np.add.reduceat(np.append(wanted, False), offsets[:-1]) * (np.diff(offsets) > 0))
        made = np.zeros((len(wanted), self.labels), dtype=np.float32)
        answered, faults = ~wanted, list[str]()
        size = self.at_once or max(len(asked), 1)
        for some in (asked[begin : begin + size] for begin in range(0, len(asked), size)):
            units = ranges(offsets[some], np.diff(offsets)[some])
            try:
                made[units] = self._ask([items[number] for number in some.tolist()], len(units))
            except Exception as error:  # noqa: BLE001  # of a function that is not ours
                faults.append(f"{type(error).__name__}: {error}")
                continue
            number = self.labels == 1 and not self.multi_label  # of a regression
            fine = (np.isfinite(made[units]) if number else (made[units] >= 0) & (made[units] <= 1)).all(axis=1)
            answered[units] = fine
            faults += [f"answers that are no {'numbers' if number else 'probabilities'}"] * (not fine.all())
        made[~answered] = 0
        if inputs.prior is not None:
            own = evidence(made, weight=1.0, multi_label=self.multi_label)
            made = probabilities(own, multi_label=self.multi_label, prior=inputs.prior)
        if progress is not None and len(asked):
            progress(int(wanted.sum()))
        scores = Scores.of(made, multi_label=self.multi_label)
        if not faults:
            return scores
        why, lost = printable(" ".join("; ".join(dict.fromkeys(faults)).split())), int((~answered).sum())
        warnings.warn(
            f"the function of a tier could not answer {lost} of {int(wanted.sum())} units, which keep the answer of "
            f"the tier before ({why})",
            CascadeWarning,
            stacklevel=2,
        )
        failed, sure = (~answered).astype(np.int64), np.where(answered, scores.confidence, np.float32(np.nan))
        return replace(scores, confidence=sure, tier=answered.astype(np.int64), failed=failed)

    def _ask(self, items: list[Any], units: int) -> FloatArray:
        found = np.asarray(self._called(items), dtype=np.float32)
        if found.shape != (units, self.labels):
            raise OptionError(
                f"a tier's function must return probabilities of shape ({units}, {self.labels}), "
                f"got shape {found.shape}; return one row per text, or per word of all sentences"
            )
        return found

    def _called(self, items: list[Any]) -> Any:
        if self.timeout is None:
            return self.function(items)
        box: list[Any] = []

        def call() -> None:
            try:
                box.append(self.function(items))
            except Exception as error:  # noqa: BLE001  # it is raised where it is waited for
                box.append(error)

        thread = threading.Thread(target=call, daemon=True)  # a call that never ends does not keep the process
        thread.start()
        thread.join(self.timeout)
        if not box:
            raise TimeoutError(f"no answer in {self.timeout:g} s")
        if isinstance(box[0], Exception):
            raise box[0]
        return box[0]


def as_inputs(given: Readable) -> Inputs:
    """Inputs of rows whose units are the caller's; inputs are returned as they are."""
    return Inputs.encoded(given) if isinstance(given, Units) else given

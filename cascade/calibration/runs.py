"""What settings of a cascade answer on examples, whoever answers: recorded texts or sentences that run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias, TypeVar

import numpy as np

from cascade.core.rows import BoolArray, IntArray
from cascade.policies.settings import Policies

S = TypeVar("S", bound="Sample")
Stages: TypeAlias = Callable[[str, int], AbstractContextManager[Any]]
"""Called with the name of a stage and how much there is of it; gives a function that is called with each part done."""


@dataclass(frozen=True, eq=False)
class Run:
    """What one setting answers.

    `answers`: of each text or word, in the form of `confidence.answers`, shape `(answers, columns)`; `tier`: number of
    the tier that answers each unit, from 1, and `layers`: after which it exited that tier, 0 in one without exits,
    shape `(units,)`; `seconds`: of all examples: of texts in the unit of the costs, of sentences measured.
    """

    answers: IntArray
    tier: IntArray
    layers: IntArray
    seconds: float

    @property
    def deferred(self) -> BoolArray:
        """Units that another tier than the first answers. Shape `(units,)`."""
        return np.asarray(self.tier > 1)

    def mean_layer(self, tier: int) -> float:
        """Of the units that the tier of this number answers; 0 where there are none, or no exits."""
        own = self.layers[self.tier == tier]
        return float(own.mean()) if len(own) else 0.0


class Sample(ABC):
    """Examples, on which settings can be asked. An example is what a claim counts: a text, or a whole sentence.

    `truth`: right answers, `None` where they are not known; `original`: those of the original model, shape `(answers,
    columns)`, which then stand in place of full depth's wherever settings are compared; `temperatures`: of every run.
    """

    truth: IntArray | None
    original: IntArray | None
    temperatures: Any

    @abstractmethod
    def __len__(self) -> int:
        """How many examples."""

    @property
    def labelled(self) -> bool:
        """Whether the right answers are known."""
        return self.truth is not None

    @cached_property
    def full(self) -> Run:
        """The last tier alone at full depth."""
        return self.run(self.at_full_depth)

    @property
    def reference(self) -> IntArray:
        """What every setting is compared with: answers of the original model, else of full depth."""
        return self.full.answers if self.original is None else self.original

    @cached_property
    def goal(self) -> IntArray:
        """The right answers, in the form of `Run.answers`; without labels those of `reference`."""
        if self.truth is None:
            return self.reference
        return self.truth[:, None] if self.truth.ndim == 1 else self.truth

    @property
    @abstractmethod
    def at_full_depth(self) -> Policies:
        """The last tier alone at full depth."""

    @abstractmethod
    def run(self, policies: Policies) -> Run:
        """What these policies answer."""

    @abstractmethod
    def cost(self, policies: Policies, run: Run) -> float:
        """Of these policies, which were run, relative to full depth, by costs per token."""

    @abstractmethod
    def timed(self, policies: Policies) -> tuple[float, float]:
        """Seconds per example of these policies and of full depth, predicted or measured."""

    @abstractmethod
    def events(self, mask: BoolArray) -> BoolArray:
        """Examples of which an answer is in a mask. Shape `(answers,)` to `(examples,)`."""

    @abstractmethod
    def classes(self, answers: IntArray) -> BoolArray:
        """Which examples have which label, as texts have. Shape `(answers, columns)` to `(labels, examples)`."""

    @abstractmethod
    def select(self: S, examples: IntArray) -> S:
        """These examples, numbered from 0 in this order; nothing runs. Shape `(chosen,)`."""


@contextmanager
def no_progress(_name: str, _total: int) -> Iterator[Callable[[int], object]]:
    """`Stages` that show nothing."""
    yield lambda _count: None

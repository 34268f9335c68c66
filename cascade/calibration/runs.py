"""What settings of a cascade of two tiers answer on examples, whoever answers: recorded texts or sentences that run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

from cascade.calibration.temperature import Temperatures
from cascade.core.rows import BoolArray, IntArray
from cascade.policies.decoding import Decoder
from cascade.policies.exits import ExitPolicy, never
from cascade.policies.routing import Router
from cascade.policies.settings import Policies
from cascade.policies.windows import WindowPolicy

S = TypeVar("S", bound="Sample")
Stages: TypeAlias = Callable[[str, int], AbstractContextManager[Any]]
"""Called with the name of a stage and how much there is of it; gives a function that is called with each part done."""


@dataclass(frozen=True, eq=False)
class Run:
    """What one setting answers.

    Attributes:
        answers: of each text or word, in the form of `confidence.answers`. Shape `(answers, columns)`.
        deferred: units that tier 2 answers. Shape `(units,)`.
        layers: after which each unit exited tier 2; 0 where tier 1 answers. Shape `(units,)`.
        seconds: of all examples: of texts in the unit of the costs, of sentences measured.
    """

    answers: IntArray
    deferred: BoolArray
    layers: IntArray
    seconds: float

    @property
    def mean_layer(self) -> float:
        """Of the deferred units; 0 where there are none."""
        return float(self.layers[self.deferred].mean()) if self.deferred.any() else 0.0


class Sample(Protocol):
    """Examples, on which settings can be asked. An example is what a claim counts: a text, or a whole sentence."""

    def __len__(self) -> int:
        """How many examples."""

    @property
    def labelled(self) -> bool:
        """Whether the right answers are known."""

    @property
    def temperatures(self) -> Temperatures:
        """That every run has."""

    @property
    def full(self) -> Run:
        """Tier 2 alone at full depth."""

    @property
    def reference(self) -> IntArray:
        """The answers that every setting is compared with: those of full depth, or of the original model."""

    @property
    def goal(self) -> IntArray:
        """The right answers, in the form of `Run.answers`; without labels those of `reference`."""

    def run(self, policies: Policies) -> Run:
        """What these policies answer."""

    def timed(self, policies: Policies) -> tuple[float, float]:
        """Seconds per example of these policies and of full depth."""

    def events(self, mask: BoolArray) -> BoolArray:
        """Examples of which an answer is in a mask. Shape `(answers,)` to `(examples,)`."""

    def classes(self, answers: IntArray) -> BoolArray:
        """Which examples have which label. Shape `(answers, columns)` to `(labels, examples)`."""

    def select(self: S, examples: IntArray) -> S:
        """These examples, in this order. Shape `(chosen,)`."""


def two_tiers(
    router: Router,
    exit_policy: ExitPolicy,
    *,
    temperatures: Temperatures,
    blend: float = 0.0,
    windows: WindowPolicy | None = None,
    decoding: Decoder | None = None,
) -> Policies:
    """The policies of a cascade whose first tier has no exits."""
    return Policies(
        routers=(router,),
        exits=(never, exit_policy),
        blend=(blend,),
        temperatures=temperatures,
        windows=windows,
        decoding=decoding,
    )


@contextmanager
def no_progress(_name: str, _total: int) -> Iterator[Callable[[int], object]]:
    """`Stages` that show nothing."""
    yield lambda _count: None

"""A regression: numbers in the place of labels, which leave where they have settled (PABEE, section 3.2).

There is no first tier, because nothing says how sure a number is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from cascade.calibration.certify.claims import FULL, Agreement, Unit
from cascade.calibration.certify.outcomes import Step
from cascade.calibration.costs import Costs, TierCosts
from cascade.calibration.observing import rows_of
from cascade.calibration.sentences import all_exits
from cascade.calibration.texts import TextAnswers
from cascade.core.rows import FloatArray, IntArray
from cascade.engine.inputs import Inputs
from cascade.policies.exits import ExitPolicy, Settled
from cascade.policies.settings import Policies
from cascade.training.build.exporting import Answered

SETTLED = np.linspace(0.05, 0.95, 19)  # quantiles of the moves from exit to exit


@dataclass(frozen=True, kw_only=True)
class Within(Agreement):
    """The number may be further than `within` from that of the original model in at most this share."""

    within: float

    def describe(self, unit: Unit = Unit.TEXT, than: str = FULL) -> str:
        """The claim in words. `than`: what is compared with."""
        share = f"at most {self.bound * 100:.4g} % of {unit.value}s"
        return f"the number differs from that of {than} by more than {self.within:g} for {share}"


@dataclass(frozen=True, eq=False)
class NumberAnswers(TextAnswers):
    """Numbers at every exit of a single tier; an answer is 1 where its number is too far from the original's.

    Attributes:
        wanted: numbers of the original. Shape `(items,)`.
        within: how far is not too far.
    """

    wanted: FloatArray = field(default_factory=lambda: np.empty(0, dtype=np.float32))
    within: float = 0.0

    @classmethod
    def of(cls, pipeline: Any, some: Answered) -> NumberAnswers:
        """Run the only tier of a pipeline on items, no row exiting early. Costs are counted in layers."""
        (tier,), inputs = pipeline.tiers, Inputs.of(some.items, pipeline.tokenizer)
        said = rows_of(tier, inputs, all_exits(tier, inputs))
        layers = np.diff(said.layers or (1,), prepend=0)
        return cls(
            tiers=(said,),
            lengths=inputs.lengths,
            truth=None,
            temperatures=pipeline.policies.temperatures,
            costs=Costs((TierCosts(tuple(layers.tolist())),)),
            original=np.zeros((len(some.items), 1), dtype=np.int64),
            wanted=some.logits[:, 0],
            within=some.tolerance,
        )

    def answered(self, found: FloatArray) -> IntArray:
        """Whether each number is too far from the original's."""
        far: IntArray = (np.abs(found[:, 0] - self.wanted) > self.within).astype(np.int64)[:, None]
        return far

    def select(self, examples: IntArray) -> NumberAnswers:
        """These items, in this order."""
        some: Any = super().select(examples)  # of this class
        return replace(some, wanted=self.wanted[examples])  # type: ignore[no-any-return]

    def policies(self, exit_policy: ExitPolicy) -> Policies:
        """Of the only tier."""
        return Policies(routers=(), exits=(exit_policy,), temperatures=self.temperatures)

    def path(self) -> tuple[Step, ...]:
        """`Settled` with ever larger `tau`, safest first."""
        moves, found = np.abs(np.diff(self.tiers[0].probabilities[..., 0], axis=1)), []
        taus = {float(f"{own:.3g}") for own in np.quantile(moves, SETTLED)} if moves.size else set[float]()
        for tau in sorted(taus - {0.0}):
            run = self.run(policies := self.policies(Settled(tau)))
            if (cost := run.seconds / self.full.seconds) < 1:
                found.append(Step(policies, float(run.answers.mean()), cost, deferred=1.0))
        return tuple(found)

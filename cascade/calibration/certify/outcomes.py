"""What comes of a calibration, as values: something certified, or a refusal."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from cascade.calibration.certify.claims import Claim
from cascade.calibration.certify.events import Figures
from cascade.calibration.runs import Run
from cascade.calibration.temperature import Temperatures
from cascade.core.rows import IntArray
from cascade.exceptions import CertificateWarning
from cascade.policies.settings import Policies

Own = TypeVar("Own", bound="Outcome")


@dataclass(frozen=True)
class Step:
    """A setting of the path, and what it seemed to do on the choosing share.

    `risk`: guessed rate of what is bounded; `cost`: relative to tier 2 at full depth without tier 1; `deferred`: share.
    """

    policies: Policies
    risk: float
    cost: float
    deferred: float


@dataclass(frozen=True)
class Tested:
    """A setting of the path that was tested: `events` of `examples` (of the worst class) count against it.

    `p_value`: of "the bound does not hold"; `upper`: one-sided upper limit of the rate for a setting that was fixed
    beforehand; of a selected one an estimate.
    """

    step: Step
    events: int
    examples: int
    p_value: float
    upper: float

    @property
    def rate(self) -> float:
        """Of the events; 0 of no examples."""
        return self.events / max(self.examples, 1)


@dataclass(frozen=True, eq=False, kw_only=True)
class Outcome:
    """What both outcomes say: what was asked, how it was tested, in words, and the path with the temperatures of all.

    `tested`: of its first steps; all but perhaps the last passed; `chosen_on`, `tested_on`: numbers of the examples of
    either share, drawn by the `seed`; `warnings`: what makes the guarantee doubtful, sentences without a full stop.
    """

    claim: Claim
    method: str
    steps: tuple[Step, ...]
    tested: tuple[Tested, ...]
    chosen_on: IntArray
    tested_on: IntArray
    temperatures: Temperatures
    seed: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class Certified(Outcome):
    """Something was certified: the step of this `number`, with its figures.

    `disagreement_upper`: limit of its disagreement with full depth, valid for all settings of the path at once; `run`:
    its answers on the testing share; `classes`: events and examples of each class, where these count separately.
    """

    number: int
    figures: Figures
    disagreement_upper: float
    run: Run = field(repr=False)
    classes: tuple[tuple[int, int], ...] = ()

    @property
    def policies(self) -> Policies:
        """Of the step that is taken."""
        return self.steps[self.number].policies

    @property
    def taken(self) -> Tested:
        """Its test."""
        return self.tested[self.number]


@dataclass(frozen=True, eq=False, kw_only=True)
class Refused(Outcome):
    """Nothing was certified. `why`: a sentence without a full stop.

    `examples_needed`: in all, the choosing share too, as far as these can tell; `None` where no number would do.
    """

    why: str
    examples_needed: int | None


def told(found: Own, numbers: IntArray, said: Sequence[str] = ()) -> Own:
    """An outcome whose examples are numbered as the caller gave them, with more warnings; all of these are given.

    `numbers`: of the examples that were tried, among those given. Shape `(examples,)`.
    """
    own = (*found.warnings, *said)
    for one in own:
        warnings.warn(one, CertificateWarning, stacklevel=3)  # where a calibration was called
    return replace(found, chosen_on=numbers[found.chosen_on], tested_on=numbers[found.tested_on], warnings=own)

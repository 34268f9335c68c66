"""What counts against a setting, on texts and on sentences alike, and what a setting does in figures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cascade.calibration.certify.bounds import p_value
from cascade.calibration.certify.claims import Claim, MaxDrop, RiskTarget
from cascade.calibration.runs import Run, Sample
from cascade.core.rows import BoolArray, IntArray


@dataclass(frozen=True)
class Figures:
    """What a setting does on the testing share of so many examples, and what it is compared with (`full_...`) does.

    Rates of a tagger are of whole sentences; `accuracy` to `gains` are `None` without labels. `harms`: wrong where full
    depth is right, `gains` the other way round; `deferred`: share of the units that a tier after the first answers;
    `mean_layer`: of those that the last one answers, 0 of none; `answered`: share of the units by tier, and mean layer
    of these; seconds are per example, of texts predicted from costs per token, of sentences measured.
    """

    examples: int
    accuracy: float | None
    full_accuracy: float | None
    drop: float | None
    harms: int | None
    gains: int | None
    disagreements: int
    deferred: float
    mean_layer: float
    answered: tuple[tuple[float, float], ...]
    seconds: float
    full_seconds: float

    @property
    def speed_up(self) -> float:
        """Over the last tier at full depth."""
        return self.full_seconds / self.seconds if self.seconds else float("inf")


def differ(given: IntArray, other: IntArray) -> BoolArray:
    """Where two answers are not the same. Shape `(answers, columns)` both (`confidence.answers`), to `(answers,)`."""
    mask: BoolArray = (given != other).any(axis=1)
    return mask


def lost(ask: RiskTarget, given: IntArray, full: IntArray, goal: IntArray) -> BoolArray:
    """Where an answer counts against what was asked. Shape `(answers, columns)` each, to `(answers,)`.

    `MaxDrop`: harm, the answer being wrong where full depth is right. `Agreement`: another answer than that of full
    depth. In place of full depth stands the original model where examples hold its answers.
    """
    if not isinstance(ask, MaxDrop):
        return differ(given, full)
    return differ(given, goal) & ~differ(full, goal)


def by_class(claim: Claim, sample: Sample, run: Run) -> tuple[IntArray, IntArray]:
    """Events and examples of each class that has to pass; one class of all where they count together."""
    events = sample.events(lost(claim.ask, run.answers, sample.reference, sample.goal))
    if claim.ask.per_class:
        groups = sample.classes(sample.goal if isinstance(claim.ask, MaxDrop) else sample.reference)
    else:
        groups = np.ones((1, len(sample)), dtype=np.bool_)
    return (groups & events).sum(axis=1), groups.sum(axis=1)


def count(claim: Claim, sample: Sample, run: Run) -> tuple[int, int, float]:
    """Events, examples and the p-value of "the rate is the bound or more".

    All classes must keep the bound, so the largest p-value counts for all; events and examples are of its class.
    """
    events, sizes = by_class(claim, sample, run)
    p_values = p_value(events, sizes, claim.ask.bound)
    worst = int(p_values.argmax())
    return int(events[worst]), int(sizes[worst]), float(p_values[worst])


def figures_of(sample: Sample, run: Run, seconds: tuple[float, float]) -> Figures:
    """What a setting does. `seconds`: per example, of the setting and of full depth."""
    n, tiers = len(sample), len(sample.at_full_depth.exits)

    def total(mask: BoolArray) -> int:
        return int(sample.events(mask).sum())

    accuracy = full_accuracy = drop = harms = gains = None
    if sample.labelled:
        right, full_right = ~differ(run.answers, sample.goal), ~differ(sample.reference, sample.goal)
        harms, gains = total(full_right & ~right), total(right & ~full_right)
        accuracy, full_accuracy = 1 - total(~right) / n, 1 - total(~full_right) / n
        drop = full_accuracy - accuracy
    return Figures(
        examples=n,
        accuracy=accuracy,
        full_accuracy=full_accuracy,
        drop=drop,
        harms=harms,
        gains=gains,
        disagreements=total(differ(run.answers, sample.full.answers)),
        deferred=float(run.deferred.mean()),
        mean_layer=run.mean_layer(tiers),
        answered=tuple((float((run.tier == tier).mean()), run.mean_layer(tier)) for tier in range(1, tiers + 1)),
        seconds=seconds[0],
        full_seconds=seconds[1],
    )

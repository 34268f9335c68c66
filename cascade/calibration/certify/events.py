"""What counts against a setting, on texts and on sentences alike, what a setting does in figures, and doubts.

A guarantee is doubtful for what its examples lack, or where they are of another task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cascade.calibration.certify.bounds import p_value
from cascade.calibration.certify.claims import Claim, MaxDrop, RiskTarget, Unit
from cascade.calibration.runs import Run, Sample
from cascade.core.labels import listed
from cascade.core.rounding import percent
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
    return np.asarray((given != other).any(axis=1))


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


NEAR_CHANCE = 0.1  # of the way from chance to always right
UNKNOWN = 0.05  # of the tokens; texts in the language of a tokenizer have a tenth of it


def doubts(claim: Claim, sample: Sample, labels: Sequence[str] = ()) -> tuple[str, ...]:
    """Labels without an example, one class only, and a model that is hardly right more often than by chance.

    `labels`: names; without them nothing is said of classes.
    """
    goal = sample.goal
    several = goal.shape[1] == len(labels)  # yes or no for each
    counts = goal.sum(axis=0) if several else np.bincount(goal[:, 0], minlength=len(labels))
    missing = [label for label, count in zip(labels, counts.tolist(), strict=False) if not count]
    if missing and len(labels) == len(missing) + 1 and not several:
        only, one = labels[int(counts.argmax())], "word" if claim.unit is Unit.SENTENCE else "text"
        who = f"every {one} is" if sample.labelled else f"{claim.than} calls every {one}"
        return (f"{who} {only}: nothing was tested of {listed(missing)}",)
    if not sample.labelled:
        return ()
    told = [f"there is no example of {listed(missing)}: nothing was tested of it"] * bool(missing)
    right, chance = alike(sample.reference, goal)
    if right - chance < NEAR_CHANCE * (1 - chance):
        told.append(
            f"{claim.than} is right on {percent(right)}, answers that look at nothing would be on {percent(chance)}: "
            "the labels are wrong or of another task, so a bound on what is lost says little"
        )
    return tuple(told)


def unknown_pieces(ids: IntArray, unknown: int) -> tuple[str, ...]:
    """A warning where tokens are often the one for what the tokenizer has no pieces for; 0 says that there is none."""
    part = float((ids == unknown).mean()) if unknown and len(ids) else 0.0
    told = f"{percent(part)} of all tokens are unknown to the tokenizer: these examples are unlike the texts it knows"
    return (told,) * (part > UNKNOWN)


def alike(answers: IntArray, goal: IntArray) -> tuple[float, float]:
    """How many are the same, and how many would be if neither knew of the other (kappa's chance; Cohen 1960).

    Shape `(answers, columns)` both; the mean over columns.
    """
    chance = sum((answers == value).mean(axis=0) * (goal == value).mean(axis=0) for value in np.unique(goal).tolist())
    return float((answers == goal).mean()), float(np.mean(chance))

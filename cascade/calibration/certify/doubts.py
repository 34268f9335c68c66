"""What makes a guarantee doubtful that holds for its examples: what they lack, or that they are of another task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cascade.calibration.certify.claims import Claim, Unit
from cascade.calibration.runs import Sample
from cascade.core.labels import listed
from cascade.core.rounding import percent
from cascade.core.rows import IntArray

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

"""Why nothing can be certified, and how many examples it would take."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cascade.calibration.certify.bounds import examples_needed
from cascade.calibration.certify.claims import Claim, MaxDrop
from cascade.calibration.certify.outcomes import Tested
from cascade.calibration.certify.split import Split
from cascade.calibration.runs import Sample
from cascade.core.rounding import percent, percent_up

__all__ = ["infeasible_reason", "refusal"]

SHOWN = 8  # classes in a message


def infeasible_reason(
    claim: Claim, tester: Sample, split: Split, labels: Sequence[str]
) -> tuple[str, int | None] | None:
    """Why not even a setting without a single event could pass, and how many examples that would take."""
    ask, unit = claim.ask, claim.unit.value
    least = examples_needed(ask.bound, confidence=claim.confidence)
    if not ask.per_class:
        if len(tester) >= least:
            return None
        why = f"{len(tester)} {unit}s are left to test with, and even without a single event it takes {least}"
        return why, split.in_all(least)
    sizes = tester.classes(tester.goal if isinstance(ask, MaxDrop) else tester.full.answers).sum(axis=1)
    few = np.flatnonzero(sizes < least)
    if not len(few):
        return None
    named = [f"{repr(labels[n]) if n < len(labels) else f'class {n}'} ({sizes[n]})" for n in few.tolist()]
    listed = ", ".join(named[:SHOWN]) + (f" and {len(named) - SHOWN} more" if named[SHOWN:] else "")
    why = f"{least} {unit}s of every class are needed to test with, fewer are left of {listed}"
    # The rarest class decides; of a class that is not there nothing can be told.
    return why, split.in_all(least * len(tester) / int(sizes.min())) if sizes.min() else None


def refusal(claim: Claim, tested: Sequence[Tested], testers: int, split: Split) -> tuple[str, int | None]:
    """Why the first setting of the path did not pass, and how many examples would do for it."""
    if not tested:
        return "nothing that was tried is both cheaper than tier 2 at full depth and likely to keep the bound", None
    first = tested[0]
    of = f"{claim.unit.value}s of the worst class" if claim.ask.per_class else f"{claim.unit.value}s"
    seen = (
        f"the safest setting of the path has {first.events} events among {first.examples} {of} "
        f"({percent(first.rate)}, upper limit {percent_up(first.upper)})"
    )
    if first.rate >= claim.ask.bound:
        return f"{seen}, which is no less than the bound", None
    least = examples_needed(claim.ask.bound, confidence=claim.confidence, rate=first.rate)
    return f"{seen}, too many to be sure of the bound", split.in_all(least * testers / first.examples)

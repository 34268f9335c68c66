"""The testing share of the examples: what a setting does on it, whether that passes, what to say where nothing does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cascade.calibration import bounds
from cascade.calibration.answers import Answers
from cascade.calibration.claims import Agreement, Claim, MaxDeferred, MaxDrop, MeanCost
from cascade.calibration.examples import Costs
from cascade.calibration.losses import differ, lost
from cascade.calibration.means import Mean
from cascade.calibration.outcomes import Figures, Tested
from cascade.calibration.paths import Step
from cascade.calibration.replay import Replayed, Setting, replay
from cascade.core.rows import BoolArray, IntArray

__all__ = ["Share"]

SHOWN = 8  # classes in a message


@dataclass(frozen=True, eq=False)
class Share:
    """The testing share, and what is counted on it. Make it with `share_of` or `Share.of`.

    Attributes:
        groups: documents of each class that has to pass by itself; `None`: all together. Shape `(classes, documents)`.
        most: seconds of a document, above which they count as that many (`MeanCost`).
    """

    answers: Answers
    costs: Costs
    claim: Claim
    full: IntArray
    goal: IntArray
    groups: BoolArray | None
    most: float = field(default=math.inf)

    @classmethod
    def of(cls, answers: Answers, costs: Costs, claim: Claim, *, chooser: Answers) -> Share:
        """Of the answers of either share, with the temperatures of the path."""
        full, goal = answers.full(), answers.goal()
        groups = None
        if isinstance(claim.ask, MaxDrop | Agreement) and claim.ask.per_class:
            of = goal if isinstance(claim.ask, MaxDrop) else full
            several = np.arange(answers.tier2.shape[-1])
            groups = of.T.astype(np.bool_) if answers.binary else of[:, 0] == several[:, None]
        lengths = np.bincount(chooser.documents, weights=chooser.lengths)
        return cls(answers, costs, claim, full, goal, groups, 2 * float(lengths.max()) * (costs.full + costs.tier1))

    @property
    def method(self) -> str:
        """In words."""
        ask = self.claim.ask
        if isinstance(ask, MeanCost):
            how = "a betting test of a bounded mean (Waudby-Smith and Ramdas)"
        else:
            how = "an exact binomial test"
        classes = " of every class" if self.groups is not None else ""
        return f"fixed-sequence testing along a path chosen on other examples, by {how}{classes}"

    def of_step(self, step: Step) -> Tested:
        """Test a setting."""
        ask, confidence = self.claim.ask, self.claim.confidence
        ran = replay(self.answers, step.setting, self.costs)
        if isinstance(ask, MeanCost):
            mean = Mean(np.minimum(ran.seconds, self.most), most=self.most, level=self.claim.level)
            above = int((ran.seconds > ask.seconds).sum())
            return Tested(step, above, mean.mean, len(ran.seconds), mean.p_value(ask.seconds), mean.upper())
        event = self._event(ran)
        if self.groups is None:
            events, examples = int(event.sum()), len(event)
            p_value = float(bounds.p_value(events, examples, ask.bound))
        else:
            found, sizes = (self.groups & event).sum(axis=1), self.groups.sum(axis=1)
            p_values = bounds.p_value(found, sizes, ask.bound)
            worst = int(p_values.argmax())
            events, examples, p_value = int(found[worst]), int(sizes[worst]), float(p_values[worst])
        upper = bounds.upper_bound(events, examples, confidence=confidence)
        return Tested(step, events, events / max(examples, 1), examples, p_value, upper)

    def by_class(self, setting: Setting) -> tuple[IntArray, IntArray]:
        """Events and documents of each class; of none where classes do not count by themselves."""
        if self.groups is None:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        event = self._event(replay(self.answers, setting, self.costs))
        return (self.groups & event).sum(axis=1), self.groups.sum(axis=1)

    def hopeless(self, labels: Sequence[str], scale: float) -> tuple[str, int] | None:
        """Why not even a setting without a single event could pass, and how many examples that would take."""
        ask = self.claim.ask
        if isinstance(ask, MeanCost):
            return None
        least = bounds.examples_needed(ask.bound, confidence=self.claim.confidence)
        sizes = np.array([len(self.answers)]) if self.groups is None else self.groups.sum(axis=1)
        few = np.flatnonzero(sizes < least)
        if not len(few):
            return None
        if self.groups is None:
            why = f"{sizes[0]} examples are left to test with, and even without a single event it takes {least}"
            return why, math.ceil(least * scale)
        named = [f"{_name(labels, int(number))} ({sizes[number]})" for number in few]
        listed = ", ".join(named[:SHOWN]) + (f" and {len(named) - SHOWN} more" if named[SHOWN:] else "")
        why = f"{least} examples of every class are needed to test with, fewer are left of {listed}"
        # What is missing most of in proportion decides; of a class that is not there nothing can be told.
        share = max(float(sizes.min()), 1.0) / float(sizes.sum())
        return why, math.ceil(least * scale / share)

    def refusal(self, tested: Sequence[Tested], labels: Sequence[str], scale: float) -> tuple[str, int | None]:
        """Why the first setting of the path did not pass."""
        ask = self.claim.ask
        if not tested:
            return "nothing that was tried is both cheaper than tier 2 at full depth and likely to keep the bound", None
        first = tested[0]
        if isinstance(ask, MeanCost):
            if first.rate >= ask.seconds:
                return f"even the cheapest setting costs {first.rate * 1000:.3g} ms on average", None
            why = f"the cheapest setting costs {first.rate * 1000:.3g} ms on average, which is too near to tell"
            spare = (math.log(1 / self.claim.level) / -math.log(max(first.p_value, 1e-12))) if first.p_value < 1 else 0
            return why, math.ceil(len(self.answers) * scale * spare) if spare else None
        what = "events" if self.groups is None else "events in the worst class"
        seen = f"the safest setting of the path has {first.events} {what} among {first.examples} examples"
        if first.rate >= ask.bound:
            return f"{seen}, which is no less than the bound", None
        least = bounds.examples_needed(ask.bound, confidence=self.claim.confidence, rate=first.rate)
        share = first.examples / len(self.answers)
        return f"{seen}, too many to be sure of the bound", math.ceil(least * scale / share)

    def warnings(self) -> tuple[str, ...]:
        """About this share."""
        if not isinstance(self.claim.ask, MeanCost):
            return ()
        lengths = np.bincount(self.answers.documents, weights=self.answers.lengths)
        long = int((lengths * (self.costs.full + self.costs.tier1) > self.most).sum())
        most = self.most / (self.costs.full + self.costs.tier1)
        return (
            f"a text of more than {most:.0f} tokens counts as one of so many ({long} of {len(lengths)} were longer)",
        )

    def figures(self, setting: Setting) -> Figures:
        """What a setting does."""
        ran = replay(self.answers, setting, self.costs)
        layers = np.asarray(self.answers.layers)[ran.exits[ran.deferred]]
        lengths = np.bincount(self.answers.documents, weights=self.answers.lengths)
        n, accuracy, full_accuracy, drop, harms, gains = len(self.answers), None, None, None, None, None
        if self.answers.truth is not None:
            right, full_right = ~differ(ran.answers, self.goal), ~differ(self.full, self.goal)
            accuracy, full_accuracy = float(right.mean()), float(full_right.mean())
            harms, gains = int((full_right & ~right).sum()), int((right & ~full_right).sum())
            drop = (harms - gains) / n
        return Figures(
            examples=n,
            accuracy=accuracy,
            full_accuracy=full_accuracy,
            drop=drop,
            harms=harms,
            gains=gains,
            disagreements=int(differ(ran.answers, self.full).sum()),
            deferred=float(ran.deferred.mean()),
            mean_exit=float(layers.mean()) if len(layers) else 0.0,
            seconds=float(ran.seconds.mean()),
            full_seconds=float(lengths.mean()) * self.costs.full,
        )

    def _event(self, ran: Replayed) -> BoolArray:
        """Documents that count against a setting; of deferral those of which a window is deferred."""
        if isinstance(self.claim.ask, MaxDeferred):
            return np.bincount(self.answers.documents, weights=ran.deferred) > 0
        return lost(self.claim.ask, ran.answers, self.full, self.goal)


def _name(labels: Sequence[str], number: int) -> str:
    return repr(labels[number]) if number < len(labels) else f"class {number}"

"""All exits of some tiers as one chain of decision points, which an item goes along until it is sure enough.

A router and an exit policy come in as `Tunable` policies: their score says how sure they are, `at` makes the policy
with a threshold. An item of several rows leaves an exit with the least sure of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from cascade.calibration.texts import TextAnswers, means, state_at
from cascade.core.confidence import answers as answers_of
from cascade.core.confidence import evidence
from cascade.core.rows import BoolArray, Doubles, FloatArray, IntArray
from cascade.policies.exits import ExitPolicy, MaxProbability, never
from cascade.policies.registry import Tunable, tunable
from cascade.policies.routing import Router, Threshold, defer_all
from cascade.policies.settings import Policies

ROUTER: Tunable = Threshold(0.5)
EXIT: Tunable = MaxProbability(0.5)


@dataclass(frozen=True, eq=False)
class Chain:
    """Decision points of some tiers, in the order in which they are reached. Make it with `Chain.of` or `chains`.

    Attributes:
        answers: what the tiers say.
        asked: numbers of the tiers, from 0, rising; the last tier among them.
        blend: how much the answer of a tier counts beside those of the next one that is asked.
        like: policies whose kinds of router and exit policy these are.
        sure: score of each item at each point. Shape `(items, points)`.
        given: what each point answers, in the form of `Run.answers`. Shape `(items, points, columns)`.
        paid: cost of all items that stop at each point, as a share of full depth for all. Shape `(items, points)`.
    """

    answers: TextAnswers
    asked: tuple[int, ...]
    blend: float
    like: Policies
    sure: FloatArray
    given: IntArray
    paid: Doubles

    @classmethod
    def of(
        cls, answers: TextAnswers, asked: Sequence[int], *, blend: float = 0.0, like: Policies | None = None
    ) -> Chain:
        """Ask all policies for their scores, those of full depth standing for the largest probability."""
        like, several, whole = like or answers.at_full_depth, answers.multi_label, answers.full.seconds
        scores, given, paid = [], [], list[Doubles]()
        spent, prior = answers.costs.always * answers.lengths, None
        for number in asked:
            tier, exit_policy = answers.tiers[number], tunable(like.exits[number], EXIT)
            both = answers.blended(tier.probabilities, None if prior is None else prior[tier.items])
            said = means(both, tier.items)
            layers, starts = tier.layers or (1,), np.flatnonzero(np.diff(tier.items, prepend=-1))
            for index in range(len(layers)):
                if index == len(layers) - 1 and number < len(answers.tiers) - 1:
                    own = tunable(like.routers[number], ROUTER).score(answers.routing_state(said[:, index]))
                else:
                    state = state_at(both, layers, index, multi_label=several, words=answers.words)
                    own = exit_policy.score(state)
                    own = np.minimum.reduceat(_number(own), starts)
                scores.append(_number(own))
                given.append(answers_of(said[:, index], multi_label=several))
            costs = answers.costs.tiers[number]
            paid.append(spent[:, None] + tier.tokens[:, None] * costs.upto * (costs.around if paid else 1.0))
            spent = paid[-1][:, -1]
            prior = evidence(said[:, -1], weight=blend, multi_label=several) if blend else None
        columns = np.stack(scores, axis=1), np.stack(given, axis=1), np.concatenate(paid, axis=1)
        return cls(answers, tuple(asked), blend, like, columns[0], columns[1], columns[2] * len(answers) / whole)

    def left(self, thresholds: Sequence[float] | Doubles) -> IntArray:
        """The point at which each item stops: the first whose score reaches its threshold, the last at the latest.

        `thresholds`: one for each point but the last. Shape `(items,)`.
        """
        stop: BoolArray = self.sure[:, :-1] >= np.asarray(thresholds, dtype=np.float32)
        return np.asarray(np.column_stack([stop, np.ones(len(stop), dtype=np.bool_)]).argmax(axis=1), dtype=np.int64)

    def possible(self, thresholds: Doubles) -> Doubles:
        """Thresholds at which what leaves a tier early is not deferred. Shape `(k, points - 1)` to the same."""
        found = thresholds.copy()
        for _, begin, end in self._tiers():
            if end < found.shape[1]:
                found[:, begin:end] = np.maximum(found[:, begin:end], found[:, end, None])
        return found

    def policies(self, thresholds: Sequence[float] | Doubles) -> Policies:
        """The policies with these thresholds, one for each point but the last."""
        answers, given = self.answers, [float(one) for one in thresholds]
        count = len(answers.tiers)
        routers: list[Router] = [defer_all] * (count - 1)
        exits: list[ExitPolicy] = [never] * count
        for number, begin, end in self._tiers():
            inner = given[begin:end]
            if number < count - 1:
                routers[number] = tunable(self.like.routers[number], ROUTER).at(given[end])
            if inner and (min(inner) < 1 or (self.sure[:, begin:end] >= 1).any()):
                exits[number] = tunable(self.like.exits[number], EXIT).at(tuple(inner))
        return Policies(
            routers=tuple(routers),
            exits=tuple(exits),
            blend=(self.blend,) * (count - 1),
            temperatures=answers.temperatures,
            reading=self.like.reading,
        )

    def _tiers(self) -> Iterator[tuple[int, int, int]]:
        """Number of each tier that is asked, and of its first and last point."""
        begin = 0
        for number in self.asked:
            end = begin + len(self.answers.tiers[number].layers or (1,)) - 1
            yield number, begin, end
            begin = end + 1


def chains(
    answers: TextAnswers, *, blends: Sequence[float] = (), like: Policies | Sequence[Policies] | None = None
) -> Iterator[Chain]:
    """Every choice of tiers that may be asked before the last one, with every blend: none of both comes first.

    `like`: see `Chain`; of several each in turn.
    """
    last = len(answers.tiers) - 1
    for some, own in product(product((False, True), repeat=last), like if isinstance(like, Sequence) else (like,)):
        asked = (*np.flatnonzero(some).tolist(), last)
        for blend in dict.fromkeys((0.0, *blends)) if len(asked) > 1 else (0.0,):
            yield Chain.of(answers, asked, blend=blend, like=own)


def _number(sure: FloatArray) -> FloatArray:
    # NaN compares as unsure in every policy; so does -1 here, and it can be sorted.
    return np.where(np.isnan(sure), np.float32(-1), sure)

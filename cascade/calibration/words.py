"""A tagger's exits replayed on frozen answers, and what each word's way through tier 2 costs.

A policy is asked about the probabilities that every exit gave while nobody left, so no model runs here. That is exact
where sentences leave whole; where words leave one by one it is near: those that stay would have seen the others in the
state they left in. Whoever chooses by it runs the chosen point (`word_choosing`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cascade.core.rows import BoolArray, FloatArray, IntArray, Units
from cascade.exceptions import OptionError
from cascade.policies import exits
from cascade.policies.exits import ExitPolicy
from cascade.policies.unit_exits import UnitState

__all__ = ["WordCosts", "leave"]

HALTED = 0.28  # of a layer's cost for an active token: measured in int8 and fp32 at 3 to 100 % active tokens

Table = npt.NDArray[np.float64]


def leave(policy: ExitPolicy, probabilities: FloatArray, words: Units, layers: Sequence[int]) -> IntArray:
    """At which exit each word would leave.

    Args:
        policy: any of `exits` and `unit_exits`, or a caller's own.
        probabilities: at every exit, as `WordMultiExit.all_exits` gives them. Shape `(words, exits, labels)`.
        words: the words that these are.
        layers: number of the layer below each exit, counted from 1.

    Returns:
        Number of the exit, counted from 0. Shape `(words,)`.
    """
    last = len(layers) - 1
    taken = np.full(len(words), last, dtype=np.int64)
    rows, ids = words.row_of, words.first_ids
    inside = np.arange(len(words))
    for number in range(last):
        if not len(inside):
            break
        under_way = np.zeros(words.n_rows, dtype=np.bool_)
        under_way[rows[inside]] = True
        live = np.flatnonzero(under_way[rows])
        state = UnitState(
            exit_index=number,
            exit_layer=layers[number],
            last=False,
            probabilities=probabilities[inside, number],
            history=probabilities[inside, : number + 1],
            sentences=rows[live],
            places=np.searchsorted(live, inside),
            ids=ids[inside],
        )
        gone = exits.decide(policy, state)
        taken[inside[gone]] = number
        inside = inside[~gone]
    return taken


@dataclass(frozen=True)
class WordCosts:
    """What a token costs in each part of a tagger, in any one unit: seconds, or layers.

    Attributes:
        tier1: of tier 1, paid by every token unless the router is `defer_all`.
        active: in each stage, of a token that goes through it.
        live: in each stage, of a token that is in a sentence under way, whether or not it has left: keys, values and
            attention. Paid beside `active`.
        embed: of a token that tier 2 reads at all.
        always: of what everyone pays: tokenisation.
    """

    tier1: float
    active: tuple[float, ...]
    live: tuple[float, ...]
    embed: float = 0.0
    always: float = 0.0

    def __post_init__(self) -> None:
        values = (self.tier1, *self.active, *self.live, self.embed, self.always)
        fine = all(0 <= value < float("inf") for value in values) and sum(self.active) + sum(self.live) > 0
        if len(self.active) != len(self.live) or not fine:
            raise OptionError(
                "costs must be at least 0, finite, as many for active as for live tokens and above 0 for tier 2, were: "
                f"{self!r}; give seconds or layers"
            )

    @classmethod
    def by_layers(cls, layers: Sequence[int], *, tier1: float) -> WordCosts:
        """Every layer costs the same, more than a quarter of it for tokens that have left too.

        Layers are not time: prefer costs that were measured (`word_observing.observe_costs`).

        Args:
            layers: of the exits, counted from 1.
            tier1: as a share of tier 2 at full depth.
        """
        stages = np.diff(np.asarray([0, *layers], dtype=np.float64))
        halted = HALTED * stages
        return cls(tier1 * float(stages.sum()), tuple((stages - halted).tolist()), tuple(halted.tolist()))

    def full(self, words: Units) -> float:
        """Of all words at full depth, tier 1 not run."""
        deepest = np.full((1, len(words)), len(self.active) - 1)
        return self.always * words.rows.tokens + float(self.tier2(deepest, words)[0])

    def tier2(self, taken: IntArray, words: Units, targets: BoolArray | None = None) -> Table:
        """Of tier 2's way through these words.

        A sentence is under way until the last target in it has left, and its special tokens with it; words that are no
        targets leave then at the latest.

        Args:
            taken: number of the exit of each word, counted from 0, for several policies. Shape `(policies, words)`.
            words: what tier 2 reads: sentences or windows.
            targets: words that need an answer; all if left out. A sentence without any costs nothing. Shape
                `(words,)`.

        Returns:
            Shape `(policies,)`.
        """
        some = np.flatnonzero(words.counts)
        if not len(some):
            return np.zeros(len(taken))
        wanted = taken if targets is None else np.where(targets, taken, -1)
        deepest = np.maximum.reduceat(wanted, words.offsets[some], axis=1)
        left = np.minimum(taken, np.repeat(deepest, words.counts[some], axis=1))
        # Up to an exit, with a 0 for sentences that are not run at all, whose exit is -1.
        active, live = (np.concatenate((np.cumsum(part), [0.0])) for part in (self.active, self.live))
        tokens = words.rows.lengths[some].astype(np.float64)
        of_words = np.bincount(words.row_of, weights=words.n_tokens, minlength=words.n_rows)[some]
        special = active[deepest] @ (tokens - of_words)
        made: Table = active[left] @ words.n_tokens.astype(np.float64) + special + live[deepest] @ tokens
        return made + self.embed * ((deepest >= 0) @ tokens)

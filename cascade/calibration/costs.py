"""What a token costs in each part of a cascade, in any one unit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cascade.core.rows import BoolArray, Doubles, IntArray, Units


@dataclass(frozen=True)
class TierCosts:
    """Costs per token of one tier.

    Attributes:
        stages: of each stage, for a token that goes through it; a tier without exits has one, and a classifier's first
            holds the embedding.
        halted: of each stage, for a token whose word has left while its row goes on: keys, values and attention. Empty
            where rows leave whole.
        embed: of a token that the tier reads at all.
        around: tokens that it reads for one that is asked about, where a tier before has answered others.
    """

    stages: tuple[float, ...]
    halted: tuple[float, ...] = ()
    embed: float = 0.0
    around: float = 1.0

    @property
    def full(self) -> float:
        """Of a token at full depth."""
        return self.embed + sum(self.stages)

    @property
    def upto(self) -> Doubles:
        """Of a token that leaves at each exit. Shape `(exits,)`."""
        return self.embed + np.cumsum(self.stages)

    def of(self, taken: IntArray, words: Units, targets: BoolArray | None = None) -> float:
        """Of the tier on these words, sentences or windows.

        A sentence is under way until its last target has left, and its special tokens with it; words that are no
        targets leave then at the latest.

        `taken`: number of the exit of each word, from 0; `targets`: words that need an answer; all if left out. Both of
        shape `(words,)`. A sentence without any target costs nothing.
        """
        some = np.flatnonzero(words.counts)
        if not len(some):
            return 0.0
        wanted = taken if targets is None else np.where(targets, taken, -1)
        deepest = np.maximum.reduceat(wanted, words.offsets[some])
        left = np.minimum(taken, np.repeat(deepest, words.counts[some]))
        halted = np.array(self.halted or [0.0] * len(self.stages))
        # Up to an exit, with a 0 for sentences that are not run at all, whose exit is -1.
        active, live = (np.append(np.cumsum(part), 0.0) for part in (np.array(self.stages) - halted, halted))
        tokens = words.rows.lengths[some].astype(np.float64)
        of_words = np.bincount(words.row_of, weights=words.n_tokens, minlength=words.n_rows)[some]
        special = active[deepest] @ (tokens - of_words)
        made = active[left] @ words.n_tokens + special + live[deepest] @ tokens + self.embed * ((deepest >= 0) @ tokens)
        return float(made)


@dataclass(frozen=True)
class Costs:
    """Costs per token of all tiers, first to last; of what every setting pays, full depth too, `always`: tokenisation.

    A tier's are per token of the rows that it reads, and paid where it is asked; a tier behind `defer_all` is not.
    """

    tiers: tuple[TierCosts, ...]
    always: float = 0.0

    @property
    def full(self) -> float:
        """Of a token in the last tier at full depth, no other tier being run."""
        return self.always + self.tiers[-1].full

"""What a token costs in each part of a cascade of two tiers, in any one unit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cascade.core.rows import BoolArray, Doubles, IntArray, Units
from cascade.exceptions import OptionError


@dataclass(frozen=True)
class Costs:
    """Costs per token.

    Attributes:
        tier1: of tier 1, paid by every token unless the router is `defer_all`.
        stages: of each stage of tier 2, for a token that goes through it; a classifier's first holds the embedding.
        halted: of each stage, for a token whose word has left while its row goes on: keys, values and attention. Empty
            where rows leave whole.
        embed: of a tagger's token that tier 2 reads at all.
        always: of what every setting pays, tier 2 at full depth too: tokenisation.
    """

    tier1: float
    stages: tuple[float, ...]
    halted: tuple[float, ...] = ()
    embed: float = 0.0
    always: float = 0.0

    def __post_init__(self) -> None:
        values = (self.tier1, *self.stages, *self.halted, self.embed, self.always)
        fine = all(0 <= value < float("inf") for value in values) and sum(self.stages) > 0
        if not fine or len(self.halted) not in (0, len(self.stages)):
            raise OptionError(
                "costs must be at least 0, finite, above 0 for tier 2 and as many for halted tokens as for stages, got "
                f"{self!r}; give seconds or layers"
            )

    @property
    def full(self) -> float:
        """Of a token in tier 2 at full depth, tier 1 not run."""
        return self.always + self.embed + sum(self.stages)

    def of_tier2(self, taken: IntArray, words: Units, targets: BoolArray | None = None) -> Doubles:
        """Of tier 2 on these words (sentences or windows), for several policies. Shape `(policies,)`.

        A sentence is under way until its last target has left, and its special tokens with it; words that are no
        targets leave then at the latest.

        `taken`: number of the exit of each word, from 0, shape `(policies, words)`; `targets`: words that need an
        answer, shape `(words,)`; all if left out. A sentence without any costs nothing.
        """
        some = np.flatnonzero(words.counts)
        if not len(some):
            return np.zeros(len(taken))
        wanted = taken if targets is None else np.where(targets, taken, -1)
        deepest = np.maximum.reduceat(wanted, words.offsets[some], axis=1)
        left = np.minimum(taken, np.repeat(deepest, words.counts[some], axis=1))
        halted = np.array(self.halted or [0.0] * len(self.stages))
        # Up to an exit, with a 0 for sentences that are not run at all, whose exit is -1.
        active, live = (np.append(np.cumsum(part), 0.0) for part in (np.array(self.stages) - halted, halted))
        tokens = words.rows.lengths[some].astype(np.float64)
        of_words = np.bincount(words.row_of, weights=words.n_tokens, minlength=words.n_rows)[some]
        special = active[deepest] @ (tokens - of_words)
        made: Doubles = active[left] @ words.n_tokens.astype(np.float64) + special + live[deepest] @ tokens
        return made + self.embed * ((deepest >= 0) @ tokens)

"""Exit policies of a tagger: after each stage of tier 2, which words are sure enough to leave with this exit's tag.

Every policy of `exits` serves here too, a row being a word; those below also look at the word's sentence, or at what
the word is. They decide by one sentence alone, so order, batch size and neighbours do not change who leaves. All pieces
of a word leave together and keep their last state, which the rest of the sentence still sees.

    TokenExit(threshold)         a word by itself, or with its neighbours (TOKEE)
    SentenceExit(threshold)      all words of a sentence together (SENTEE)
    ExitByToken(layers)          fixed per token id (HashEE): the baseline that the others must beat
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from cascade.core.checks import check_whole
from cascade.core.confidence import certainty
from cascade.core.rows import BoolArray, FloatArray, IntArray
from cascade.exceptions import OptionError
from cascade.policies.exits import ExitState, PerExit, shipped

__all__ = ["Aggregate", "ExitByToken", "SentenceExit", "TokenExit", "WordState", "uncertainty"]


@dataclass(frozen=True, eq=False, kw_only=True)
class WordState(ExitState):
    """What a policy may look at, for the words that are still inside: its rows.

    Live sentences are those with a word that is still inside; their words that have left are known by place only.

    Attributes:
        sentences: number of the sentence of each word of the live sentences, those that have left included; never
            falls. Shape `(live words,)`.
        places: which of the live words each row is; rising. Shape `(rows,)`.
        ids: token id of each word's first piece. Shape `(rows,)`.
    """

    sentences: IntArray
    places: IntArray
    ids: IntArray


def uncertainty(state: WordState) -> FloatArray:
    """Entropy of each live word by log(labels), in [0, 1]; 0 for words that have left. Shape `(live words,)`.

    What has left counts as sure: it does not keep its neighbours inside.
    """
    unsure = np.zeros(len(state.sentences), dtype=np.float32)
    unsure[state.places] = 1 - certainty(state.probabilities, multi_label=state.multi_label)
    return unsure


@shipped
@dataclass(frozen=True)
class TokenExit(PerExit):
    """A word leaves where the largest uncertainty around it is below `threshold` (TOKEE: Li et al., ACL 2021).

    Uncertainty is entropy by log(labels). Words that have left count as sure, and no window reaches into another
    sentence. The paper's own thresholds double in the upper half of the layers: give a tuple for that.

    Attributes:
        threshold: in [0, 1]; one number for all exits or a tuple with one per exit (the last may be left out). At 0
            nobody leaves.
        window: words that are looked at, the word itself in their middle; odd. 1: the word alone.
    """

    window: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if check_whole("window", self.window, "1 looks at each word alone") % 2 == 0:
            raise OptionError(f"window must be odd, was: {self.window}; {self.window + 1} looks both ways alike")

    def __call__(self, state: ExitState) -> BoolArray:
        """Mask of shape `(words,)`, True = leave."""
        state = _of_words(state, "TokenExit")
        threshold = np.float32(self.at(state.exit_index))
        if self.window == 1:
            alone: BoolArray = 1 - certainty(state.probabilities, multi_label=state.multi_label) < threshold
            return alone
        unsure, sentences = uncertainty(state), state.sentences
        most = unsure.copy()
        for step in range(1, min(self.window // 2, len(unsure) - 1) + 1):
            together = sentences[step:] == sentences[:-step]
            np.maximum(most[step:], unsure[:-step], out=most[step:], where=together)
            np.maximum(most[:-step], unsure[step:], out=most[:-step], where=together)
        mask: BoolArray = most[state.places] < threshold
        return mask


class Aggregate(Enum):
    """How uncertain a sentence is: as its least sure word, or as its words on average."""

    MAX = "max"
    MEAN = "mean"


@shipped
@dataclass(frozen=True)
class SentenceExit(PerExit):
    """All words of a sentence leave together, once the sentence is sure enough (SENTEE: Li et al., ACL 2021).

    Its uncertainty is the largest of its words' (entropy by log(labels)), or their mean, in which many easy words hide
    a hard one. Words that have left by another policy count as sure.

    Attributes:
        threshold: in [0, 1]; the sentence leaves below it. One number for all exits or a tuple with one per exit (the
            last may be left out).
        aggregate: `Aggregate.MAX` or `Aggregate.MEAN`.
    """

    aggregate: Aggregate = Aggregate.MAX

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            object.__setattr__(self, "aggregate", Aggregate(self.aggregate))
        except ValueError as error:
            raise OptionError(
                f"aggregate must be one of {', '.join(kind.value for kind in Aggregate)}, was: {self.aggregate!r}; "
                "use Aggregate.MAX as in SENTEE"
            ) from error

    def __call__(self, state: ExitState) -> BoolArray:
        """Mask of shape `(words,)`, True = leave."""
        state = _of_words(state, "SentenceExit")
        starts = np.flatnonzero(np.diff(state.sentences, prepend=-1))
        words = np.diff(np.append(starts, len(state.sentences)))
        unsure = uncertainty(state)
        if self.aggregate is Aggregate.MAX:
            of_sentence = np.maximum.reduceat(unsure, starts)
        else:
            of_sentence = np.add.reduceat(unsure, starts, dtype=np.float64) / words
        sure: BoolArray = np.repeat(of_sentence < self.at(state.exit_index), words)[state.places]
        return sure


@shipped
@dataclass(frozen=True, repr=False)
class ExitByToken:
    """A word leaves at the layer that its first piece's token id has in a table (HashEE: Sun et al., 2022).

    Attributes:
        layers: number of the layer, counted from 1, by token id. Ids beyond the table go to full depth.
    """

    layers: tuple[int, ...]
    _table: IntArray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        given: object = self.layers
        if not isinstance(given, tuple | list):
            raise OptionError(f"layers must be a tuple with one layer per token id, was: {given!r}; see ExitByToken")
        remedy = "give the number of a layer with an exit for each token id"
        object.__setattr__(self, "layers", tuple(check_whole("layers", layer, remedy) for layer in given))
        object.__setattr__(self, "_table", np.array([*self.layers, np.iinfo(np.int64).max], dtype=np.int64))

    def __call__(self, state: ExitState) -> BoolArray:
        """Mask of shape `(words,)`, True = leave."""
        ids = _of_words(state, "ExitByToken").ids
        mask: BoolArray = self._table[np.minimum(ids, len(self.layers))] <= state.exit_layer
        return mask

    def check(self, layers: Sequence[int]) -> None:
        """Whether there is an exit after each of the layers in the table."""
        strange = sorted(set(self.layers) - set(layers))
        if strange:
            raise OptionError(
                f"ExitByToken must name layers with an exit, were: {', '.join(map(str, strange))}; "
                f"choose from {', '.join(map(str, layers))}"
            )

    def __repr__(self) -> str:
        counts = {layer: self.layers.count(layer) for layer in sorted(set(self.layers))}
        return f"ExitByToken({', '.join(f'{layer}: {count} ids' for layer, count in counts.items())})"


def _of_words(state: ExitState, name: str) -> WordState:
    if not isinstance(state, WordState):
        raise OptionError(f"{name} must be asked about words, was asked about whole texts; use it in a Tagger")
    return state

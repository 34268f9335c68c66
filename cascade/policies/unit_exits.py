"""Exit policies of a tagger that look at a word's sentence. Every policy of `exits` serves a tagger too.

Each decides by one sentence alone, so order, batch size and neighbours do not change the answers. All tokens of a word
exit together and keep their last state, which the sentence still sees.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import numpy as np

from cascade.core.checks import check_whole
from cascade.core.confidence import certainty
from cascade.core.rows import BoolArray, FloatArray, IntArray
from cascade.exceptions import OptionError
from cascade.policies.exits import ExitState, PerExit, each, register
from cascade.policies.registry import ModelInfo


@dataclass(frozen=True, eq=False, kw_only=True)
class UnitState(ExitState):
    """What a policy may look at in a tagger: the words that are still inside are its units.

    Live sentences are those with a word that is still inside; their words that have exited are known by place only.

    Attributes:
        sentences: number of the sentence of each word of the live sentences, those that have exited included; never
            falls. Shape `(live words,)`.
        places: which of the live words each unit is; rising. Shape `(units,)`.
        ids: token id of each unit's first token. Shape `(units,)`.
    """

    sentences: IntArray
    places: IntArray
    ids: IntArray


_S = TypeVar("_S", bound="_Uncertainty")


class _Uncertainty(PerExit, ABC):
    """Exit where an uncertainty, entropy by log(labels), is at most `threshold`. Words that have exited count as sure.

    As `Tunable` its score is 1 - uncertainty, and `at(t)` is the policy with the threshold 1 - t.
    """

    @abstractmethod
    def score(self, state: ExitState) -> FloatArray:
        """1 - uncertainty, in [0, 1]. Shape `(units,)`."""

    def at(self: _S, threshold: float | tuple[float, ...]) -> _S:
        """The same policy, exiting where `score` is at least this."""
        return replace(self, threshold=each(threshold, lambda score: round(1 - score, 12)))  # 1 - 0.95 has odd digits

    def __call__(self, state: ExitState) -> BoolArray:
        return self.score(state) >= 1 - self.threshold_of(state.exit_index)

    def check(self, model: ModelInfo) -> None:
        """Whether the model answers for words, and there is one threshold per exit."""
        _check_words(model.words, self)
        super().check(model)


@register
@dataclass(frozen=True)
class TokenExit(_Uncertainty):
    """A word exits where the largest uncertainty around it is at most `threshold` (TOKEE: Li et al., ACL 2021).

    No window reaches into another sentence. The paper's own thresholds double in the upper half of the layers: give a
    tuple for that.

    Attributes:
        threshold: in [0, 1]; one number for all exits or a tuple with one per exit (the last may be left out). At 0
            only words exit whose probabilities are 0 and 1.
        window: words that are looked at, the word itself in their middle; odd. 1: the word alone.
    """

    window: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if check_whole("window", self.window, "1 looks at each word alone") % 2 == 0:
            raise OptionError(f"window must be odd, got {self.window}; {self.window + 1} looks both ways alike")

    def score(self, state: ExitState) -> FloatArray:
        """The least certainty in the window, in [0, 1]. Shape `(units,)`."""
        units = _of_words(state, self)
        sure, sentences = _live(units), units.sentences
        least = sure.copy()
        for step in range(1, min(self.window // 2, len(sure) - 1) + 1):
            together = sentences[step:] == sentences[:-step]
            np.minimum(least[step:], sure[:-step], out=least[step:], where=together)
            np.minimum(least[:-step], sure[step:], out=least[:-step], where=together)
        return least[units.places]


@register
@dataclass(frozen=True)
class SentenceExit(_Uncertainty):
    """All words of a sentence exit together, once the sentence is sure enough (SENTEE: Li et al., ACL 2021).

    Its uncertainty is the largest of its words' (entropy by log(labels)): in the mean many easy words hide a hard one.
    `threshold`: in [0, 1]; the sentence exits at or below it. One number for all exits or a tuple with one per exit.
    """

    retired: ClassVar[Mapping[str, Any]] = {"aggregate": "max"}

    def score(self, state: ExitState) -> FloatArray:
        """The certainty of each word's sentence, in [0, 1]. Shape `(units,)`."""
        units = _of_words(state, self)
        starts = np.flatnonzero(np.diff(units.sentences, prepend=-1))
        words = np.diff(np.append(starts, len(units.sentences)))
        return np.repeat(np.minimum.reduceat(_live(units), starts), words)[units.places]


def _live(state: UnitState) -> FloatArray:
    """Certainty of each live word, 1 for words that have exited: they keep no neighbour inside. `(live words,)`."""
    sure = np.ones(len(state.sentences), dtype=np.float32)
    sure[state.places] = certainty(state.probabilities, multi_label=state.multi_label)
    return sure


def _check_words(words: bool, policy: object) -> None:
    if not words:
        raise OptionError(f"{type(policy).__name__} must be asked about words, got whole texts; use it in a Tagger")


def _of_words(state: ExitState, policy: object) -> UnitState:
    _check_words(isinstance(state, UnitState), policy)
    assert isinstance(state, UnitState)  # noqa: S101  # for the type checker
    return state

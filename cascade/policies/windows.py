"""Windows: which runs of words the next tier reads around those that were deferred.

A policy is called with a `WindowState` and returns `Spans`. It decides each sentence by that sentence alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np

from cascade.core.checks import check_share, check_whole
from cascade.core.rows import BoolArray, IntArray
from cascade.exceptions import OptionError
from cascade.policies.registry import Registry


@dataclass(frozen=True, eq=False)
class WindowState:
    """What a policy may look at.

    `unsure`: True where the next tier has to answer; `pieces`: of each word: what reading it costs; shape `(words,)`.
    `offsets`: the words of sentence `i` are `offsets[i]` to `offsets[i + 1] - 1`. Shape `(sentences + 1,)`.
    """

    unsure: BoolArray
    offsets: IntArray
    pieces: IntArray


@dataclass(frozen=True, eq=False)
class Spans:
    """Runs of words that the next tier reads, each within one sentence. Shape `(spans,)` each.

    `rows`: number of the sentence; `starts`: the first word, numbered over all sentences; `stops`: that after the last.
    """

    rows: IntArray
    starts: IntArray
    stops: IntArray

    def __len__(self) -> int:
        return len(self.rows)


WindowPolicy: TypeAlias = Callable[[WindowState], Spans]
"""Spans in which every unsure word is exactly once."""


_REGISTRY: Registry[WindowPolicy] = Registry("windows policy", "with_windows")
register, to_json, from_json, check = _REGISTRY.register, _REGISTRY.to_json, _REGISTRY.from_json, _REGISTRY.check


def decide(policy: WindowPolicy, state: WindowState) -> Spans:
    """Ask a policy and check what it returned.

    An `OptionError` tells what are no spans, a span that is empty or leaves its sentence, an unsure word that is in no
    span or in several.
    """
    given: object = policy(state)
    if not isinstance(given, Spans) or not len(given.rows) == len(given.starts) == len(given.stops):
        raise OptionError(
            f"the windows {policy!r} must return Spans, got {given!r}; give equally many rows, starts and stops"
        )
    spans, words = given, len(state.unsure)
    known = (spans.rows >= 0) & (spans.rows < len(state.offsets) - 1)
    rows = np.where(known, spans.rows, 0)
    inside = known & (spans.starts < spans.stops)
    if len(rows):
        inside &= (spans.starts >= state.offsets[rows]) & (spans.stops <= state.offsets[rows + 1])
    if not inside.all():
        bad = int(np.argmin(inside))
        raise OptionError(
            f"the windows {policy!r} must return runs of one or more words of their sentence, got words "
            f"{spans.starts[bad]} to {spans.stops[bad]} of sentence {spans.rows[bad]}; numbers count over all sentences"
        )
    times = _times(spans.starts, spans.stops, words)[state.unsure]
    if (times != 1).any():
        raise OptionError(
            f"the windows {policy!r} must have every unsure word exactly once, got {int((times == 0).sum())} never and "
            f"{int((times > 1).sum())} more often; merge windows that overlap"
        )
    return spans


@register
@dataclass(frozen=True)
class Windows:
    """Every unsure word with its neighbours; windows that touch are one.

    `margin`: words of context on both sides, within the sentence; `whole`: in [0, 1]; a sentence goes whole if more
    than this share of its pieces would be in windows. 0: every sentence with an unsure word does (`whole_sentences`).
    """

    retired: ClassVar[Mapping[str, Any]] = {"context_layers": None}

    margin: int = 3
    whole: float = 0.6

    def __post_init__(self) -> None:
        margin = check_whole("margin", self.margin, "0 sends unsure words without context", least=0)
        object.__setattr__(self, "margin", margin)
        object.__setattr__(self, "whole", check_share("whole", self.whole, "0 sends whole sentences"))

    def __call__(self, state: WindowState) -> Spans:
        """Spans in order, none in sentences without an unsure word."""
        words, rows = len(state.unsure), len(state.offsets) - 1
        unsure = np.flatnonzero(state.unsure)
        if not len(unsure):
            return Spans(unsure, unsure, unsure)
        sentences = np.repeat(np.arange(rows, dtype=np.int64), np.diff(state.offsets))
        begins = np.maximum(unsure - self.margin, state.offsets[sentences[unsure]])
        ends = np.minimum(unsure + self.margin + 1, state.offsets[sentences[unsure] + 1])
        inside = _times(begins, ends, words) > 0
        read = np.bincount(sentences[inside], weights=state.pieces[inside], minlength=rows)
        total = np.bincount(sentences, weights=state.pieces, minlength=rows)
        # 0.07 * 100 is a hair above 7 in floating point; 8 is not meant.
        whole = (read > 0) & (read > self.whole * total + 1e-9)
        inside |= whole[sentences]
        new = np.diff(sentences, prepend=-1) != 0
        starts = np.flatnonzero(inside & (new | ~np.append(False, inside[:-1])))
        stops = np.flatnonzero(inside & (np.append(new[1:], True) | ~np.append(inside[1:], False))) + 1
        return Spans(sentences[starts], starts, stops)


whole_sentences = Windows(margin=0, whole=0.0)
"""Every sentence with an unsure word goes to the next tier whole."""


def _times(starts: IntArray, stops: IntArray, words: int) -> IntArray:
    """In how many runs each word is. Shape `(words,)`."""
    steps = np.bincount(starts, minlength=words + 1) - np.bincount(stops, minlength=words + 1)
    return np.cumsum(steps)[:words]

"""Which texts are learned from, which choose between settings, which certify: by a hash of each, so always the same.

Those that choose have words left out: to a model that learned from texts these are about as hard as new ones.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cascade.calibration.certify.bounds import examples_needed
from cascade.calibration.certify.claims import Claim
from cascade.core.rows import BoolArray, IntArray
from cascade.exceptions import DataError

LEARN, CHOOSE = 50, 30  # texts, at least
MOST = 1000  # that choose
SHARE = 0.12  # of the words
FEW = 3  # words, below which characters are left out: not every script has spaces


@dataclass(frozen=True, eq=False)
class Shares:
    """Numbers of the texts of each share, no text in two of them. Shape `(texts,)` each."""

    learn: IntArray
    choose: IntArray
    certify: IntArray

    @classmethod
    def of(cls, items: Sequence[Any], claim: Claim, *, seed: int) -> Shares:
        """Split distinct items: a third certifies, as far as that helps, a tenth chooses, the others teach.

        Fewer items than the claim takes are a `DataError`, which says what can be claimed with them.
        """
        total, bound = len(items), claim.ask.bound
        least = examples_needed(bound, confidence=claim.confidence)
        if total < least + LEARN + CHOOSE:
            raise DataError(_too_few(total, least, claim))
        plenty = 2 * examples_needed(bound, confidence=claim.confidence, rate=bound / 2)
        testing = min(max(least, min(round(0.3 * total), plenty)), total - LEARN - CHOOSE)
        choosing = min(max(round(0.1 * total), CHOOSE), MOST, total - LEARN - testing)
        keys = [hashlib.sha256(f"{seed}{json.dumps(item, ensure_ascii=False)}".encode()) for item in items]
        order = np.array(sorted(range(total), key=lambda number: keys[number].digest()), dtype=np.int64)
        return cls(order[testing + choosing :], order[testing : testing + choosing], order[:testing])

    @property
    def order(self) -> IntArray:
        """All of them: those that certify, those that choose, the others."""
        return np.concatenate([self.certify, self.choose, self.learn])


def _too_few(total: int, least: int, claim: Claim) -> str:
    what, name = f"{claim.unit.value}s", "max-disagreement" if not claim.ask.needs_labels else "max-drop"
    told = (
        f"there must be at least {least + LEARN + CHOOSE:,} distinct {what}, got {total:,}: a bound of "
        f"{claim.ask.bound:g} at {100 * claim.confidence:.4g} % takes {least:,} that certify, {CHOOSE} that choose and "
        f"{LEARN} to learn from"
    )
    testing = total - LEARN - CHOOSE
    possible = 1 - (1 - claim.confidence) ** (1 / testing) if testing > 0 else 1.0
    if possible >= 0.5:
        return f"{told}; give more"
    rounded = math.ceil(1000 * possible) / 1000
    return f"{told}; give more, or ask for --{name} {rounded:g}, which {total:,} can show"


def with_gaps(items: Sequence[Any], *, copies: int, seed: int) -> tuple[list[Any], list[BoolArray]]:
    """Copies of texts, pairs or sentences of words, each with some words left out.

    A model is surer of the texts that trained it than of new ones, and so are tiers that learned from its answers: what
    a setting does on the given texts says too little about new ones. (Of a MiniLM on TREC a cut after layer 4 answered
    0.3 % of the given texts differently, 1.7 % of texts with gaps, and 2.2 % of new ones.)

    Returns:
        The first copy of each item, then the second, and so on; and which of its words each has kept, shape
        `(words,)`, of a pair those of its first text.
    """
    rng = np.random.default_rng(seed)
    made = [_with_gaps(item, rng) for _ in range(copies) for item in items]
    return [item for item, _ in made], [kept for _, kept in made]


def _with_gaps(item: Any, rng: np.random.Generator) -> tuple[Any, BoolArray]:
    if isinstance(item, tuple):
        (first, kept), (second, _) = (_with_gaps(text, rng) for text in item)
        return (first, second), kept
    words, joint = item, ""
    if isinstance(item, str):
        words, joint = item.split(), " "
        if len(words) < FEW:
            words, joint = list(item), ""
    kept = rng.random(len(words)) >= SHARE
    if len(words) > 1:
        kept[rng.integers(len(words))] = False  # one at least
    if not kept.any():
        kept[:1] = True
    left = [word for word, here in zip(words, kept.tolist(), strict=True) if here]
    return joint.join(left) if isinstance(item, str) else left, kept

"""Which texts are learned from, which choose between settings, which certify: by a hash of each, so always the same."""

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
from cascade.core.rows import IntArray
from cascade.exceptions import DataError

LEARN, CHOOSE = 50, 30  # texts, at least
MOST = 1000  # that choose


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

    def in_order(self) -> Shares:
        """The shares of items that stand in this order."""
        numbers = np.arange(len(self.order), dtype=np.int64)
        certify, choose, learn = np.split(numbers, np.cumsum([len(self.certify), len(self.choose)]))
        return Shares(learn, choose, certify)


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

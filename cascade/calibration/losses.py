"""What counts against a setting: answers that lose something beside those of tier 2 at full depth."""

from __future__ import annotations

from cascade.calibration.claims import Ask, MaxDrop
from cascade.core.rows import BoolArray, IntArray

__all__ = ["differ", "lost"]


def differ(given: IntArray, other: IntArray) -> BoolArray:
    """Where two answers are not the same. Shape `(n, columns)` both (`confidence.answers`), to `(n,)`."""
    mask: BoolArray = (given != other).any(axis=1)
    return mask


def lost(ask: Ask, given: IntArray, full: IntArray, goal: IntArray) -> BoolArray:
    """Where an answer counts against what was asked.

    Args:
        ask: `MaxDrop`: harm, the answer being wrong where full depth is right; if two-sided gain too. Anything else:
            another answer than that of full depth.
        given: the answers. Shape `(n, columns)`.
        full: those of full depth. Same shape.
        goal: the right ones. Same shape.

    Returns:
        Shape `(n,)`.
    """
    if not isinstance(ask, MaxDrop):
        return differ(given, full)
    right, full_right = ~differ(given, goal), ~differ(full, goal)
    return right != full_right if ask.two_sided else full_right & ~right

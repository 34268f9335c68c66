"""What is to be answered, as far as its cost depends on it: lengths of rows, who is deferred, rows of a call.

It leaves to others: finding it out (`observed`), what it costs (`schedule`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cascade.batch import BoolArray, IntArray
from cascade.checks import check_share, check_whole
from cascade.cost_model import Size
from cascade.exceptions import OptionError

__all__ = ["Workload", "check_shares", "size_of"]

MOST_CALLS = 32  # so many stand for all calls
MOST_ROWS = 8192  # and so many rows for those of one call


@dataclass(frozen=True, eq=False)
class Workload:
    """What is to be answered: some calls, which stand for all. Make it with `Workload.of`.

    Attributes:
        calls: tokens of each row, by call. Shape `(rows,)` each.
        deferred: those of the rows that tier 2 answers, by call.
        scale: how many times the whole is what is in these calls.
        share: of the rows that tier 2 answers.
    """

    calls: list[IntArray]
    deferred: list[IntArray]
    scale: float
    share: float

    @classmethod
    def of(cls, lengths: IntArray, deferred: float | BoolArray, call: int | None) -> Workload:
        """Cut rows into calls.

        Args:
            lengths: tokens of each row. Shape `(rows,)`.
            deferred: share of the rows that tier 2 answers, spread evenly, or which. Shape `(rows,)`.
            call: rows of a call; all of them if left out.

        Raises:
            OptionError: no rows, a row without tokens, or something that is no share and no mask.
        """
        lengths = np.asarray(lengths, dtype=np.int64)
        rows = len(lengths)
        if not rows or lengths.ndim != 1 or lengths.min() < 1:
            raise OptionError(
                f"lengths must be the tokens of at least one row, each at least 1, were: {lengths!r}; "
                "observe() finds them"
            )
        mask = _mask(deferred, rows)
        size = rows if call is None else min(check_whole("call", call, "leave it out for all rows at once"), rows)
        starts = np.arange(0, rows, size)
        chosen = starts[np.unique(np.linspace(0, len(starts) - 1, min(len(starts), MOST_CALLS)).round().astype(int))]
        rng = np.random.default_rng(0)
        wholes = [np.arange(start, min(start + size, rows)) for start in chosen.tolist()]
        parts = [
            np.sort(rng.choice(some, MOST_ROWS, replace=False)) if len(some) > MOST_ROWS else some for some in wholes
        ]
        scale = rows / sum(len(lengths[part]) for part in parts)
        kept = [lengths[part][mask[part]] for part in parts]
        return cls([lengths[part] for part in parts], kept, scale, float(mask.mean()))


def _mask(deferred: float | BoolArray, rows: int) -> BoolArray:
    if isinstance(deferred, np.ndarray):
        if deferred.dtype != np.bool_ or deferred.shape != (rows,):
            raise OptionError(
                f"deferred must be a share or bools of shape ({rows},), was: {deferred.dtype} of shape "
                f"{deferred.shape}; give one bool per row"
            )
        return deferred
    share = check_share("deferred", deferred, "observe() finds it")
    spread = np.floor(np.arange(rows + 1) * share + 1e-9)
    found: BoolArray = np.diff(spread) > 0
    return found


def size_of(lengths: IntArray) -> Size:
    """Of the batch of rows with these lengths. Shape `(rows,)`, at least one row."""
    return Size(len(lengths), int(lengths.sum()), int(lengths.max()))


def check_shares(name: str, shares: Sequence[float], count: int) -> Sequence[float]:
    """Shares of rows that leave at each of so many exits, together 1.

    Raises:
        OptionError: they are something else.
    """
    fine = len(shares) == count and all(0 <= share <= 1 for share in shares)
    if not fine or not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise OptionError(
            f"{name} must be {count} shares that add up to 1, one per exit, were: {tuple(shares)}; observe() finds them"
        )
    return shares

"""What a graph costs as a function of its batch: a fixed time, and some per token, per row, per token x longest row.

The weights make relative errors small and none is negative: a batch costs no less for being larger. The error that
counts is that at points which were left out of the fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import numpy.typing as npt

from cascade.exceptions import OptionError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Size:
    """How large a batch is: rows, tokens of all together, tokens of its longest row."""

    rows: int
    tokens: int
    longest: int


@dataclass(frozen=True)
class CostModel:
    """Weights in seconds, and how far off they are.

    Attributes:
        fixed: of any batch.
        per_token, per_row, per_token_and_longest: of each.
        median_error, largest_error: relative, at points that were left out of the fit.
    """

    fixed: float
    per_token: float
    per_row: float
    per_token_and_longest: float
    median_error: float
    largest_error: float


def fit(sizes: Sequence[Size], seconds: Sequence[float]) -> CostModel:
    """The model that fits these best.

    Args:
        sizes: of batches that were timed.
        seconds: of each, above 0.

    Raises:
        OptionError: fewer than 5 points, with which 4 weights would fit anything.
    """
    if len(sizes) < 5:
        raise OptionError(f"a cost model needs at least 5 points of the grid, got {len(sizes)}; give more sizes")
    terms = np.array([[1, size.tokens, size.rows, size.tokens * size.longest] for size in sizes], dtype=np.float64)
    taken = np.asarray(seconds, dtype=np.float64)
    errors = []
    for out in range(len(sizes)):
        rest = np.arange(len(sizes)) != out
        errors.append(float(abs(terms[out] @ _solved(terms[rest], taken[rest]) / taken[out] - 1)))
    fixed, per_token, per_row, per_both = map(float, _solved(terms, taken))
    return CostModel(fixed, per_token, per_row, per_both, median(errors), max(errors))


def _solved(terms: Floats, seconds: Floats) -> Floats:
    """Least squares of relative errors without negative weights: of all choices of terms the best that has none."""
    relative = terms / seconds[:, None]
    scale = np.abs(relative).max(axis=0)
    scale[scale == 0] = 1.0
    best, least = np.zeros(terms.shape[1]), np.inf
    for choice in range(1, 2 ** terms.shape[1]):
        kept = [column for column in range(terms.shape[1]) if choice >> column & 1]
        found = np.linalg.lstsq(relative[:, kept] / scale[kept], np.ones(len(seconds)), rcond=None)[0] / scale[kept]
        left = float(np.square(relative[:, kept] @ found - 1).sum())
        if (found >= 0).all() and left < least:
            best, least = np.zeros(terms.shape[1]), left
            best[kept] = found
    return best

"""What a graph costs as a function of its batch: a fixed time, and some per token, per row, per token x longest row.

The weights make the relative errors small and none is negative: a batch costs no less for being larger. Where batches
outgrow a cache, each token beyond a knee may cost more. The error that counts is that at points which were left out of
the fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import numpy.typing as npt

from cascade.exceptions import OptionError

__all__ = ["CostModel", "Floats", "Size", "fit"]

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
        per_token_beyond: of each token beyond the knee, besides.
        knee: tokens.
    """

    fixed: float
    per_token: float
    per_row: float
    per_token_and_longest: float
    median_error: float
    largest_error: float
    per_token_beyond: float = 0.0
    knee: int = 0

    def __call__(self, size: Size) -> float:
        """Seconds of a batch."""
        return float(self.seconds(np.array([size.rows]), np.array([size.tokens]), np.array([size.longest]))[0])

    def seconds(
        self,
        rows: npt.NDArray[np.number],
        tokens: npt.NDArray[np.number],
        longest: npt.NDArray[np.number],
        runs: npt.NDArray[np.number] | float = 1.0,
    ) -> Floats:
        """Expected seconds of several batches.

        Args:
            rows: of each; means where they are not known for certain. Shape `(batches,)`.
            tokens: likewise. Shape `(batches,)`.
            longest: tokens of the longest row of each. Shape `(batches,)`.
            runs: with what probability there is anything to run; it weighs the fixed time. Shape `(batches,)`.

        Returns:
            Shape `(batches,)`.
        """
        linear = tokens * (self.per_token + self.per_token_and_longest * longest) + rows * self.per_row
        beyond = self.per_token_beyond * np.maximum(tokens - self.knee, 0)
        made: Floats = np.asarray(self.fixed * runs + linear + beyond, dtype=np.float64)
        return made


def fit(sizes: Sequence[Size], seconds: Sequence[float], *, knees: Sequence[int] = ()) -> CostModel:
    """The model that fits these best.

    Args:
        sizes: of batches that were timed.
        seconds: of each, above 0.
        knees: tokens beyond which a token may cost more, to be tried, from 7 points on.

    Raises:
        OptionError: fewer than 5 points, with which 4 weights would fit anything.
    """
    if len(sizes) < 5:
        raise OptionError(f"a cost model needs at least 5 points of the grid, had {len(sizes)}; give more sizes")
    taken = np.asarray(seconds, dtype=np.float64)
    # A knee needs two points beyond it: with one its weight would only say how noisy that point is.
    fair = [knee for knee in knees if len(sizes) >= 7 and sum(size.tokens > knee for size in sizes) >= 2]
    found = [_solved(_terms(sizes, knee), taken) for knee in (0, *fair)]
    best = min(range(len(found)), key=lambda number: found[number][1])
    knee = (0, *fair)[best]
    terms, weights = _terms(sizes, knee), found[best][0]
    errors = []
    for out in range(len(sizes)):
        rest = np.arange(len(sizes)) != out
        errors.append(float(abs(terms[out] @ _solved(terms[rest], taken[rest])[0] / taken[out] - 1)))
    fixed, per_token, per_row, per_both, beyond = (*map(float, weights), 0.0)[:5]
    return CostModel(fixed, per_token, per_row, per_both, median(errors), max(errors), beyond, knee)


def _terms(sizes: Sequence[Size], knee: int) -> Floats:
    """What the weights are of. Shape `(sizes, 4)`, or with a knee `(sizes, 5)`."""
    terms = np.array([[1, size.tokens, size.rows, size.tokens * size.longest] for size in sizes], dtype=np.float64)
    return np.column_stack((terms, np.maximum(terms[:, 1] - knee, 0))) if knee else terms


def _solved(terms: Floats, seconds: Floats) -> tuple[Floats, float]:
    """Least squares of relative errors without negative weights: of all choices of terms the best that has none.

    Returns:
        The weights, and the sum of squared errors.
    """
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
    return best, least

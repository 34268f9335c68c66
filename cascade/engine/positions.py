"""How far tokens of a row are from each other: what families with relative positions read. Arrays of numbers only."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from cascade.core.rows import IntArray

_STARTS = (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91)
_FAR = _STARTS[-1]
_BUCKETS = np.searchsorted(_STARTS, np.abs(np.arange(-_FAR, _FAR + 1)), side="right")
_BUCKETS[_FAR + 1 :] += len(_STARTS) + 1


def buckets(distances: IntArray) -> IntArray:
    """MPNet's bucket of each distance, place of the key minus place of the query. Any shape, the same one.

    Sixteen for keys before the query and the query itself, sixteen for those after it: eight of one distance each, then
    ever wider ones, the last without end (Raffel et al. 2020, section 2.1, with 32 buckets up to distance 128).
    """
    found: IntArray = _BUCKETS[np.clip(distances, -_FAR, _FAR) + _FAR]
    return found


def bucket_grid(longest: int) -> IntArray:
    """Buckets of all pairs of places in a row. Shape `(1, longest, longest)`: queries, keys."""
    line = buckets(np.arange(1 - longest, longest))
    return np.ascontiguousarray(sliding_window_view(line, longest)[::-1])[None]

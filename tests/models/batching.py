"""Batches for tests: rows in the caller's order, a few at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cascade.core.rows import IntArray


@dataclass(frozen=True)
class FixedSize:
    """The caller's order, `batch_size` rows at a time."""

    batch_size: int = 32

    def __call__(self, lengths: IntArray) -> Iterator[IntArray]:
        order = np.arange(len(lengths), dtype=np.int64)
        for first in range(0, len(order), self.batch_size):
            yield order[first : first + self.batch_size]

"""Rows as token ids without padding: what the tokenizer makes and the tiers read.

It leaves to others: making the ids (`tokenizer`), cutting rows into batches (`batching`), index arithmetic (`packing`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Batch", "BoolArray", "FloatArray", "IntArray"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Batch:
    """Encoded rows, one after the other.

    Row `i` is `ids[offsets[i]:offsets[i + 1]]`, special tokens included.

    Attributes:
        ids: token ids. Shape `(tokens,)`.
        types: token type ids (0 first text, 1 second text). Shape `(tokens,)`.
        offsets: where each row begins, and the end. Shape `(rows + 1,)`.
    """

    ids: IntArray
    types: IntArray
    offsets: IntArray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> IntArray:
        """Tokens per row. Shape `(rows,)`."""
        return np.diff(self.offsets)

    @property
    def tokens(self) -> int:
        """Tokens of all rows together."""
        return int(self.offsets[-1])

    def select(self, rows: IntArray) -> Batch:
        """A new batch of these rows, in this order. `rows`: shape `(chosen,)`, numbers of rows of this batch."""
        lengths = self.lengths[rows]
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        index = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], lengths)
        return Batch(ids=self.ids[index], types=self.types[index], offsets=offsets)

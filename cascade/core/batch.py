"""Rows as token ids without padding: what the tokenizer makes and the tiers read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Batch", "BoolArray", "Encoded", "FloatArray", "IntArray", "concatenate", "cumulated", "ranges"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


def cumulated(lengths: IntArray | BoolArray) -> IntArray:
    """Offsets of runs of these lengths: where each begins, and the end. Shape `(runs,)` to `(runs + 1,)`.

    Of a mask: how many are True before each place.
    """
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def ranges(starts: IntArray, lengths: IntArray) -> IntArray:
    """The numbers of several runs, one after the other.

    Example: starts=[5, 0], lengths=[2, 3] -> [5, 6, 0, 1, 2]
    """
    offsets = cumulated(lengths)
    return np.arange(offsets[-1], dtype=np.int64) + np.repeat(starts - offsets[:-1], lengths)


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
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts  # not of all rows: a batch is selected from many times
        index = ranges(starts, lengths)
        return Batch(ids=self.ids[index], types=self.types[index], offsets=cumulated(lengths))


@dataclass(frozen=True, eq=False)
class Encoded:
    """Texts as rows of token ids.

    Attributes:
        batch: the rows, in the order of the texts; rows of one text follow each other.
        documents: number of the text that each row belongs to; never falls. Shape `(rows,)`.
        truncated: how many pairs were too long and lost tokens.
    """

    batch: Batch
    documents: IntArray
    truncated: int


def concatenate(parts: Sequence[Batch]) -> Batch:
    """One batch of the rows of all parts, in order. An empty sequence makes an empty batch."""
    nothing = np.empty(0, dtype=np.int64)
    lengths = np.concatenate([nothing, *(part.lengths for part in parts)])
    return Batch(
        ids=np.concatenate([nothing, *(part.ids for part in parts)]),
        types=np.concatenate([nothing, *(part.types for part in parts)]),
        offsets=np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
    )

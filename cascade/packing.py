"""Index arithmetic between packed tokens and the padded grid that attention needs.

Packed, the hidden states of all live rows are one matrix `[tokens, width]` without padding. Attention gathers it into
`[rows, longest, width]` and scatters the result back; `Packing` holds those indices. It leaves to others: running
graphs (`tiers`, `backend`), choosing which rows run together (`batching`), tokens that stay while others go on
(`word_packing`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, starmap

import numpy as np

from cascade.batch import Batch, BoolArray, FloatArray, IntArray
from cascade.exceptions import InputError

__all__ = ["Packing", "compact", "concatenate", "neighbours", "padded"]


@dataclass(frozen=True, eq=False)
class Packing:
    """Where the tokens of packed rows are in the padded grid. Make it with `Packing.of`.

    Attributes:
        lengths: tokens of each row. Shape `(rows,)`.
        gather: number of the token at each place of the grid, 0 at padding places. Shape `(rows, longest)`.
        mask: True where a token is. Shape `(rows, longest)`.
        scatter: place of each token in the flattened grid, row * longest + column. Shape `(tokens,)`.
    """

    lengths: IntArray
    gather: IntArray
    mask: BoolArray
    scatter: IntArray

    @classmethod
    def of(cls, lengths: IntArray) -> Packing:
        """The packing of rows with these lengths. Shape `(rows,)`, at least one row.

        Raises:
            InputError: a row without tokens, for which attention has no value.
        """
        if lengths.min() < 1:
            raise InputError(
                f"each row must have at least 1 token, row {int(lengths.argmin())} had {int(lengths.min())}; "
                "use a tokenizer that adds special tokens"
            )
        starts = np.cumsum(lengths) - lengths
        columns = np.arange(int(lengths.max()), dtype=np.int64)
        mask = columns < lengths[:, None]
        gather = np.where(mask, starts[:, None] + columns, 0)
        return cls(lengths=lengths, gather=gather, mask=mask, scatter=np.flatnonzero(mask).astype(np.int64))

    def position_ids(self, offset: int = 0) -> IntArray:
        """Place of each token in its row, the first one being `offset`. Shape `(tokens,)`."""
        positions: IntArray = self.scatter % self.mask.shape[1] + offset
        return positions


def compact(hidden: FloatArray, lengths: IntArray, keep: BoolArray) -> FloatArray:
    """The hidden states of the rows that stay, as a new contiguous array.

    Args:
        hidden: shape `(tokens, width)`.
        lengths: tokens of each row. Shape `(rows,)`.
        keep: True where a row stays. Shape `(rows,)`.

    Returns:
        Shape `(tokens of the rows that stay, width)`.
    """
    return np.take(hidden, np.flatnonzero(np.repeat(keep, lengths)), axis=0)


def neighbours(sizes: Sequence[tuple[int, ...]], most: tuple[int, ...]) -> list[slice]:
    """Which neighbouring batches go on as one, so that none becomes larger than allowed.

    Args:
        sizes: of each batch, in any measures, such as tokens and rows.
        most: of a merged batch, in the same measures. A batch that is larger by itself stays alone.

    Returns:
        Slices that cover the batches in order.
    """
    starts: list[int] = []
    used = (0,) * len(most)
    for number, size in enumerate(sizes):
        used = tuple(map(int.__add__, used, size))
        if not starts or any(have > limit for have, limit in zip(used, most, strict=True)):
            starts.append(number)
            used = size
    return list(starmap(slice, pairwise([*starts, len(sizes)])))


def concatenate(parts: Sequence[Batch]) -> Batch:
    """One batch of the rows of all parts, in order. An empty sequence makes an empty batch."""
    nothing = np.empty(0, dtype=np.int64)
    lengths = np.concatenate([nothing, *(part.lengths for part in parts)])
    return Batch(
        ids=np.concatenate([nothing, *(part.ids for part in parts)]),
        types=np.concatenate([nothing, *(part.types for part in parts)]),
        offsets=np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
    )


def padded(batch: Batch, *, max_length: int, pad_id: int = 0) -> tuple[IntArray, IntArray, IntArray]:
    """The padded grid of a batch, for a graph that was exported with padding.

    Args:
        batch: at least one row.
        max_length: a longer row keeps its first `max_length` - 1 tokens and its last, the separator.
        pad_id: token id at padding places; they are masked.

    Returns:
        Token ids, attention mask (1 where a token is) and token type ids, each int64 of shape `(rows, longest)`.
    """
    lengths = np.minimum(batch.lengths, max_length)
    columns = np.arange(max(int(lengths.max()), 1), dtype=np.int64)
    mask = columns < lengths[:, None]
    index = batch.offsets[:-1, None] + columns
    cut = np.flatnonzero(batch.lengths > max_length)
    index[cut, -1] = batch.offsets[cut + 1] - 1
    # A grid without any token has nothing to index: rows of no text for a tier without special tokens.
    index = np.where(mask, index, 0)
    ids = np.append(batch.ids, pad_id) if not batch.tokens else batch.ids
    types = np.append(batch.types, 0) if not batch.tokens else batch.types
    return np.where(mask, ids[index], pad_id), mask.astype(np.int64), np.where(mask, types[index], 0)

"""Index arithmetic between packed tokens and the padded grid that attention needs.

Packed, the hidden states of all live rows are one matrix `[tokens, width]` without padding. To attention each head of
each token is a row of its own: it gathers them into `[rows, heads, longest, size]` and scatters the result back;
`Packing` holds those indices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, starmap

import numpy as np

from cascade.core.rows import BoolArray, FloatArray, IntArray, Rows
from cascade.exceptions import InputError

__all__ = ["MASKED", "Packing", "compact", "neighbours", "padded"]

MASKED = np.float32(-40)
"""What is added to the scores of padding places before the softmax.

A padding place holds its own row's first token, so without this its score is at most the row's largest, and with it its
weight is at most exp(-40), or 4e-18, of the largest: 512 of those are far below half a unit of a float32's last place,
and a row's neighbours cannot matter. With the lowest float, ONNX Runtime's Softmax took three times as long: inside,
exponentials of values that low are denormal floats.
"""


@dataclass(frozen=True, eq=False)
class Packing:
    """Where the tokens of packed rows are in the padded grid. Make it with `Packing.of`.

    Each array is made when it is first asked for, and once: the stages of a chain share those of rows that stay.

    Attributes:
        lengths: tokens of each row. Shape `(rows,)`.
        heads: of attention.
        firsts: number of each row's first token. Shape `(rows,)`.
        mask: True where a token is. Shape `(rows, longest)`.
    """

    lengths: IntArray
    heads: int
    firsts: IntArray
    mask: BoolArray

    @classmethod
    def of(cls, lengths: IntArray, *, heads: int = 1) -> Packing:
        """The packing of rows with these lengths.

        Args:
            lengths: shape `(rows,)`, at least one row.
            heads: of attention; only arrays of heads depend on it.

        Raises:
            InputError: a row without tokens, for which attention has no value.
        """
        if lengths.min() < 1:
            raise InputError(
                f"each row must have at least 1 token, row {int(lengths.argmin())} had {int(lengths.min())}; "
                "use a tokenizer that adds special tokens"
            )
        mask = np.arange(int(lengths.max()), dtype=np.int64) < lengths[:, None]
        return cls(lengths=lengths, heads=heads, firsts=np.cumsum(lengths) - lengths, mask=mask)

    @cached_property
    def gather(self) -> IntArray:
        """Number of the token at each place of the grid; at padding places the row's first. Shape `(rows, longest)`."""
        columns = np.arange(self.mask.shape[1], dtype=np.int64)
        numbers: IntArray = self.firsts[:, None] + np.where(self.mask, columns, 0)
        return numbers

    @cached_property
    def weights(self) -> FloatArray:
        """1 where a token is, else 0: what sums of rows are products with. Shape `(rows, 1, longest)`."""
        return self.mask[:, None, :].astype(np.float32)

    @cached_property
    def counts(self) -> FloatArray:
        """Tokens of each row: what sums of rows are divided by. Shape `(rows, 1)`."""
        return self.lengths[:, None].astype(np.float32)

    @cached_property
    def bias(self) -> FloatArray:
        """0 where a token is, else `MASKED`. Shape `(rows, 1, 1, longest)`."""
        return np.where(self.mask, np.float32(0), MASKED)[:, None, None, :]

    @cached_property
    def head_gather(self) -> IntArray:
        """Number of the head at each place of the grid of heads, token * heads + head.

        At padding places: of the row's first token. Shape `(rows, heads, longest)`.
        """
        return (self.gather * self.heads)[:, None, :] + np.arange(self.heads, dtype=np.int64)[:, None]

    @cached_property
    def head_scatter(self) -> IntArray:
        """Place of each head of each token in the flattened grid of heads, (row * heads + head) * longest + column.

        Shape `(tokens, heads)`.
        """
        rows, longest = self.mask.shape
        starts = np.arange(rows, dtype=np.int64) * (self.heads * longest)
        firsts = np.repeat(starts, self.lengths) + self.position_ids()
        places: IntArray = firsts[:, None] + np.arange(self.heads, dtype=np.int64) * longest
        return places

    @property
    def feeds(self) -> Mapping[str, IntArray | FloatArray]:
        """What a stage reads beside hidden states, by name: for attention, and for either way of pooling."""
        return {
            "head_gather": self.head_gather,
            "bias": self.bias,
            "head_scatter": self.head_scatter,
            "firsts": self.firsts,
            "gather": self.gather,
            "weights": self.weights,
            "counts": self.counts,
        }

    def position_ids(self, offset: int = 0) -> IntArray:
        """Place of each token in its row, the first one being `offset`. Shape `(tokens,)`."""
        starts = np.repeat(self.firsts - offset, self.lengths)
        return np.arange(len(starts), dtype=np.int64) - starts


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


def padded(batch: Rows, *, max_length: int, pad_id: int = 0) -> tuple[IntArray, IntArray, IntArray]:
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

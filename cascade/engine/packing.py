"""Index arithmetic between packed tokens and the padded grid that attention needs.

Packed, the hidden states of all live rows are one matrix `[tokens, width]` without padding. To attention each head of
each token is a row of its own: it gathers them into `[rows, heads, longest, size]` and scatters the result back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise, starmap

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from cascade.core.rows import BoolArray, IntArray, Rows
from cascade.engine.local_attention import HALF, LOCAL, local_feeds
from cascade.exceptions import InputError
from cascade.runtime.backend import Array

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

    An array is made when a graph asks for it by name, once: the stages of a chain share those of rows that stay. A
    packing belongs to one thread.

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
    _made: dict[str, Array] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, lengths: IntArray, *, heads: int = 1) -> Packing:
        """The packing of at least one row. Only arrays of heads depend on `heads`, which are those of attention.

        A row without tokens, for which attention has no value, is an `InputError`.
        """
        if lengths.min() < 1:
            raise InputError(
                f"each row must have at least 1 token, row {int(lengths.argmin())} had {int(lengths.min())}; "
                "use a tokenizer that adds special tokens"
            )
        mask = np.arange(int(lengths.max()), dtype=np.int64) < lengths[:, None]
        return cls(lengths=lengths, heads=heads, firsts=np.cumsum(lengths) - lengths, mask=mask)

    def array(self, name: str) -> Array:
        """The array of this name, one of `FEEDS`; each says its shape there."""
        found = self._made.get(name)
        if found is None:
            found = self._made[name] = FEEDS[name](self)
        return found

    def feeds(self, names: Iterable[str]) -> dict[str, Array]:
        """The arrays of these names; names that are not in `FEEDS` are left out."""
        made = self._made
        return {name: made[name] if name in made else self.array(name) for name in names if name in FEEDS}

    def position_ids(self, offset: int = 0) -> IntArray:
        """Place of each token in its row, the first one being `offset`. Shape `(tokens,)`."""
        places: IntArray = self.array("position_ids")
        return places + offset if offset else places


def _position_ids(packing: Packing) -> Array:
    """Place of each token in its row, from 0. Shape `(tokens,)`."""
    starts = np.repeat(packing.firsts, packing.lengths)
    return np.arange(len(starts), dtype=np.int64) - starts


def _gather(packing: Packing) -> Array:
    """Number of the token at each place of the grid; at padding places the row's first. Shape `(rows, longest)`."""
    columns = np.arange(packing.mask.shape[1], dtype=np.int64)
    return packing.firsts[:, None] + np.where(packing.mask, columns, 0)


def _head_gather(packing: Packing) -> IntArray:
    """Number of the head at each place of the grid of heads, token * heads + head. Shape `(rows, heads, longest)`.

    At padding places: of the row's first token.
    """
    heads = np.arange(packing.heads, dtype=np.int64)
    return (packing.array("gather") * packing.heads)[:, None, :] + heads[:, None]


def _head_scatter(packing: Packing) -> Array:
    """Place of each head of each token in the flattened grid of heads. Shape `(tokens, heads)`.

    It is (row * heads + head) * longest + column.
    """
    rows, longest = packing.mask.shape
    starts = np.arange(rows, dtype=np.int64) * (packing.heads * longest)
    firsts = np.repeat(starts, packing.lengths) + packing.position_ids()
    places: IntArray = firsts[:, None] + np.arange(packing.heads, dtype=np.int64) * longest
    return places


def _distances(packing: Packing) -> IntArray:
    """All distances in the longest row, query minus key, from the largest on, and one more. Shape `(2 * longest,)`."""
    longest = packing.mask.shape[1]
    return np.arange(longest - 1, -longest - 1, -1, dtype=np.int64)


def _skew_shapes(packing: Packing) -> IntArray:
    """Sizes by which columns of distances become columns of tokens (DeBERTa). Shape `(6,)`.

    Where the flattened scores of a row begin; the shape of what is cut into lines of one place less than there are
    distances (0: as it is, -1: what is left); the longest row.
    """
    longest = packing.mask.shape[1]
    return np.array([longest - 1, 0, 0, -1, 2 * longest - 1, longest], dtype=np.int64)


def _local(name: str, packing: Packing) -> Array:
    """One of `local_feeds` where all tokens are active; the others are made with it."""
    everything = Actives(packing, packing, np.arange(int(packing.lengths.sum()), dtype=np.int64))
    packing._made.update({one: everything.array(one) for one in LOCAL})
    return packing._made[name]


FEEDS: Mapping[str, Callable[[Packing], Array]] = {
    "head_gather": _head_gather,
    # 0 where a token is. Shape (rows, 1, 1, longest).
    "bias": lambda packing: np.where(packing.mask, np.float32(0), MASKED)[:, None, None, :],
    "head_scatter": _head_scatter,
    # Number of each row's first token. Shape (rows,).
    "firsts": lambda packing: packing.firsts,
    "gather": _gather,
    # 1 where a token is, else 0: what sums of rows are products with. Shape (rows, 1, longest).
    "weights": lambda packing: packing.mask[:, None, :].astype(np.float32),
    # Tokens of each row: what sums of rows are divided by. Shape (rows, 1).
    "counts": lambda packing: packing.lengths[:, None].astype(np.float32),
    "lengths": lambda packing: packing.lengths,
    "buckets": lambda packing: bucket_grid(packing.mask.shape[1]),
    # Bucket of each distance in the longest row, key minus query, from the smallest on. Shape (2 * longest - 1,).
    "bucket_line": lambda packing: buckets(np.arange(1 - packing.mask.shape[1], packing.mask.shape[1])),
    "distances": _distances,
    "skew_shapes": _skew_shapes,
    "position_ids": _position_ids,
    **{name: partial(_local, name) for name in LOCAL},
}
"""What a stage can read beside hidden states, by name: for attention, for either way of pooling, for some families."""

POOLING = frozenset({"firsts", "gather", "weights", "counts"})
"""Those of `FEEDS` that pool rows, so that a tagger's stages have no use for them."""


@dataclass(frozen=True, eq=False)
class Actives:
    """The tokens that go on, among all tokens of the live rows. Arrays are made by name, once, as a packing's are.

    Attributes:
        all: the packing of all tokens.
        own: of the active ones among themselves; `all` itself where every token is active.
        numbers: of the active ones among all; rising. Shape `(actives,)`.
    """

    all: Packing
    own: Packing
    numbers: IntArray
    _made: dict[str, Array] = field(default_factory=dict, repr=False)

    def array(self, name: str) -> Array:
        """The array of this name, one of `ACTIVE_FEEDS`."""
        found = self._made.get(name)
        if found is None:
            found = self._made[name] = ACTIVE_FEEDS[name](self)
        return found


def _active_buckets(actives: Actives) -> IntArray:
    """As `buckets`, of active tokens to all. Shape `(1 or rows, longest_active, longest)`: 1 where all are active."""
    if actives.own is actives.all:
        return actives.all.array("buckets")
    queries = actives.all.position_ids()[actives.numbers][actives.own.array("gather")]
    return buckets(np.arange(actives.all.mask.shape[1], dtype=np.int64) - queries[..., None])


def _placed_query_head_gather(actives: Actives) -> IntArray:
    """As `query_head_gather`, each query at its own place among all tokens. Shape `(rows, heads, longest)`.

    Elsewhere is any active token: what it asks for is not scattered.
    """
    if actives.own is actives.all:
        return actives.all.array("head_gather")
    heads = np.arange(actives.all.heads, dtype=np.int64)
    number = np.zeros(actives.all.lengths.sum(), dtype=np.int64)
    number[actives.numbers] = np.arange(len(actives.numbers)) * len(heads)
    return number[actives.all.array("gather")][:, None, :] + heads[:, None]


def _active_local(name: str, actives: Actives) -> Array:
    """One of `local_feeds`; the others are made with it. In short rows that of global attention."""
    grid, own = actives.all, actives.own
    if grid.mask.shape[1] <= HALF + 1:
        short = grid.array("head_gather"), grid.array("bias"), own.array("head_gather"), own.array("head_scatter")
        actives._made.update(zip(LOCAL, short, strict=True))
    else:
        actives._made.update(local_feeds(grid.lengths, actives.numbers, heads=grid.heads))
    return actives._made[name]


ACTIVE_FEEDS: Mapping[str, Callable[[Actives], Array]] = {
    "active": lambda actives: actives.numbers,
    "query_head_gather": lambda actives: actives.own.array("head_gather"),
    "head_scatter": lambda actives: actives.own.array("head_scatter"),
    "buckets": _active_buckets,
    "placed_query_head_gather": _placed_query_head_gather,
    "placed_head_scatter": lambda actives: actives.all.array("head_scatter")[actives.numbers],
    **{name: partial(_active_local, name) for name in LOCAL},
}
"""What a tagger's stage reads of the active tokens, by name; what is not here is in `FEEDS`, of all tokens."""


def neighbours(sizes: Sequence[tuple[int, ...]], most: tuple[int, ...]) -> list[slice]:
    """Which neighbouring batches go on as one, so that none becomes larger than allowed: slices that cover them all.

    `sizes`: of each batch, in any measures, such as tokens and rows; `most`: of a merged batch, in the same measures. A
    batch that is larger by itself stays alone.
    """
    starts: list[int] = []
    used = (0,) * len(most)
    for number, size in enumerate(sizes):
        used = tuple(map(int.__add__, used, size))
        if not starts or any(have > limit for have, limit in zip(used, most, strict=True)):
            starts.append(number)
            used = size
    return list(starmap(slice, pairwise([*starts, len(sizes)])))


def padded(rows: Rows, *, max_length: int) -> tuple[IntArray, IntArray, IntArray]:
    """Token ids, attention mask (1 where a token is) and token type ids, int64, 0 at padding. Shape `(rows, longest)`.

    There is at least one row; one that is longer than `max_length` keeps its first tokens and its last, the separator.
    """
    if len(rows) == 1 and 0 < rows.tokens <= max_length:
        return rows.ids[None], np.ones((1, rows.tokens), dtype=np.int64), rows.types[None]
    lengths = np.minimum(rows.lengths, max_length)
    columns = np.arange(max(int(lengths.max()), 1), dtype=np.int64)
    mask = columns < lengths[:, None]
    index = rows.offsets[:-1, None] + columns
    cut = np.flatnonzero(rows.lengths > max_length)
    index[cut, -1] = rows.offsets[cut + 1] - 1
    # A grid without any token has nothing to index: rows of no text for a tier without special tokens.
    index = np.where(mask, index, 0)
    ids = np.append(rows.ids, 0) if not rows.tokens else rows.ids
    types = np.append(rows.types, 0) if not rows.tokens else rows.types
    return np.where(mask, ids[index], 0), mask.astype(np.int64), np.where(mask, types[index], 0)


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

"""Index arithmetic of layers in which a token attends to its neighbours only (ModernBERT, Warner et al., 2024).

Where every row is short enough all tokens are neighbours, and the arrays are those of global attention (`packing`).
Rows that fit into one block are one; longer ones are cut into blocks of `HALF` queries with as many keys before and
after: to attention, blocks are just other rows.
"""

from __future__ import annotations

import numpy as np

from cascade.core.rows import IntArray, offsets_of
from cascade.runtime.backend import Array

HALF = 64
"""Tokens on each side that a token attends to; the exporter refuses models with another number."""

LOCAL = ("local_head_gather", "local_bias", "local_query_head_gather", "local_head_scatter")
"""Names of the arrays, as stages ask for them."""

OUT_OF_REACH = np.float32(-60)
"""What is added to the scores of keys that a query must not see.

Unlike padding places (`packing.MASKED`), these hold other tokens of the row, whose scores may be above those in reach:
as long as by at most 36, a weight is at most exp(-24), or 4e-11, of the largest. Still lower values make exponentials
denormal, and slow.
"""


def local_feeds(lengths: IntArray, active: IntArray, *, heads: int) -> dict[str, Array]:
    """The arrays of `LOCAL` for rows of which some are longer than `HALF` + 1.

    `lengths`: tokens of each row, shape `(rows,)`; `active`: the tokens that ask, rising, shape `(actives,)`.

    `local_head_gather`: number of the head at each place of the grid of keys, token * heads + head, shape `(blocks,
    heads, keys)`. `local_query_head_gather`: the same of the active tokens among themselves, shape `(blocks, heads,
    queries)`. `local_bias`: 0 where a query sees a key, else `OUT_OF_REACH`, shape `(blocks, 1, queries, keys)`.
    `local_head_scatter`: place of each head of each active token in the flattened grid of queries, shape `(actives,
    heads)`.
    """
    longest, first_tokens = int(lengths.max()), np.cumsum(lengths) - lengths
    # Up to three blocks in one, attention's masked products cost no more than the keys that blocks have twice.
    size, reach = (longest, 0) if longest <= 3 * HALF else (HALF, HALF)
    rows = np.repeat(np.arange(len(lengths)), lengths)[active]
    places = active - first_tokens[rows]
    numbers = offsets_of(-(-lengths // size))[rows] + places // size
    firsts = np.flatnonzero(np.diff(numbers, prepend=-1))  # among the actives: a block in which nobody asks is left out
    counts = np.diff(firsts, append=len(active))
    row, start = rows[firsts], places[firsts] // size * size

    columns = np.arange(int(counts.max()), dtype=np.int64)
    queries = firsts[:, None] + np.where(columns < counts[:, None], columns, 0)
    near = start[:, None] + np.arange(-reach, size + reach, dtype=np.int64)
    there = (near >= 0) & (near < lengths[row, None])
    keys = first_tokens[row, None] + np.where(there, near, start[:, None])
    seen = (np.abs(places[queries][:, :, None] - near[:, None]) <= HALF) & there[:, None]

    each = np.arange(heads, dtype=np.int64)
    lines = np.arange(len(firsts), dtype=np.int64) * (heads * len(columns))
    scatter = np.repeat(lines - firsts, counts) + np.arange(len(active), dtype=np.int64)
    blocks = (
        (keys * heads)[:, None] + each[:, None],
        np.where(seen, np.float32(0), OUT_OF_REACH)[:, None],
        (queries * heads)[:, None] + each[:, None],
        scatter[:, None] + each * len(columns),
    )
    return dict(zip(LOCAL, blocks, strict=True))

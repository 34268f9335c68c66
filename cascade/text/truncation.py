"""Rows that are too long: windows of texts, truncated pairs. Index arithmetic on all rows at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cascade.core.rows import BoolArray, IntArray, Rows, offsets_of, ranges


@dataclass(frozen=True, eq=False)
class SpecialTokens:
    """What stands around the pieces of a single text in every row: ids and types. `type`: of the pieces themselves.

    `pair`: how many stand before, between and behind two texts.
    """

    prefix: IntArray
    suffix: IntArray
    prefix_types: IntArray
    suffix_types: IntArray
    type: int
    pair: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.prefix) + len(self.suffix)


def fit_rows(
    rows: Rows,
    first_lengths: IntArray,
    special: SpecialTokens,
    *,
    max_length: int,
    overlap: int,
    truncation: bool | str = False,
) -> tuple[Rows, IntArray]:
    """Windows of long texts, shortened long pairs, everything else as it is; and the old row of each new one.

    Every new row is three runs of its old row: up to `first_cut`, up to `second_cut`, and the rest, the second and
    third moved forward by `first_skip` and `first_skip + second_skip` tokens.

    `first_lengths`: tokens of a pair's first text, -1 for a single text; read where a pair is too long. Shape
    `(rows,)`; `overlap`: tokens that two windows of one text share; less than the room between the special tokens;
    `truncation`: of a long text the first tokens alone; `"left"`: the last ones, of long pairs too.
    """
    lengths = rows.lengths
    pair = first_lengths >= 0
    long: BoolArray = lengths > max_length
    prefix, suffix = len(special.prefix), len(special.suffix)
    room = max_length - prefix - suffix
    step = room - overlap
    bodies = lengths - prefix - suffix
    windows = np.where(long & ~(pair | bool(truncation)), 1 - (room - bodies) // step, 1)
    old = np.repeat(np.arange(len(lengths)), windows)
    number = np.arange(len(old)) - np.repeat(np.cumsum(windows) - windows, windows)

    split = (long & ~pair)[old]
    start = np.where(split, lengths[old] - max_length if truncation == "left" else number * step, 0)
    new_lengths = np.where(split, np.minimum(max_length, lengths[old] - start), np.minimum(lengths[old], max_length))
    first_cut = np.where(split, prefix, 0)
    second_cut = np.where(split, new_lengths - suffix, 0)
    first_skip = start
    second_skip = np.where(split, lengths[old] - new_lengths - start, 0)

    cut = (long & pair)[old]
    if cut.any():
        first = first_lengths[old]
        second = lengths[old] - sum(special.pair) - first
        budget = max_length - sum(special.pair)
        # The shorter side stays whole while it takes no more than half; otherwise both get half, the longer (or
        # second) side the odd token.
        shorter = np.minimum(np.minimum(first, second), budget // 2)
        kept_first = np.where(first <= second, shorter, budget - shorter)
        begin, end = special.pair[0] + kept_first, max_length - special.pair[2]
        if truncation == "left":
            begin, end = special.pair[0], begin + special.pair[1]
        first_cut, second_cut = np.where(cut, begin, first_cut), np.where(cut, end, second_cut)
        first_skip = np.where(cut, first - kept_first, first_skip)
        second_skip = np.where(cut, second - (budget - kept_first), second_skip)

    place = ranges(np.zeros_like(new_lengths), new_lengths)
    source = place + np.repeat(rows.offsets[:-1][old], new_lengths)
    source += np.where(place >= np.repeat(first_cut, new_lengths), np.repeat(first_skip, new_lengths), 0)
    source += np.where(place >= np.repeat(second_cut, new_lengths), np.repeat(second_skip, new_lengths), 0)
    return Rows(ids=rows.ids[source], types=rows.types[source], offsets=offsets_of(new_lengths)), old

"""Rows that are too long, cut to fit: index arithmetic on whole batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cascade.core.rows import BoolArray, IntArray, Rows

__all__ = ["Template", "fit"]


@dataclass(frozen=True)
class Template:
    """How many special tokens stand where, in every row of a tokenizer.

    A single row is `prefix` A `suffix`; a pair is `pair_prefix` A `middle` B `pair_suffix`.
    """

    prefix: int
    suffix: int
    pair_prefix: int
    middle: int
    pair_suffix: int


def fit(batch: Rows, firsts: IntArray, template: Template, *, max_length: int, overlap: int) -> tuple[Rows, IntArray]:
    """Windows of long texts, shortened long pairs, everything else as it is.

    Every new row is three runs of its old row: up to `first_cut`, up to `second_cut`, and the rest, the second and
    third moved forward by `first_skip` and `first_skip + second_skip` tokens.

    Args:
        batch: whole rows, special tokens included.
        firsts: tokens of a pair's first text, -1 for a single text; read where a pair is too long. Shape `(rows,)`.
        template: where special tokens stand.
        max_length: tokens of a row at most.
        overlap: tokens that two windows of one text share; less than the room between the special tokens.

    Returns:
        The new rows, and the old row of each. Shape `(new rows,)`.
    """
    lengths = batch.lengths
    pair = firsts >= 0
    long: BoolArray = lengths > max_length
    room = max_length - template.prefix - template.suffix
    step = room - overlap
    bodies = lengths - template.prefix - template.suffix
    windows = np.where(long & ~pair, 1 - (room - bodies) // step, 1)
    old = np.repeat(np.arange(len(lengths)), windows)
    number = np.arange(len(old)) - np.repeat(np.cumsum(windows) - windows, windows)

    split = (long & ~pair)[old]
    start = np.where(split, number * step, 0)
    new_lengths = np.where(split, np.minimum(max_length, lengths[old] - start), np.minimum(lengths[old], max_length))
    first_cut = np.where(split, template.prefix, 0)
    second_cut = np.where(split, new_lengths - template.suffix, 0)
    first_skip = start
    second_skip = np.where(split, lengths[old] - new_lengths - start, 0)

    cut = (long & pair)[old]
    if cut.any():
        specials = template.pair_prefix + template.middle + template.pair_suffix
        first = firsts[old]
        second = lengths[old] - specials - first
        budget = max_length - specials
        # The shorter side stays whole while it takes no more than half; otherwise both get half, the longer (or
        # second) side the odd token.
        shorter = np.minimum(np.minimum(first, second), budget // 2)
        kept_first = np.where(first <= second, shorter, budget - shorter)
        first_cut = np.where(cut, template.pair_prefix + kept_first, first_cut)
        second_cut = np.where(cut, max_length - template.pair_suffix, second_cut)
        first_skip = np.where(cut, first - kept_first, first_skip)
        second_skip = np.where(cut, second - (budget - kept_first), second_skip)

    offsets = np.concatenate(([0], np.cumsum(new_lengths)))
    place = np.arange(offsets[-1]) - np.repeat(offsets[:-1], new_lengths)
    source = place + np.repeat(batch.offsets[:-1][old], new_lengths)
    source += np.where(place >= np.repeat(first_cut, new_lengths), np.repeat(first_skip, new_lengths), 0)
    source += np.where(place >= np.repeat(second_cut, new_lengths), np.repeat(second_skip, new_lengths), 0)
    return Rows(ids=batch.ids[source], types=batch.types[source], offsets=offsets), old

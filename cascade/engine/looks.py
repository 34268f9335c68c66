"""Parts of inputs and of looks: some neighbouring items, which a tier then answers by themselves."""

from __future__ import annotations

import numpy as np

from cascade.core.rows import ranges
from cascade.engine.cascade import Look
from cascade.engine.inputs import Inputs


def part_of(look: Look, begin: int, end: int, *, words: bool) -> Look:
    """The look at units `begin` to `end` - 1, which are those of some whole items; it answers them as the whole does.

    `words`: units are words of sentences; otherwise each is an item.
    """
    inputs, rest = look.inputs, look.rest
    if (begin, end) == (0, inputs.n_units) or rest is None:
        return look
    numbers = np.arange(rest.n_units) if look.numbers is None else look.numbers
    if words:
        offsets = rest.offsets
        firsts = np.append(numbers, end)[offsets[:-1]]  # a sentence without words is no part of any
        chosen = np.flatnonzero((firsts >= begin) & (firsts < end) & (offsets[1:] > offsets[:-1]))
        units = ranges(offsets[chosen], offsets[chosen + 1] - offsets[chosen])
        own = rest.spans(chosen, offsets[chosen], offsets[chosen + 1])
    else:
        units = np.flatnonzero((numbers >= begin) & (numbers < end))
        own = rest.select(units)
    return Look(
        inputs=between(inputs, begin, end, words=words),
        scores=None if look.scores is None else look.scores[begin:end],
        rest=own,
        numbers=numbers[units] - begin,
    )


def between(inputs: Inputs, begin: int, end: int, *, words: bool) -> Inputs:
    """The inputs of units `begin` to `end` - 1, which are those of some whole items."""
    if not words:
        return inputs.select(np.arange(begin, end, dtype=np.int64))
    offsets = inputs.offsets
    chosen = np.flatnonzero((offsets[:-1] >= begin) & (offsets[1:] <= end) & (offsets[1:] > offsets[:-1]))
    return inputs.spans(chosen, offsets[chosen], offsets[chosen + 1])


def runs_of(inputs: Inputs, most_tokens: int, *, words: bool) -> list[tuple[int, int]]:
    """Runs of whole items of about so many tokens at most, or of one item: where the units of each begin and end."""
    count = inputs.n_units
    starts = inputs.offsets[:-1] if words else np.arange(count, dtype=np.int64)
    before = np.append(0, np.cumsum(inputs.lengths))[starts]
    begins = starts[np.flatnonzero(np.diff(before // most_tokens, prepend=-1))]
    begins = np.unique(begins[begins < count])
    return list(zip(begins.tolist(), [*begins[1:].tolist(), count], strict=False))

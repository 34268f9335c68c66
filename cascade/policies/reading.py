"""Reading policies: after which rows of a long text its answer stands, so that the others are not read.

A text that is longer than a tier takes is read in rows, whose answers are averaged. With a policy its first row is read
first, then its last one, then the others in order: beginnings and ends say most. A policy is called with a
`ReadingState` and returns a mask, True = read no further. It decides each text by that text alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np

from cascade.core.checks import check_mask, is_number
from cascade.core.confidence import margin
from cascade.core.rows import BoolArray, FloatArray, IntArray
from cascade.exceptions import OptionError
from cascade.policies.registry import ModelInfo, Registry


@dataclass(frozen=True, eq=False)
class ReadingState:
    """What a policy may look at: texts of which rows are left. Its arrays must not be written to.

    Attributes:
        probabilities: mean of the rows that were read. Shape `(texts, labels)`.
        read: how many those are, the same number for all.
        left: rows that are left, at least 1. Shape `(texts,)`.
        multi_label: the labels are independent yes/no decisions.
    """

    probabilities: FloatArray
    read: int
    left: IntArray
    multi_label: bool = False


ReadingPolicy: TypeAlias = Callable[[ReadingState], BoolArray]
"""A mask of shape `(texts,)`, True = what was read is enough."""

_REGISTRY: Registry[ReadingPolicy] = Registry("reading policy", "with_reading", "read all rows")
register, to_json, from_json, check = _REGISTRY.register, _REGISTRY.to_json, _REGISTRY.from_json, _REGISTRY.check


@register
@dataclass(frozen=True)
class InOrder:
    """Stop where the lead of the likeliest label, summed over the rows read, is far above what those left may bring.

    That is `threshold` times the square root of how many are left: by so much do as many leads of random sign differ
    from 0. `threshold`: above 0; higher reads more. 0.6 is a good first choice for two labels.
    """

    for_labels: ClassVar[bool] = True

    threshold: float

    def __post_init__(self) -> None:
        if not (is_number(self.threshold) and 0 < self.threshold < math.inf):
            raise OptionError(f"threshold must be above 0 and finite, got {self.threshold!r}; give a number like 0.6")

    def __call__(self, state: ReadingState) -> BoolArray:
        lead = state.read * margin(state.probabilities, multi_label=state.multi_label)
        return np.asarray(lead >= self.threshold * np.sqrt(state.left))

    def check(self, model: ModelInfo) -> None:
        """Whether units are texts: of sentences each word has a tag, so that all of them are read."""
        if model.words:
            raise OptionError(f"{self!r} must be asked about texts, got words; leave it out of a tagger")


def rounds(
    policy: ReadingPolicy, owners: IntArray, said: Callable[[IntArray], FloatArray], *, multi_label: bool = False
) -> Iterator[IntArray]:
    """Which rows are read together, one after the other, until each text has its answer.

    Yielded are numbers of rows, rising: the first of each text, then the last ones, the second ones, ...

    `policy`: asked after each round about the texts of which rows are left; anything but a mask of one bool per text is
    an `OptionError`. `owners`: which text each row belongs to, never falling, shape `(rows,)`; `said`: probabilities of
    these rows, asked for when a round is over, shape `(some,)` to `(some, labels)`.
    """
    owners, sizes = np.unique(owners, return_inverse=True, return_counts=True)[1:]
    place = np.arange(len(owners)) - (np.cumsum(sizes) - sizes)[owners]
    turn = np.where(place == 0, 0, np.where(place == sizes[owners] - 1, 1, place + 1))
    going, summed = np.ones(len(sizes), dtype=np.bool_), None
    for read in range(1, int(sizes.max(initial=0)) + 1):
        rows = np.flatnonzero((turn == read - 1) & going[owners])
        if not len(rows):
            return
        yield rows
        texts, found = owners[rows], said(rows)
        summed = np.zeros((len(sizes), found.shape[1]), dtype=np.float32) if summed is None else summed
        summed[texts] += found
        more = sizes[texts] > read
        going[texts[~more]] = False
        if more.any():
            asked = texts[more]
            state = ReadingState(summed[asked] / np.float32(read), read, sizes[asked] - read, multi_label)
            going[asked] = ~check_mask(policy(state), len(asked), "reading policy", policy, "of which no more is read")

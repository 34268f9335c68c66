"""Rows of token ids without padding, and the units in them: what encoders make and tiers read.

A unit is what gets an answer: a text is a row with one unit that covers all of its tokens, a sentence of words a row
with a unit per word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
T = TypeVar("T", bound=np.generic)


def offsets_of(lengths: IntArray | BoolArray) -> IntArray:
    """Offsets of runs of these lengths: where each begins, and the end. Shape `(runs,)` to `(runs + 1,)`.

    For a mask: how many are True before each place.
    """
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def ranges(starts: IntArray, lengths: IntArray) -> IntArray:
    """The numbers of several runs, one after the other.

    Example: starts=[5, 0], lengths=[2, 3] -> [5, 6, 0, 1, 2]
    """
    offsets = offsets_of(lengths)
    return np.arange(offsets[-1], dtype=np.int64) + np.repeat(starts - offsets[:-1], lengths)


def read_only(array: npt.NDArray[T]) -> npt.NDArray[T]:
    """A view of an array through which nothing can be written, for policies to look at."""
    view = array.view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True, eq=False)
class Rows:
    """Encoded rows, one after the other: row `i` is `ids[offsets[i]:offsets[i + 1]]`, special tokens included.

    `ids` and `types` (0 first text, 1 second text): shape `(tokens,)`; `offsets`: shape `(rows + 1,)`.
    """

    ids: IntArray
    types: IntArray
    offsets: IntArray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> IntArray:
        """Tokens per row. Shape `(rows,)`."""
        return self.offsets[1:] - self.offsets[:-1]  # numpy.diff takes several times as long for few rows

    @property
    def tokens(self) -> int:
        """Tokens of all rows together."""
        return int(self.offsets[-1])

    def select(self, rows: IntArray) -> Rows:
        """These rows, in this order. `rows`: shape `(chosen,)`, numbers of rows."""
        if len(rows) == len(self) == 1:
            return self
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts  # not of all rows: rows are selected many times
        index = ranges(starts, lengths)
        return Rows(ids=self.ids[index], types=self.types[index], offsets=offsets_of(lengths))


@dataclass(frozen=True, eq=False)
class Units:
    """Encoded rows and the units in them.

    The tokens of unit `u` are `first_token[u]` to `first_token[u] + n_tokens[u] - 1` of `rows`; units come in rising
    order and do not overlap. The tokens before a row's first unit and after its last one are special tokens.

    Attributes:
        rows: token ids, special tokens included.
        first_token: number of each unit's first token among all tokens of `rows`. Shape `(units,)`.
        n_tokens: tokens of each unit, at least 1 for a word. Shape `(units,)`.
        offsets: the units of row `i` are `offsets[i]` to `offsets[i + 1] - 1`; a row may have none. Shape
            `(rows + 1,)`.
    """

    rows: Rows
    first_token: IntArray
    n_tokens: IntArray
    offsets: IntArray

    @classmethod
    def whole(cls, rows: Rows) -> Units:
        """One unit per row that covers all of its tokens, as a classifier reads them."""
        return cls(rows, rows.offsets[:-1], rows.lengths, np.arange(len(rows) + 1, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.first_token)

    @property
    def n_rows(self) -> int:
        """Rows, those without units included."""
        return len(self.offsets) - 1

    @property
    def counts(self) -> IntArray:
        """Units per row. Shape `(rows,)`."""
        return self.offsets[1:] - self.offsets[:-1]

    @property
    def row_of(self) -> IntArray:
        """Number of the row of each unit; never falls. Shape `(units,)`."""
        return np.repeat(np.arange(self.n_rows, dtype=np.int64), self.counts)

    @property
    def first_ids(self) -> IntArray:
        """Token id of each unit's first token. Shape `(units,)`."""
        return self.rows.ids[self.first_token]

    @property
    def one_per_row(self) -> bool:
        """Whether every row has exactly one unit, so that a unit exits with its row."""
        return len(self) == self.n_rows and bool((self.counts == 1).all())

    def select(self, rows: IntArray) -> Units:
        """These rows with their units, in this order. `rows`: shape `(chosen,)`, numbers of rows."""
        chosen, counts = self.rows.select(rows), self.counts[rows]
        units = ranges(self.offsets[rows], counts)
        moved = np.repeat(chosen.offsets[:-1] - self.rows.offsets[rows], counts)
        return Units(chosen, self.first_token[units] + moved, self.n_tokens[units], offsets_of(counts))

    def special(self, rows: IntArray) -> tuple[IntArray, IntArray]:
        """Special tokens before the first and after the last unit of these rows, two arrays of shape `(chosen,)`.

        In a row without units all tokens come before.
        """
        begins, ends = self.rows.offsets[rows], self.rows.offsets[rows + 1]
        first_units, some = self.offsets[rows], self.counts[rows] > 0
        edges = np.append(self.first_token, 0)  # a row without units has no first one
        stops = np.append(0, self.first_token + self.n_tokens)
        prefixes = np.where(some, edges[first_units], ends) - begins
        suffixes = np.where(some, ends - stops[self.offsets[rows + 1]], 0)
        return prefixes, suffixes

    def spans(self, rows: IntArray, starts: IntArray, stops: IntArray) -> Units:
        """New rows, each a run of units between the special tokens of the row that it comes from. Shapes: `(spans,)`.

        `rows`: numbers, in any order, any number of times; `starts`: the first unit of each run, numbered over all
        rows; `stops`: the unit after the last one, of the same row; equal to `starts` where the row has no units.
        """
        prefixes, suffixes = self.special(rows)
        counts = stops - starts
        body_begins = np.append(self.first_token, 0)[starts]
        body_ends = np.append(0, self.first_token + self.n_tokens)[stops]
        bodies = np.where(counts > 0, body_ends - body_begins, 0)
        begins = np.stack((self.rows.offsets[rows], body_begins, self.rows.offsets[rows + 1] - suffixes), axis=1)
        lengths = np.stack((prefixes, bodies, suffixes), axis=1)
        tokens = ranges(begins.ravel(), lengths.ravel())
        offsets = offsets_of(lengths.sum(axis=1))
        units = ranges(starts, counts)
        moved = np.repeat(offsets[:-1] + prefixes - body_begins, counts)
        chosen = Rows(ids=self.rows.ids[tokens], types=self.rows.types[tokens], offsets=offsets)
        return Units(chosen, self.first_token[units] + moved, self.n_tokens[units], offsets_of(counts))

    def shorten(self, most: IntArray) -> Units:
        """The same rows and units, each unit with its first `most` tokens at most. `most`: shape `(units,)`, from 1."""
        dropped = np.maximum(self.n_tokens - most, 0)
        keep = np.ones(self.rows.tokens, dtype=np.bool_)
        keep[ranges(self.first_token + self.n_tokens - dropped, dropped)] = False
        places = offsets_of(keep)
        rows = Rows(ids=self.rows.ids[keep], types=self.rows.types[keep], offsets=places[self.rows.offsets])
        return Units(rows, places[self.first_token], self.n_tokens - dropped, self.offsets)


@dataclass(frozen=True, eq=False)
class Encoded:
    """Items as rows of token ids.

    Attributes:
        units: rows and their units, in the order of the items; the rows of one item follow each other.
        numbers: the caller's unit that each of `units` belongs to; never falls, and leaves none out. A long text is
            several rows with the same number. Shape `(units,)`.
        truncated: numbers of the items that lost tokens, rising. Shape `(truncated,)`.
        empty: numbers of the items that are empty or blank, rising. Shape `(empty,)`.
    """

    units: Units
    numbers: IntArray
    truncated: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    empty: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @property
    def n_units(self) -> int:
        """How many units the caller has."""
        return int(self.numbers[-1]) + 1 if len(self.numbers) else 0

    @property
    def n_items(self) -> int:
        """How many items the caller has: texts, of which each is a unit, or sentences, of which each is a row."""
        count = self.n_units
        return self.units.n_rows if count == len(self.units) else count


def concatenate(parts: Sequence[Rows]) -> Rows:
    """The rows of all parts, in order. An empty sequence makes no rows."""
    nothing = np.empty(0, dtype=np.int64)
    return Rows(
        ids=np.concatenate([nothing, *(part.ids for part in parts)]),
        types=np.concatenate([nothing, *(part.types for part in parts)]),
        offsets=offsets_of(np.concatenate([nothing, *(part.lengths for part in parts)])),
    )


def concatenate_units(parts: Sequence[Units]) -> Units:
    """The rows and units of all parts, in order; at least one part."""
    tokens = offsets_of(np.array([part.rows.tokens for part in parts], dtype=np.int64)).tolist()
    return Units(
        rows=concatenate([part.rows for part in parts]),
        first_token=np.concatenate([part.first_token + start for part, start in zip(parts, tokens, strict=False)]),
        n_tokens=np.concatenate([part.n_tokens for part in parts]),
        offsets=offsets_of(np.concatenate([part.counts for part in parts])),
    )

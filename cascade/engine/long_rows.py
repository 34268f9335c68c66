"""Items that are longer than a tier takes: cut into rows, and their answers averaged.

Texts come cut from their encoder; sentences of words are cut here, where a tier reads them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cascade.core.rows import BoolArray, FloatArray, IntArray, Units, ranges
from cascade.engine.inputs import Encoder, Inputs
from cascade.engine.tier import Scores
from cascade.exceptions import OptionError


@dataclass(frozen=True, eq=False)
class Reading:
    """What a tier reads in one call. Make it with `Reading.of`.

    Attributes:
        units: rows that are no longer than the tier takes, and their units.
        numbers: the caller's unit that each row unit belongs to; `None`: they are the same. Shape `(row units,)`.
        n_units: how many the caller has.
        targets: row units that need an answer; `None`: all. Shape `(row units,)`.
        prior: what is added to their logits. Shape `(row units, labels)`.
        rows: numbers of the rows with a target.
    """

    units: Units
    numbers: IntArray | None
    n_units: int
    targets: BoolArray | None
    prior: FloatArray | None
    rows: IntArray

    @classmethod
    def of(cls, inputs: Inputs, *, encoder: Encoder | None, max_length: int | None, overlap: int) -> Reading:
        """The rows that an encoder makes, those of more than `max_length` tokens cut as `cut` does; `None`: none is.

        A row without room for a word is an `OptionError`.
        """
        encoded, targets, prior = inputs.encode(encoder), inputs.targets, inputs.prior
        units, numbers, count = encoded.units, encoded.numbers, encoded.n_units
        if max_length is not None:
            units, source = cut(units, max_length, overlap)
            numbers = numbers if units is encoded.units else numbers[source]
        own = None if len(units) == count else numbers
        if own is not None:
            targets = None if targets is None else targets[own]
            prior = None if prior is None else prior[own]
        units_of_rows = units.counts if targets is None else np.bincount(units.row_of[targets], minlength=units.n_rows)
        return cls(units, own, count, targets, prior, np.flatnonzero(units_of_rows))

    def counted(self) -> BoolArray:
        """The targets by which progress is counted: one row unit for each of the caller's. Shape `(row units,)`."""
        counted = np.ones(len(self.units), dtype=np.bool_) if self.targets is None else self.targets
        if self.numbers is None:
            return counted
        once = np.zeros(len(self.units), dtype=np.bool_)
        once[np.unique(self.numbers, return_index=True)[1]] = True
        return counted & once

    def scores(self, probabilities: FloatArray, exit_layer: IntArray | None, *, multi_label: bool) -> Scores:
        """The answers for the caller's units from those for row units: averaged; the exit is the deepest.

        Shapes `(row units, labels)` and `(row units,)`; `exit_layer` is `None` for a tier without exits.
        """
        if self.numbers is not None:
            order = np.argsort(self.numbers, kind="stable")
            sizes = np.bincount(self.numbers, minlength=self.n_units)
            starts = np.cumsum(sizes) - sizes
            summed = np.add.reduceat(probabilities[order], starts, axis=0)
            probabilities = (summed / sizes[:, None]).astype(np.float32)
            exit_layer = None if exit_layer is None else np.maximum.reduceat(exit_layer[order], starts)
        return Scores.of(probabilities, exit_layer, multi_label=multi_label)


def cut(units: Units, max_length: int, overlap: int) -> tuple[Units, IntArray]:
    """Rows that are too long as several rows of whole words, between the same special tokens; the others as they are.

    A word with more tokens than a row has room for keeps its first ones; where `max_length` leaves no room for a word
    there is an `OptionError`. Two rows of one sentence share at most `overlap` tokens, and half of a row's room.
    Returned is also the number in `units` of each of the new units, where none is missing, shape `(new units,)`.
    """
    long, rooms = _rooms(units, max_length)
    if not len(long):
        return units, np.arange(len(units), dtype=np.int64)
    if rooms.min() < 1:
        raise OptionError(
            f"max_length must leave room for a word, got {max_length} for {max_length - rooms.min()} special tokens; "
            "raise it"
        )
    most = np.full(len(units), max_length, dtype=np.int64)
    most[ranges(units.offsets[long], units.counts[long])] = np.repeat(rooms, units.counts[long])
    units = units.shorten(most)
    begins, ends, last = units.first_token, units.first_token + units.n_tokens, units.offsets[long + 1]
    starts = units.offsets[long]
    found = []  # of each long row its first span, then of each that goes on its second, ...
    while len(long):
        stops = np.minimum(np.searchsorted(ends, begins[starts] + rooms, side="right"), last)
        found.append((long, starts, stops))
        more = stops < last
        long, last, rooms = long[more], last[more], rooms[more]
        stops = stops[more]
        # What is shared leaves room for the word after it, so that every row has a word that the one before lacks.
        shared_from = np.maximum(ends[stops - 1] - np.minimum(overlap, rooms // 2), ends[stops] - rooms)
        starts = np.searchsorted(begins, shared_from)
    whole = np.ones(units.n_rows, dtype=np.bool_)
    whole[found[0][0]] = False
    found.append((np.flatnonzero(whole), units.offsets[:-1][whole], units.offsets[1:][whole]))
    rows, starts, stops = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.lexsort((starts, rows))
    rows, starts, stops = rows[order], starts[order], stops[order]
    return units.spans(rows, starts, stops), ranges(starts, stops - starts)


def shortened(units: Units, max_length: int) -> IntArray:
    """Numbers of the rows with a word of which `cut` keeps its first tokens only, rising. Shape `(such rows,)`."""
    long, rooms = _rooms(units, max_length)
    if not len(long):
        return long
    counts = units.counts[long]
    words = ranges(units.offsets[long], counts)
    return np.unique(np.repeat(long, counts)[units.n_tokens[words] > np.repeat(rooms, counts)])


def _rooms(units: Units, max_length: int) -> tuple[IntArray, IntArray]:
    """Numbers of the rows of words that are too long, and the tokens that each has room for between special ones."""
    long = np.flatnonzero((units.rows.lengths > max_length) & (units.counts > 0))
    if not len(long):
        return long, long
    prefixes, suffixes = units.special(long)
    return long, max_length - prefixes - suffixes

"""What tiers of graphs share: rows of tokens, in batches on a common thread budget.

Items that are longer than a tier takes are cut into rows, and their answers averaged. Texts come cut from their
encoder; sentences of words are cut here, where a tier reads them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from cascade.core.checks import check_whole
from cascade.core.rows import BoolArray, Encoded, FloatArray, IntArray, Units, ranges
from cascade.engine.inputs import Encoder
from cascade.engine.tier import Leaf, Progress, Readable, Scores, as_inputs
from cascade.exceptions import OptionError
from cascade.policies.batching import BatchingPolicy, TokenBudget
from cascade.policies.reading import ReadingPolicy, rounds
from cascade.runtime.executor import Executor, in_turn


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
    def of(cls, given: Readable, tier: RowTier) -> Reading:
        """The rows of a tier's encoder; those of words that are longer than the tier takes are cut, as `cut` does.

        A row without room for a word is an `OptionError`.
        """
        inputs = as_inputs(given)
        encoded, targets, prior = inputs.encode(tier.encoder), inputs.targets, inputs.prior
        units, numbers, count = encoded.units, encoded.numbers, encoded.n_units
        if tier.per_unit:
            units, source = cut(units, tier.max_length, tier.overlap)
            numbers = numbers if units is encoded.units else numbers[source]
        own = None if len(units) == count else numbers
        if own is not None:
            targets = None if targets is None else targets[own]
            prior = None if prior is None else prior[own]
        units_of_rows = units.counts if targets is None else np.bincount(units.row_of[targets], minlength=units.n_rows)
        return cls(units, own, count, targets, prior, units_of_rows.nonzero()[0])

    def reporter(self, progress: Progress | None) -> Callable[[IntArray], None]:
        """Tells a caller's `progress` how many of its targets are among the row units that were answered."""
        if progress is None:
            return lambda _gone: None
        report, counted = in_turn(progress), self.targets
        if self.numbers is not None:  # one row unit for each of the caller's
            once = np.zeros(len(self.units), dtype=np.bool_)
            once[np.unique(self.numbers, return_index=True)[1]] = True
            counted = once if counted is None else counted & once

        def tell(gone: IntArray) -> None:
            answered = len(gone) if counted is None else int(np.count_nonzero(counted[gone]))
            if answered:
                report(answered)

        return tell

    def rounds(self, policy: ReadingPolicy | None, said: FloatArray, *, multi_label: bool) -> Iterator[Reading]:
        """Parts of this to read one after the other, as a policy has it; without long texts or a policy this itself.

        `said`: where the answers for row units are when the next part is asked for. Shape `(row units, labels)`.
        """
        if policy is None or self.numbers is None:
            yield self
            return
        owners = self.numbers[self.rows]
        for some in rounds(policy, owners, lambda read: said[self.rows[read]], multi_label=multi_label):
            yield replace(self, rows=self.rows[some])

    def scores(self, probabilities: FloatArray, exit_layer: IntArray | None, *, multi_label: bool) -> Scores:
        """The answers for the caller's units from those for row units: averaged; the exit is the deepest.

        Shapes `(row units, labels)` and `(row units,)`; `exit_layer` is 0 for those that were not read, whose
        probabilities are 0, too, and `None` for a tier without exits.
        """
        if self.numbers is not None:
            order = np.argsort(self.numbers, kind="stable")
            sizes = np.bincount(self.numbers, minlength=self.n_units)
            starts = np.cumsum(sizes) - sizes
            summed = np.add.reduceat(probabilities[order], starts, axis=0)
            read = sizes if exit_layer is None else np.add.reduceat(exit_layer[order] > 0, starts, dtype=np.int64)
            probabilities = (summed / np.maximum(read, 1)[:, None]).astype(np.float32)
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


@dataclass(frozen=True, eq=False, kw_only=True)
class RowTier(Leaf, ABC):
    """A tier that reads rows of tokens.

    Attributes:
        labels: how many.
        max_length: tokens of a row at most. Longer rows of words are cut into several.
        encoder: makes rows of items; that of the inputs if left out.
        overlap: tokens that two rows of a sentence that is too long share at most.
        batching: which rows start together.
        multi_label: the labels are independent yes/no decisions.
        executor: runs several batches at once; shared by the tiers of a bundle.
        pool_from: tokens from which what runs alone gets all threads; below, starting them costs more than it brings.
    """

    labels: int
    max_length: int
    encoder: Encoder | None = None
    overlap: int = 64
    batching: BatchingPolicy = field(default_factory=TokenBudget)
    multi_label: bool = False
    executor: Executor = field(default_factory=Executor)
    pool_from: int

    def __post_init__(self) -> None:
        check_whole("overlap", self.overlap, "0 cuts long sentences without an overlap", least=0)

    @property
    @abstractmethod
    def per_unit(self) -> bool:
        """Whether rows hold several units, each with logits of its own."""

    def lost(self, encoded: Encoded) -> IntArray:
        """Numbers of the items that have tokens that this tier does not read, perhaps twice. `encoded`: their rows."""
        return shortened(encoded.units, self.max_length) if self.per_unit else np.empty(0, dtype=np.int64)

    def _pooled(self, groups: int, lengths: IntArray) -> bool:
        """Whether graphs run on all threads: where there is one, or one group of batches that is worth them."""
        return self.executor.threads == 1 or (groups < 2 and lengths.sum() >= self.pool_from)

"""Rows under way together: their packed tokens, the units in them, and how units exit.

A unit that exits while its row goes on keeps its last hidden state and is still attended to (halt-and-copy: Li et al.,
ACL 2021): keys and values are made of all tokens of the live rows, everything else of the active ones only. Special
tokens are active as long as their row is live. Where a unit is a whole row, rows just leave and nothing is halted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from cascade.core.rows import BoolArray, FloatArray, IntArray, Units, offsets_of, ranges
from cascade.engine.packing import ACTIVE_FEEDS, FEEDS, POOLING, Actives, Packing, neighbours
from cascade.runtime.backend import Array

HALTED = 0.25
"""What a halted token costs beside an active one: keys and values are about a quarter of a layer's time in int8."""

WHOLE_ROWS = frozenset({"hidden", *FEEDS})
"""Inputs that a stage can ask for if its logits are one vector per row."""

PER_UNIT = frozenset({"hidden", "words", *FEEDS, *ACTIVE_FEEDS} - POOLING)
"""Inputs that a stage can ask for if its logits are one vector per unit."""


@dataclass(frozen=True, eq=False)
class Halting:
    """Units that are parts of their rows, and which tokens are active. Make it with `Halting.of`.

    Attributes:
        rows: number of the row of each live unit; never falls. Shape `(live units,)`.
        first_token: number of its first token among all tokens. Shape `(live units,)`.
        n_tokens: how many it has. Shape `(live units,)`.
        places: which of the live units are still inside; rising. Shape `(units inside,)`.
        is_active: True where a token is active. Shape `(tokens,)`.
    """

    rows: IntArray
    first_token: IntArray
    n_tokens: IntArray
    places: IntArray
    is_active: BoolArray
    _made: list[tuple[Actives, IntArray]] = field(default_factory=list, repr=False)

    @classmethod
    def of(cls, units: Units) -> Halting:
        """All units inside, all tokens active."""
        places = np.arange(len(units), dtype=np.int64)
        return cls(units.row_of, units.first_token, units.n_tokens, places, np.ones(units.rows.tokens, dtype=np.bool_))

    def feeds(self, grid: Packing, names: Iterable[str]) -> dict[str, Array]:
        """The arrays of these names, as `Live.feeds` gives them."""
        if not self._made:
            first = self.first_token[self.places]
            own, active = grid, np.arange(len(self.is_active), dtype=np.int64)
            if not self.is_active.all():
                active = np.flatnonzero(self.is_active)
                lengths = np.add.reduceat(self.is_active, grid.firsts, dtype=np.int64)
                own, first = Packing.of(lengths, heads=grid.heads), np.searchsorted(active, first)
            self._made.append((Actives(grid, own, active), first))
        ((actives, first),) = self._made
        known = (name for name in names if name in ACTIVE_FEEDS or name in FEEDS)
        found = {name: (actives if name in ACTIVE_FEEDS else grid).array(name) for name in known}
        return {**found, "words": first}

    def leave(self, gone: BoolArray) -> Halting:
        """The same without some units. `gone`: shape `(units inside,)`."""
        left = self.places[gone]
        is_active = self.is_active.copy()
        is_active[ranges(self.first_token[left], self.n_tokens[left])] = False
        return Halting(self.rows, self.first_token, self.n_tokens, self.places[~gone], is_active)

    def select(self, rows: BoolArray, lengths: IntArray, tokens: IntArray) -> tuple[Halting, IntArray]:
        """What is in some rows, every unit inside among it, and the numbers of these live units.

        `rows`: True for these, shape `(rows,)`; `lengths`: tokens of all rows; `tokens`: numbers of those in these.
        """
        stay = np.flatnonzero(rows[self.rows])
        own = self.rows[stay]
        rest = Halting(
            rows=offsets_of(rows)[own],
            first_token=self.first_token[stay] - offsets_of(np.where(rows, 0, lengths))[own],
            n_tokens=self.n_tokens[stay],
            places=np.searchsorted(stay, self.places),
            is_active=self.is_active[tokens],
        )
        return rest, stay


@dataclass(frozen=True, eq=False)
class Live:
    """Rows that are under way together. A row is live while at least one of its units is inside.

    Attributes:
        grid: the packing of all their tokens.
        units: the tier's number of each live unit, those that have exited included. Shape `(live units,)`.
        hidden: states of all tokens. Shape `(tokens, width)`.
        history: probabilities of the units inside at the exits so far; `None` where no policy looks at them. Shape
            `(units inside, exits, labels)`.
        halting: units within rows; `None` where each row is one unit, so that all live units are inside.
    """

    grid: Packing
    units: IntArray
    hidden: FloatArray
    history: FloatArray | None = None
    halting: Halting | None = None

    @property
    def inside(self) -> IntArray:
        """The tier's numbers of the units that are still inside. Shape `(units inside,)`."""
        return self.units if self.halting is None else self.units[self.halting.places]

    @property
    def size(self) -> tuple[int, ...]:
        """What running a stage costs, in the measures that limit merged batches.

        Tokens and rows; where tokens can be halted, active tokens and the halted ones by what they cost.
        """
        tokens = len(self.hidden)
        if self.halting is None:
            return tokens, len(self.units)
        active = int(np.count_nonzero(self.halting.is_active))
        return (active + int((tokens - active) * HALTED),)

    def feeds(self, names: Iterable[str]) -> dict[str, Array]:
        """What a stage with inputs of these names reads.

        `hidden`, those of `packing.FEEDS`, and of all active tokens those of `packing.ACTIVE_FEEDS`: `active`, their
        numbers, shape `(actives,)`; `query_head_gather`, as `head_gather`, and `head_scatter` in a grid of their own;
        `words`, number among them of the first token of each unit inside, shape `(units inside,)`.
        """
        found = self.grid.feeds(names) if self.halting is None else self.halting.feeds(self.grid, names)
        found["hidden"] = self.hidden
        return found

    def after(self, new: FloatArray) -> Live:
        """The same rows one stage later. `new`: states of the active tokens; those of halted ones stay."""
        if self.halting is not None and len(new) < len(self.hidden):
            # A token is halted after the first stage at the earliest, so these states are no caller's.
            self.hidden[self.halting.is_active] = new
            return self
        return Live(self.grid, self.units, new, self.history, self.halting)

    def finished(self, staying: BoolArray) -> BoolArray:
        """Which units inside are in rows without any that stays; `staying` and the result: `(units inside,)`."""
        if self.halting is None:
            return ~staying
        rows = self.halting.rows[self.halting.places]
        waiting = np.zeros(len(self.grid.lengths), dtype=np.bool_)
        waiting[rows[staying]] = True
        return ~waiting[rows]

    def leave(self, gone: BoolArray) -> Live:
        """What remains without some units, and without the rows in which no other is inside.

        `gone`: True where a unit exits; not everywhere. Shape `(units inside,)`.
        """
        if not gone.any():
            return self
        history = None if self.history is None else self.history[~gone]
        lengths, halting = self.grid.lengths, None
        if self.halting is None:
            rows = ~gone
        else:
            halting = self.halting.leave(gone)
            rows = np.zeros(len(lengths), dtype=np.bool_)
            rows[halting.rows[halting.places]] = True
            if rows.all():
                return Live(self.grid, self.units, self.hidden, history, halting)
        tokens = np.flatnonzero(np.repeat(rows, lengths))
        stay = np.flatnonzero(rows)
        if halting is not None:
            halting, stay = halting.select(rows, lengths, tokens)
        grid = Packing.of(lengths[rows], heads=self.grid.heads)
        return Live(grid, self.units[stay], np.take(self.hidden, tokens, axis=0), history, halting)

    @classmethod
    def join(cls, parts: Sequence[Live]) -> Live:
        """Several as one, in order."""
        if len(parts) == 1:
            return parts[0]
        history = [part.history for part in parts if part.history is not None]
        return cls(
            Packing.of(np.concatenate([part.grid.lengths for part in parts]), heads=parts[0].grid.heads),
            np.concatenate([part.units for part in parts]),
            np.concatenate([part.hidden for part in parts]),
            np.concatenate(history) if history else None,
            _joined(parts),
        )


def merge(parts: Sequence[Live], most: tuple[int, ...]) -> list[Live]:
    """Neighbours together, while none becomes larger than `most`, the largest `Live.size` at the start."""
    if len(parts) < 2:
        return list(parts)
    return [Live.join(parts[group]) for group in neighbours([part.size for part in parts], most)]


def _joined(parts: Sequence[Live]) -> Halting | None:
    own = [part.halting for part in parts if part.halting is not None]
    if not own:
        return None

    def moved(name: str, by: Sequence[int]) -> IntArray:
        steps = offsets_of(np.array(by, dtype=np.int64)).tolist()
        return np.concatenate([getattr(one, name) + step for one, step in zip(own, steps, strict=False)])

    return Halting(
        rows=moved("rows", [len(part.grid.lengths) for part in parts]),
        first_token=moved("first_token", [len(part.hidden) for part in parts]),
        n_tokens=np.concatenate([one.n_tokens for one in own]),
        places=moved("places", [len(part.units) for part in parts]),
        is_active=np.concatenate([one.is_active for one in own]),
    )

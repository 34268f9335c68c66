"""What all tiers say about every text, at every exit, recorded once: any setting is replayed without running a model.

An item is what the caller calls a text; a row is one window of it. The two are the same but for long texts. Exit
policies are replayed on the probabilities that every exit gave while no unit left: that is exact where rows leave
whole. Where words leave one by one it is near: those that stay would have seen the others in the state they left in, so
a tagger's points are run before one is chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cascade.calibration.costs import Costs
from cascade.calibration.runs import Run, Sample
from cascade.calibration.temperature import Temperatures, logits_of, rescale
from cascade.core.confidence import answers, evidence, max_probability, probabilities
from cascade.core.rows import BoolArray, FloatArray, IntArray, Units, offsets_of, ranges, read_only
from cascade.policies import exits, routing
from cascade.policies.exits import ExitPolicy, ExitState, Never, never
from cascade.policies.reading import rounds
from cascade.policies.routing import DeferAll, RoutingState, defer_all
from cascade.policies.settings import Policies
from cascade.policies.unit_exits import UnitState


@dataclass(frozen=True, eq=False)
class TierAnswers:
    """Probabilities of one tier, at all exits.

    `probabilities`: of rows, without another tier's evidence, shape `(rows, exits, labels)`, one exit of a tier without
    any; `items`: number of the item that each row belongs to, from 0, none left out, never falling, and `lengths`:
    tokens of each row, shape `(rows,)`; `layers`: number of the layer below each exit, counted from 1; the last is full
    depth. Empty without exits.
    """

    probabilities: FloatArray
    items: IntArray
    lengths: IntArray
    layers: tuple[int, ...] = ()

    @property
    def full(self) -> FloatArray:
        """What the tier says at full depth. Shape `(items, labels)`."""
        return means(self.probabilities[:, -1], self.items)

    @property
    def tokens(self) -> IntArray:
        """Of all rows of each item. Shape `(items,)`."""
        return np.bincount(self.items, weights=self.lengths).astype(np.int64)

    def rows_of(self, examples: IntArray) -> tuple[IntArray, IntArray]:
        """Rows of these items, in this order, and the place of the item of each. Shape `(rows,)` both."""
        starts = offsets_of(np.bincount(self.items).astype(np.int64))
        windows = np.diff(starts)[examples]
        return ranges(starts[:-1][examples], windows), np.repeat(np.arange(len(examples), dtype=np.int64), windows)

    def select(self, examples: IntArray) -> TierAnswers:
        """About these items, numbered from 0 in this order. Shape `(chosen,)`."""
        rows, items = self.rows_of(examples)
        return replace(self, probabilities=self.probabilities[rows], items=items, lengths=self.lengths[rows])


@dataclass(frozen=True, eq=False)
class TextAnswers(Sample):
    """What all tiers say about texts; a `Sample`.

    Attributes:
        tiers: first to last, all about the same items.
        lengths: tokens of each item, as routers see them. Shape `(items,)`.
        truth: number of the right label of each item, shape `(items,)`; 0 and 1 per label where the labels are
            independent, shape `(items, labels)`; `None` where it is not known.
        temperatures: that the probabilities were made with.
        costs: of a token of each tier's rows, one for each exit.
        multi_label: the labels are independent yes/no decisions.
        original: see `Sample`. Shape `(items, columns)`.
        words: sentences, where the items are their words (`WordAnswers.as_items`); none of these can be selected.
    """

    tiers: tuple[TierAnswers, ...]
    lengths: IntArray
    truth: IntArray | None
    temperatures: Temperatures
    costs: Costs
    multi_label: bool = False
    original: IntArray | None = None
    words: Units | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def layers(self) -> tuple[int, ...]:
        """Below each exit of the last tier; a tier without exits counts as one layer."""
        return self.tiers[-1].layers or (1,)

    @property
    def binary(self) -> bool:
        """Whether an answer is a set of labels, or yes or no, rather than the likeliest label."""
        return self.multi_label or bool(self.tiers and self.tiers[-1].probabilities.shape[-1] == 1)

    @property
    def at_full_depth(self) -> Policies:
        count = len(self.tiers)
        return Policies(routers=(defer_all,) * (count - 1), exits=(never,) * count, temperatures=self.temperatures)

    def routing_state(self, said: FloatArray, items: IntArray | None = None) -> RoutingState:
        """What a router sees of items (all if left out) of which a tier says this. Shape `(items, labels)`."""
        lengths = self.lengths if items is None else self.lengths[items]
        sure = max_probability(said, multi_label=self.multi_label)
        return RoutingState(read_only(said), read_only(sure), read_only(lengths), self.multi_label)

    def run(self, policies: Policies) -> Run:
        """Route, exit and merge as the engine does; the policies themselves are asked.

        A router sees all items at once that come to its tier, so no `Budget`, whose share would be one of these
        examples. Temperatures are those of the answers (`with_temperatures`).
        """
        paid = float(self.costs.always * self.lengths.sum())
        found = np.zeros((len(self), self.tiers[-1].probabilities.shape[-1]), dtype=np.float32)
        number, layers = np.ones(len(self), dtype=np.int64), np.zeros(len(self), dtype=np.int64)
        here, prior = np.arange(len(self)), None  # items that go on, and what the tiers before add to logits
        ways = zip(policies.routers, policies.blend, strict=True)
        for place, (tier, costs) in enumerate(zip(self.tiers, self.costs.tiers, strict=True)):
            router, blend = next(ways, (None, 0.0))
            if isinstance(router, DeferAll) or not len(here):
                continue
            rows, owners = tier.rows_of(here)
            seen = self.blended(tier.probabilities[rows], None if prior is None else prior[owners])
            taken = leave(policies.exits[place], seen, tier.layers or (1,), multi_label=self.multi_label)
            made = seen[np.arange(len(rows)), taken]
            if policies.reading is not None and tier.layers and len(rows) > len(here):
                parts = rounds(policies.reading, owners, made.__getitem__, multi_label=self.multi_label)
                read = np.sort(np.concatenate([*parts]))
                rows, owners, taken, made = rows[read], owners[read], taken[read], made[read]
            paid += float(tier.lengths[rows] @ costs.upto[taken])
            said = means(made, owners)
            found[here], number[here], layers[here] = said, place + 1, 0
            if tier.layers:
                np.maximum.at(layers, here[owners], np.asarray(tier.layers)[taken])
            if router is not None:
                deferred = routing.decide(router, self.routing_state(said, here))
                here = here[deferred]
                prior = evidence(said[deferred], weight=blend, multi_label=self.multi_label) if blend else None
        return Run(self.answered(found), number, layers, paid)

    def answered(self, found: FloatArray) -> IntArray:
        """What probabilities of the items answer, in the form of `Run.answers`. Shape `(items, labels)`."""
        return answers(found, multi_label=self.multi_label)

    def cost(self, policies: Policies, run: Run) -> float:
        return run.seconds / self.full.seconds

    def timed(self, policies: Policies) -> tuple[float, float]:
        return self.run(policies).seconds / len(self), self.full.seconds / len(self)

    def events(self, mask: BoolArray) -> BoolArray:
        return mask  # an item is an example

    def classes(self, answers: IntArray) -> BoolArray:
        labels = np.arange(self.tiers[-1].probabilities.shape[-1])[:, None]
        return answers.T.astype(np.bool_) if self.binary else answers[:, 0] == labels

    def select(self, examples: IntArray) -> TextAnswers:
        return replace(
            self,
            tiers=tuple(tier.select(examples) for tier in self.tiers),
            lengths=self.lengths[examples],
            truth=None if self.truth is None else self.truth[examples],
            original=None if self.original is None else self.original[examples],
        )

    def with_temperatures(self, temperatures: Temperatures) -> TextAnswers:
        """The same answers with other temperatures, of each tier and exit."""
        if temperatures == self.temperatures:
            return self
        tiers = []
        for tier, old, new in zip(self.tiers, self.temperatures, temperatures, strict=True):
            heads = [
                rescale(tier.probabilities[:, exit_], was=was, now=now, multi_label=self.multi_label)
                for exit_, (was, now) in enumerate(zip(old, new, strict=True))
            ]
            tiers.append(replace(tier, probabilities=np.stack(heads, axis=1)))
        return replace(self, tiers=tuple(tiers), temperatures=temperatures)

    def blended(self, own: FloatArray, prior: FloatArray | None) -> FloatArray:
        """Probabilities at every exit, the answer of a tier before counting beside them.

        `own`: shape `(rows, exits, labels)`, as what comes back; `prior`: `confidence.evidence`, `(rows, labels)`.
        """
        if prior is None:
            return own
        logits = logits_of(own, multi_label=self.multi_label)
        return probabilities(logits, multi_label=self.multi_label, prior=prior[:, None])


def means(rows: FloatArray, owners: IntArray) -> FloatArray:
    """Of the rows of each owner. Shape `(rows, ...)` and `(rows,)`, never falling, to `(owners, ...)`."""
    starts = np.flatnonzero(np.diff(owners, prepend=-1))
    if len(starts) == len(rows):
        return rows
    windows = np.diff(np.append(starts, len(rows))).reshape(-1, *[1] * (rows.ndim - 1))
    return np.asarray(np.add.reduceat(rows, starts, axis=0) / windows, dtype=np.float32)


def state_at(
    history: FloatArray,
    layers: Sequence[int],
    index: int,
    *,
    multi_label: bool = False,
    words: Units | None = None,
    inside: IntArray | None = None,
) -> ExitState:
    """What an exit policy sees of units at the exit of this index. `history`: shape `(units, exits, labels)`.

    `words`: see `leave`; `inside`: which of them these are, all if left out.
    """
    last, seen = index == len(layers) - 1, read_only(history[:, : index + 1])
    state = ExitState(index, layers[index], last, read_only(history[:, index]), seen, multi_label)
    if words is None:
        return state
    inside, rows = np.arange(len(words)) if inside is None else inside, words.row_of
    under_way = np.zeros(words.n_rows, dtype=np.bool_)
    under_way[rows[inside]] = True
    live = np.flatnonzero(under_way[rows])
    places, ids = np.searchsorted(live, inside), words.first_ids[inside]
    return UnitState(**vars(state), sentences=rows[live], places=places, ids=ids)


def leave(
    policy: ExitPolicy,
    history: FloatArray,
    layers: Sequence[int],
    *,
    words: Units | None = None,
    multi_label: bool = False,
) -> IntArray:
    """At which exit each unit would leave: its number, counted from 0. Shape `(units,)`.

    `history`: probabilities at every exit, shape `(units, exits, labels)`; `layers`: number of the layer below each
    exit, from 1; `words`: the words that these are; `None` where units are rows.
    """
    taken = np.full(len(history), len(layers) - 1, dtype=np.int64)
    inside = np.arange(0 if isinstance(policy, Never) else len(history))
    for index in range(len(layers) - 1):
        if not len(inside):
            break
        state = state_at(history[inside], layers, index, multi_label=multi_label, words=words, inside=inside)
        gone = exits.decide(policy, state)
        taken[inside[gone]] = index
        inside = inside[~gone]
    return taken

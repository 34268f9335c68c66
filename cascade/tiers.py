"""Tiers: one complete model each, from rows of token ids to probabilities.

`SingleExit` runs one padded graph (tier 1); `MultiExit` runs a chain of packed stages and lets sure rows leave after
each (tier 2). Anything with their `score` can be a tier. They leave to others: who is deferred (`engine`), who leaves
(`exits`), which rows run together (`batching`), index arithmetic (`packing`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np

from cascade import exits
from cascade.backend import Array, Backend
from cascade.batch import Batch, BoolArray, FloatArray, IntArray
from cascade.batching import BatchingPolicy, TokenBudget, batches
from cascade.confidence import max_probability, probabilities
from cascade.exceptions import BundleError, OptionError
from cascade.exits import AtExit, ExitPolicy, ExitState, Never, never
from cascade.packing import Packing, compact, padded

__all__ = ["MultiExit", "Progress", "Scores", "SingleExit", "Tier"]

Progress: TypeAlias = Callable[[int], object]
"""Called with the number of rows that were just answered."""


@dataclass(frozen=True, eq=False)
class Scores:
    """What a tier says about rows, in their order.

    Attributes:
        probabilities: after the temperature. Shape `(rows, labels)`.
        confidence: the largest probability (`confidence.max_probability`). Shape `(rows,)`.
        exits: number of the layer after which a row left, counted from 1; 0 in a tier without exits. Shape `(rows,)`.
    """

    probabilities: FloatArray
    confidence: FloatArray
    exits: IntArray


class Tier(Protocol):
    """Any model that scores rows."""

    def score(self, batch: Batch, *, progress: Progress | None = None) -> Scores:
        """Scores of all rows of the batch, which may be empty."""


@dataclass(frozen=True, eq=False, kw_only=True)
class SingleExit:
    """A tier of one padded graph.

    Attributes:
        backend: `input_ids`, `attention_mask` and perhaps `token_type_ids`, int64 of shape `(rows, longest)`, to
            `logits` of shape `(rows, labels)`.
        labels: how many.
        max_length: tokens of a row at most; longer rows lose their middle (see `packing.padded`).
        temperature: logits are divided by it.
        batching: which rows run together.
        multi_label: the labels are independent yes/no decisions.
    """

    backend: Backend
    labels: int
    max_length: int
    temperature: float = 1.0
    batching: BatchingPolicy = field(default_factory=TokenBudget)
    multi_label: bool = False

    def __post_init__(self) -> None:
        _check_temperature(self.temperature)
        known = {"input_ids", "attention_mask", "token_type_ids"}
        _check_names("tier 1", self.backend, known, ("logits",))

    def score(self, batch: Batch, *, progress: Progress | None = None) -> Scores:
        """Scores of all rows.

        Args:
            batch: may be empty.
            progress: called after each batch that ran.
        """
        result = np.empty((len(batch), self.labels), dtype=np.float32)
        for rows in batches(self.batching, np.minimum(batch.lengths, self.max_length)):
            ids, mask, types = padded(batch.select(rows), max_length=self.max_length)
            made = self.backend.run({"input_ids": ids, "attention_mask": mask, "token_type_ids": types})
            logits = _logits(made, len(rows), self.labels, "tier 1")
            result[rows] = probabilities(logits, multi_label=self.multi_label, temperature=self.temperature)
            if progress is not None:
                progress(len(rows))
        return _scores(result, np.zeros(len(batch), dtype=np.int64), self.multi_label)


@dataclass(frozen=True, eq=False)
class _Live:
    """Rows that are still inside, packed.

    Attributes:
        rows: their numbers in the tier's batch. Shape `(rows,)`.
        lengths: tokens of each. Shape `(rows,)`.
        hidden: shape `(tokens, width)`.
        history: probabilities at the exits so far. Shape `(rows, exits so far, labels)`.
    """

    rows: IntArray
    lengths: IntArray
    hidden: FloatArray
    history: FloatArray

    def keep(self, mask: BoolArray) -> _Live:
        if mask.all():
            return self
        return _Live(self.rows[mask], self.lengths[mask], compact(self.hidden, self.lengths, mask), self.history[mask])


@dataclass(frozen=True, eq=False, kw_only=True)
class MultiExit:
    """A tier of packed stages with an exit after each.

    Rows that leave take their tokens with them; what remains of neighbouring batches goes on together, because a small
    batch costs more per token than a large one.

    Attributes:
        embed: `input_ids`, `position_ids` and perhaps `token_type_ids`, int64 of shape `(tokens,)`, to `hidden` of
            shape `(tokens, width)`.
        stages: `hidden`, `gather`, `mask`, `scatter` (`packing.Packing`) to `logits` and `hidden_out`, which is the
            next stage's `hidden`; the last stage may lack it.
        layers: number of the last layer of each stage, counted from 1.
        labels: how many.
        temperatures: one per stage; its logits are divided by it.
        exit_policy: who leaves; not asked after the last stage, and never asked if it is `never`.
        batching: which rows start together.
        position_offset: position id of a row's first token.
        multi_label: the labels are independent yes/no decisions.
        together: how many batches are under way at once, so that what remains of them can be merged. Their hidden
            states are in memory at once; 1 merges nothing.
    """

    embed: Backend
    stages: Sequence[Backend]
    layers: Sequence[int]
    labels: int
    temperatures: Sequence[float] = ()
    exit_policy: ExitPolicy = never
    batching: BatchingPolicy = field(default_factory=TokenBudget)
    position_offset: int = 0
    multi_label: bool = False
    together: int = 8

    def __post_init__(self) -> None:
        object.__setattr__(self, "temperatures", tuple(self.temperatures) or (1.0,) * len(self.stages))
        if not self.stages or not len(self.stages) == len(self.layers) == len(self.temperatures):
            raise OptionError(
                f"stages, layers and temperatures must be equally many and at least 1, were: {len(self.stages)}, "
                f"{len(self.layers)} and {len(self.temperatures)}; give one of each per exit"
            )
        if self.together < 1:
            raise OptionError(f"together must be at least 1, was: {self.together}; 1 merges nothing")
        for temperature in self.temperatures:
            _check_temperature(temperature)
        _check_names("tier 2's embed", self.embed, {"input_ids", "token_type_ids", "position_ids"}, ("hidden",))
        for layer, stage in zip(self.layers, self.stages, strict=True):
            known = {"hidden", "gather", "mask", "scatter"}
            outputs = ("logits",) if layer == self.layers[-1] else ("hidden_out", "logits")
            _check_names(f"tier 2's stage of layer {layer}", stage, known, outputs)
        exits.check(self.exit_policy, self.layers)

    def score(self, batch: Batch, *, progress: Progress | None = None) -> Scores:
        """Scores of all rows, each with the answer of the exit at which it left.

        Args:
            batch: may be empty.
            progress: called whenever rows have left.

        Raises:
            OptionError: the exit policy returned something other than a mask of one bool per row.
        """
        result = np.empty((len(batch), self.labels), dtype=np.float32)
        layers = np.empty(len(batch), dtype=np.int64)

        def leave(live: _Live, index: int, gone: BoolArray) -> None:
            rows = live.rows[gone]
            result[rows], layers[rows] = live.history[gone, -1], self.layers[index]
            if progress is not None and len(rows):
                progress(len(rows))

        self._run(batch, self.exit_policy, leave)
        return _scores(result, layers, self.multi_label)

    def all_exits(self, batch: Batch, *, progress: Progress | None = None) -> FloatArray:
        """Probabilities at every exit, nobody leaving: from these any exit policy can be replayed.

        Args:
            batch: may be empty.
            progress: called after each batch.

        Returns:
            Shape `(rows, exits, labels)`.
        """
        result = np.empty((len(batch), len(self.stages), self.labels), dtype=np.float32)

        def leave(live: _Live, _index: int, _gone: BoolArray) -> None:
            result[live.rows] = live.history
            if progress is not None:
                progress(len(live.rows))

        self._run(batch, never, leave)
        return result

    def _run(self, batch: Batch, policy: ExitPolicy, leave: Callable[[_Live, int, BoolArray], None]) -> None:
        waiting = batches(self.batching, batch.lengths)
        # Nobody leaves early, or all leave at once, so there is nothing to merge: one batch at a time needs the least
        # memory and caches.
        together = 1 if isinstance(policy, Never | AtExit) else self.together
        for first in range(0, len(waiting), together):
            wave = waiting[first : first + together]
            most_tokens = max(int(batch.lengths[rows].sum()) for rows in wave)
            most_rows = max(map(len, wave))
            live = [self._embed(batch, rows) for rows in wave]
            for index in range(len(self.stages)):
                live = [self._stage(index, part, policy, leave) for part in live]
                if index < len(self.stages) - 1:
                    live = _merge([part for part in live if len(part.rows)], most_tokens, most_rows)

    def _embed(self, batch: Batch, rows: IntArray) -> _Live:
        chosen = batch.select(rows)
        feeds = {
            "input_ids": chosen.ids,
            "token_type_ids": chosen.types,
            "position_ids": Packing.of(chosen.lengths).position_ids(self.position_offset),
        }
        history = np.empty((len(rows), 0, self.labels), dtype=np.float32)
        return _Live(rows, chosen.lengths, self.embed.run(feeds)["hidden"], history)

    def _stage(
        self, index: int, live: _Live, policy: ExitPolicy, leave: Callable[[_Live, int, BoolArray], None]
    ) -> _Live:
        packing = Packing.of(live.lengths)
        feeds: dict[str, Array] = {
            "hidden": live.hidden,
            "gather": packing.gather,
            "mask": packing.mask,
            "scatter": packing.scatter,
        }
        made = self.stages[index].run(feeds)
        logits = _logits(made, len(live.rows), self.labels, f"tier 2's stage of layer {self.layers[index]}")
        now = probabilities(logits, multi_label=self.multi_label, temperature=self.temperatures[index])
        last = index == len(self.stages) - 1
        hidden = live.hidden if last else made["hidden_out"]
        live = _Live(live.rows, live.lengths, hidden, np.concatenate((live.history, now[:, None]), axis=1))
        if not last and isinstance(policy, Never):
            return live
        gone = np.ones(len(live.rows), dtype=np.bool_)
        if not last:
            state = ExitState(
                exit=index,
                layer=self.layers[index],
                last=False,
                probabilities=now,
                history=live.history,
                multi_label=self.multi_label,
            )
            gone = exits.decide(policy, state)
        leave(live, index, gone)
        return live if last else live.keep(~gone)


def _merge(parts: Sequence[_Live], most_tokens: int, most_rows: int) -> list[_Live]:
    """Neighbours together, while they are no larger than the largest batch was when it started."""
    groups: list[list[_Live]] = []
    tokens = rows = 0
    for part in parts:
        tokens, rows = tokens + len(part.hidden), rows + len(part.rows)
        if groups and tokens <= most_tokens and rows <= most_rows:
            groups[-1].append(part)
        else:
            groups.append([part])
            tokens, rows = len(part.hidden), len(part.rows)
    return [group[0] if len(group) == 1 else _join(group) for group in groups]


def _join(parts: Sequence[_Live]) -> _Live:
    return _Live(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.lengths for part in parts]),
        np.concatenate([part.hidden for part in parts]),
        np.concatenate([part.history for part in parts]),
    )


def _scores(result: FloatArray, layers: IntArray, multi_label: bool) -> Scores:
    return Scores(result, max_probability(result, multi_label=multi_label), layers)


def _logits(made: Mapping[str, Array], rows: int, labels: int, who: str) -> FloatArray:
    logits: FloatArray = made["logits"]
    if logits.shape != (rows, labels):
        raise BundleError(
            f"{who} must return logits of shape ({rows}, {labels}), returned: {logits.shape}; "
            "its labels differ from the manifest's, export the bundle again"
        )
    return logits


def _check_names(who: str, backend: Backend, inputs: set[str], outputs: Sequence[str]) -> None:
    strange, missing = set(backend.inputs) - inputs, set(outputs) - set(backend.outputs)
    if strange or missing:
        raise BundleError(
            f"{who} must have inputs among {sorted(inputs)} and the outputs {list(outputs)}, had: "
            f"{list(backend.inputs)} and {list(backend.outputs)}; export the bundle again"
        )


def _check_temperature(temperature: float) -> None:
    if not 0 < temperature < float("inf"):
        raise OptionError(f"temperature must be above 0 and finite, was: {temperature}; 1 changes nothing")

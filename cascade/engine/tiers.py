"""Tiers: one complete model each, from rows of token ids to probabilities.

`SingleExit` runs one padded graph (tier 1); `MultiExit` runs a chain of packed stages and lets sure rows leave after
each (tier 2). Anything with their `score` can be a tier.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np

from cascade.core.checks import check_logits, check_names, check_temperature
from cascade.core.confidence import max_probability, probabilities
from cascade.core.rows import BoolArray, FloatArray, IntArray, Rows
from cascade.engine.packing import Packing, compact, neighbours, padded
from cascade.engine.staged import Staged
from cascade.policies import exits
from cascade.policies.batching import POOL_FROM, BatchingPolicy, TokenBudget, batches
from cascade.policies.exits import AtExit, ExitPolicy, ExitState, Never, never
from cascade.runtime.backend import Backend
from cascade.runtime.workers import in_turn, run_each

__all__ = ["MultiExit", "Progress", "Scores", "SingleExit", "Tier"]

Progress: TypeAlias = Callable[[int], object]
"""Called with the number of rows that were just answered."""


@dataclass(frozen=True, eq=False)
class Scores:
    """What a tier says about rows, in their order.

    Attributes:
        probabilities: after the temperature. Shape `(rows, labels)`.
        confidence: the largest probability (`confidence.max_probability`). Shape `(rows,)`.
        exit_layer: number of the layer after which a row left, counted from 1; 0 in a tier without exits. Shape
            `(rows,)`.
    """

    probabilities: FloatArray
    confidence: FloatArray
    exit_layer: IntArray


class Tier(Protocol):
    """Any model that scores rows."""

    def score(self, batch: Rows, *, prior: FloatArray | None = None, progress: Progress | None = None) -> Scores:
        """Scores of all rows of the batch, which may be empty.

        `prior` is what another model's answer adds to logits (`confidence.evidence`). Shape `(rows, labels)`.
        """


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
        threads: how many batches run at once, each on a thread of its own.
        pool_from: tokens from which a batch that runs alone gets all threads; below, starting them costs more than it
            brings.
    """

    backend: Backend
    labels: int
    max_length: int
    temperature: float = 1.0
    batching: BatchingPolicy = field(default_factory=TokenBudget)
    multi_label: bool = False
    threads: int = 1
    pool_from: int = POOL_FROM[0]

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        known = {"input_ids", "attention_mask", "token_type_ids"}
        check_names("tier 1", self.backend.inputs, self.backend.outputs, known=known, needed=("logits",))

    def score(self, batch: Rows, *, prior: FloatArray | None = None, progress: Progress | None = None) -> Scores:
        """Scores of all rows.

        Args:
            batch: may be empty.
            prior: added to the logits, after the temperature. Shape `(rows, labels)`.
            progress: called after each batch that ran.
        """
        result = np.empty((len(batch), self.labels), dtype=np.float32)
        waiting = batches(self.batching, np.minimum(batch.lengths, self.max_length))
        pooled = self.threads == 1 or (len(waiting) < 2 and batch.tokens >= self.pool_from)
        backend = self.backend if pooled else self.backend.serial

        def run(rows: IntArray) -> int:
            ids, mask, types = padded(batch.select(rows), max_length=self.max_length)
            made = backend.run({"input_ids": ids, "attention_mask": mask, "token_type_ids": types})
            logits = check_logits(made["logits"], (len(rows), self.labels), "tier 1")
            result[rows] = probabilities(
                logits,
                multi_label=self.multi_label,
                temperature=self.temperature,
                prior=None if prior is None else prior[rows],
            )
            return len(rows)

        for answered in run_each(run, waiting, threads=self.threads):
            if progress is not None:
                progress(answered)
        return _scores(result, np.zeros(len(batch), dtype=np.int64), self.multi_label)


@dataclass(frozen=True, eq=False)
class _Live:
    """Rows that are still inside, packed.

    Attributes:
        rows: their numbers in the tier's batch. Shape `(rows,)`.
        lengths: tokens of each. Shape `(rows,)`.
        hidden: shape `(tokens, width)`.
        history: probabilities at the exits so far. Shape `(rows, exits so far, labels)`.
        packing: of these rows, where it is known already: it stays as long as nobody leaves.
    """

    rows: IntArray
    lengths: IntArray
    hidden: FloatArray
    history: FloatArray
    packing: Packing | None = None

    def keep(self, mask: BoolArray) -> _Live:
        if mask.all():
            return self
        return _Live(self.rows[mask], self.lengths[mask], compact(self.hidden, self.lengths, mask), self.history[mask])


@dataclass(frozen=True, eq=False, kw_only=True)
class MultiExit(Staged):
    """A tier of packed stages with an exit after each, at which whole rows leave.

    Its options are those of `Staged`; stages take `hidden` and what `packing.Packing.feeds` holds, and one stage's
    `hidden_out` is the next one's `hidden`.

    Attributes:
        multi_label: the labels are independent yes/no decisions.
    """

    multi_label: bool = False

    def score(self, batch: Rows, *, prior: FloatArray | None = None, progress: Progress | None = None) -> Scores:
        """Scores of all rows, each with the answer of the exit at which it left.

        Args:
            batch: may be empty.
            prior: added to every exit's logits, after the temperature (`confidence.evidence`). Shape `(rows, labels)`.
            progress: called whenever rows have left.

        Raises:
            OptionError: the exit policy returned something other than a mask of one bool per row.
        """
        result = np.empty((len(batch), self.labels), dtype=np.float32)
        layers = np.empty(len(batch), dtype=np.int64)
        answered = None if progress is None else in_turn(progress)

        def leave(live: _Live, index: int, gone: BoolArray) -> None:
            rows = live.rows[gone]
            result[rows], layers[rows] = live.history[gone, -1], self.layers[index]
            if answered is not None and len(rows):
                answered(len(rows))

        self._run(batch, self.exit_policy, prior, leave)
        return _scores(result, layers, self.multi_label)

    def all_exits(self, batch: Rows, *, progress: Progress | None = None) -> FloatArray:
        """Probabilities at every exit, nobody leaving: from these any exit policy can be replayed.

        Args:
            batch: may be empty.
            progress: called after each batch.

        Returns:
            Shape `(rows, exits, labels)`.
        """
        result = np.empty((len(batch), len(self.stages), self.labels), dtype=np.float32)
        answered = None if progress is None else in_turn(progress)

        def leave(live: _Live, _index: int, _gone: BoolArray) -> None:
            result[live.rows] = live.history
            if answered is not None:
                answered(len(live.rows))

        self._run(batch, never, None, leave)
        return result

    def _run(
        self,
        batch: Rows,
        policy: ExitPolicy,
        prior: FloatArray | None,
        leave: Callable[[_Live, int, BoolArray], None],
    ) -> None:
        # Nobody leaves early, or all leave at once, so there is nothing to merge: one batch at a time needs the least
        # memory and caches.
        together = 1 if isinstance(policy, Never | AtExit) else self.together

        def run(tier: MultiExit, wave: Sequence[IntArray]) -> None:
            most = max(int(batch.lengths[rows].sum()) for rows in wave), max(map(len, wave))
            live = [tier._begin(batch, rows) for rows in wave]
            for index in range(len(tier.stages)):
                live = [tier._stage(index, part, policy, prior, leave) for part in live]
                if not tier.is_last(index):
                    live = _merge([part for part in live if len(part.rows)], most)

        self.run_waves(run, batch.lengths, together)

    def _begin(self, batch: Rows, rows: IntArray) -> _Live:
        chosen = batch.select(rows)
        history = np.empty((len(rows), 0, self.labels), dtype=np.float32)
        packing = Packing.of(chosen.lengths, heads=self.heads)
        return _Live(rows, packing.lengths, self.embedded(chosen, packing), history, packing)

    def _stage(
        self,
        index: int,
        live: _Live,
        policy: ExitPolicy,
        prior: FloatArray | None,
        leave: Callable[[_Live, int, BoolArray], None],
    ) -> _Live:
        packing = live.packing or Packing.of(live.lengths, heads=self.heads)
        made = self.stages[index].run({"hidden": live.hidden, **packing.feeds})
        logits = check_logits(made["logits"], (len(live.rows), self.labels), self.stage_name(index))
        now = probabilities(
            logits,
            multi_label=self.multi_label,
            temperature=self.temperatures[index],
            prior=None if prior is None else prior[live.rows],
        )
        last = self.is_last(index)
        hidden = live.hidden if last else made["hidden_out"]
        live = _Live(live.rows, live.lengths, hidden, np.concatenate((live.history, now[:, None]), axis=1), packing)
        if not last and isinstance(policy, Never):
            return live
        gone = np.ones(len(live.rows), dtype=np.bool_)
        if not last:
            state = ExitState(
                exit_index=index,
                exit_layer=self.layers[index],
                last=False,
                probabilities=now,
                history=live.history,
                multi_label=self.multi_label,
            )
            gone = exits.decide(policy, state)
        leave(live, index, gone)
        return live if last else live.keep(~gone)


def _merge(parts: Sequence[_Live], most: tuple[int, int]) -> list[_Live]:
    """Neighbours together, while they are no larger than the largest batch was when it started."""
    groups = neighbours([(len(part.hidden), len(part.rows)) for part in parts], most)
    return [_join(parts[group]) for group in groups]


def _join(parts: Sequence[_Live]) -> _Live:
    if len(parts) == 1:
        return parts[0]
    return _Live(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.lengths for part in parts]),
        np.concatenate([part.hidden for part in parts]),
        np.concatenate([part.history for part in parts]),
    )


def _scores(result: FloatArray, layers: IntArray, multi_label: bool) -> Scores:
    return Scores(result, max_probability(result, multi_label=multi_label), layers)

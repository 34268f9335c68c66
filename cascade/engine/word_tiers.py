"""Tiers of a tagger: one complete model each, from rows of token ids to probabilities per word.

`WordSingleExit` runs one padded graph (tier 1); `WordMultiExit` runs a chain of packed stages, and sure words leave
after each while the rest of their sentence still sees them (tier 2). The answer for a word is the one at its first
piece.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np

from cascade.core.checks import check_logits, check_names, check_temperature
from cascade.core.confidence import max_probability, probabilities
from cascade.core.rows import BoolArray, FloatArray, IntArray, Units, ranges
from cascade.engine.packing import neighbours, padded
from cascade.engine.staged import Staged
from cascade.engine.tiers import Progress, Scores
from cascade.engine.word_packing import WordPacking
from cascade.exceptions import InputError, OptionError
from cascade.policies import exits
from cascade.policies.batching import POOL_FROM, BatchingPolicy, TokenBudget, batches
from cascade.policies.exits import AtExit, ExitPolicy, Never, never
from cascade.policies.unit_exits import UnitState
from cascade.runtime.backend import Backend
from cascade.runtime.workers import in_turn, run_each

__all__ = ["WordMultiExit", "WordSingleExit", "WordTier"]

HALTED = 4
"""Halted tokens that cost as much as an active one: keys and values are about a quarter of a layer's time in int8."""


class WordTier(Protocol):
    """Any model that scores words."""

    @property
    def max_length(self) -> int:
        """Tokens of a row at most."""

    def score(
        self,
        words: Units,
        *,
        targets: BoolArray | None = None,
        context_layers: int | None = None,
        prior: FloatArray | None = None,
        progress: Progress | None = None,
    ) -> Scores:
        """Scores with one entry per word; only those of targets are read. The batch may be empty.

        `prior` is what another model's answer adds to logits (`confidence.evidence`). Shape `(words, labels)`.
        """


@dataclass(frozen=True, eq=False, kw_only=True)
class WordSingleExit:
    """A tier of one padded graph.

    Attributes:
        backend: `input_ids`, `attention_mask` and perhaps `token_type_ids`, int64 of shape `(rows, longest)`, to
            `logits` of shape `(rows, longest, labels)`.
        labels: how many.
        max_length: tokens of a row at most.
        temperature: logits are divided by it.
        batching: which rows run together.
        threads: how many batches run at once, each on a thread of its own.
        pool_from: tokens from which a batch that runs alone gets all threads; below, starting them costs more than it
            brings.
    """

    backend: Backend
    labels: int
    max_length: int
    temperature: float = 1.0
    batching: BatchingPolicy = field(default_factory=TokenBudget)
    threads: int = 1
    pool_from: int = POOL_FROM[0]

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        known = {"input_ids", "attention_mask", "token_type_ids"}
        check_names("tier 1", self.backend.inputs, self.backend.outputs, known=known, needed=("logits",))

    def score(
        self,
        words: Units,
        *,
        targets: BoolArray | None = None,
        context_layers: int | None = None,
        prior: FloatArray | None = None,
        progress: Progress | None = None,
    ) -> Scores:
        """Scores of all words.

        Args:
            words: may be empty.
            targets: words that need an answer; rows without any are not run, and their scores are 0. `None`: all.
                Shape `(words,)`.
            context_layers: not read, there is one depth for all.
            prior: added to the logits, after the temperature. Shape `(words, labels)`.
            progress: called with the number of targets that were just answered.

        Raises:
            InputError: a row has more than `max_length` tokens.
        """
        wanted = _targets(words, targets)
        result = np.zeros((len(words), self.labels), dtype=np.float32)
        chosen = _rows_with(words, wanted, self.max_length)
        lengths = words.rows.lengths[chosen]
        waiting = batches(self.batching, lengths)
        pooled = self.threads == 1 or (len(waiting) < 2 and int(lengths.sum()) >= self.pool_from)
        backend = self.backend if pooled else self.backend.serial

        def run(group: IntArray) -> int:
            part, numbers = _cut_out(words, chosen[group])
            ids, mask, types = padded(part.rows, max_length=self.max_length)
            made = backend.run({"input_ids": ids, "attention_mask": mask, "token_type_ids": types})
            logits = check_logits(made["logits"], (*ids.shape, self.labels), "tier 1")
            rows = part.row_of
            at_first = logits[rows, part.first_token - part.rows.offsets[rows]]
            known = None if prior is None else prior[numbers]
            result[numbers] = probabilities(at_first, temperature=self.temperature, prior=known)
            return int(wanted[numbers].sum())

        for answered in run_each(run, waiting, threads=self.threads):
            if progress is not None:
                progress(answered)
        return _scores(result, np.zeros(len(words), dtype=np.int64))


@dataclass(frozen=True, eq=False)
class _Live:
    """Sentences that are under way together.

    Attributes:
        packing: their words and tokens.
        hidden: states of all their tokens. Shape `(tokens, width)`.
        history: probabilities at the exits so far. Shape `(words inside, exits so far, labels)`.
    """

    packing: WordPacking
    hidden: FloatArray
    history: FloatArray

    def keep(self, gone: BoolArray) -> _Live:
        if not gone.any():
            return self
        packing, tokens = self.packing.leave(gone)
        hidden = self.hidden if tokens is None else np.take(self.hidden, tokens, axis=0)
        return _Live(packing, hidden, self.history[~gone])


@dataclass(frozen=True, eq=False)
class _Call:
    """What one call of a tier is about.

    Attributes:
        policy: who leaves.
        targets: words that need an answer. Shape `(words,)`.
        context_layers: after this layer words that are no targets stop; `None`: they are words like any other.
        ids: token id of each word's first piece. Shape `(words,)`.
        leave: called with the numbers of words that leave, the number of the exit, counted from 0, and their history.
        prior: added to every exit's logits, after the temperature. Shape `(words, labels)`.
    """

    policy: ExitPolicy
    targets: BoolArray
    context_layers: int | None
    ids: IntArray
    leave: Callable[[IntArray, int, FloatArray], None]
    prior: FloatArray | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class WordMultiExit(Staged):
    """A tier of packed stages with an exit after each, at which words leave one by one.

    A word that has left keeps its last hidden state, and the rest of its sentence still attends to it. A sentence
    leaves with all its tokens once every word in it that needs an answer has one. Its options are those of `Staged`;
    `hidden` holds the states of all tokens of live sentences, `hidden_out` the new ones of the active tokens
    (`word_packing.WordPacking.feeds`).

    Attributes:
        max_length: tokens of a row at most.
    """

    stage_inputs: ClassVar[frozenset[str]] = frozenset(
        {"hidden", "head_gather", "bias", "active", "query_head_gather", "head_scatter", "words"}
    )

    max_length: int

    def score(
        self,
        words: Units,
        *,
        targets: BoolArray | None = None,
        context_layers: int | None = None,
        prior: FloatArray | None = None,
        progress: Progress | None = None,
    ) -> Scores:
        """Scores of all words, each with the answer of the exit at which it left.

        Args:
            words: may be empty.
            targets: words that need an answer; `None`: all. The others are context: they leave as any word does, or
                with their sentence; rows without any target are not run, and their scores are 0. Shape `(words,)`.
            context_layers: context stops after this layer at the latest; `None`: only as said above.
            prior: added to every exit's logits, after the temperature (`confidence.evidence`). Shape `(words, labels)`.
            progress: called with the number of targets that were just answered.

        Raises:
            InputError: a row has more than `max_length` tokens.
            OptionError: `context_layers` is no layer with an exit, `targets` or what the exit policy returned is
                something other than one bool per word.
        """
        if context_layers is not None and context_layers not in self.layers:
            raise OptionError(
                f"context_layers must be a layer with an exit, was: {context_layers}; "
                f"choose from {', '.join(map(str, self.layers))}"
            )
        wanted = _targets(words, targets)
        result = np.zeros((len(words), self.labels), dtype=np.float32)
        layers = np.zeros(len(words), dtype=np.int64)

        answer = None if progress is None else in_turn(progress)

        def leave(gone: IntArray, index: int, history: FloatArray) -> None:
            result[gone], layers[gone] = history[:, -1], self.layers[index]
            if answer is not None and (answered := int(wanted[gone].sum())):
                answer(answered)

        self._run(words, _Call(self.exit_policy, wanted, context_layers, words.first_ids, leave, prior))
        return _scores(result, layers)

    def all_exits(
        self, words: Units, *, prior: FloatArray | None = None, progress: Progress | None = None
    ) -> FloatArray:
        """Probabilities at every exit, nobody leaving.

        A policy replayed from these is close, not exact: words that stay would see the others in the state in which
        they left.

        Args:
            words: may be empty.
            prior: as in `score`.
            progress: called with the number of words that were just answered.

        Returns:
            Shape `(words, exits, labels)`.
        """
        result = np.empty((len(words), len(self.stages), self.labels), dtype=np.float32)

        answer = None if progress is None else in_turn(progress)

        def leave(gone: IntArray, _index: int, history: FloatArray) -> None:
            result[gone] = history
            if answer is not None:
                answer(len(gone))

        self._run(words, _Call(never, _targets(words, None), None, words.first_ids, leave, prior))
        return result

    def _run(self, words: Units, call: _Call) -> None:
        chosen = _rows_with(words, call.targets, self.max_length)
        lengths = words.rows.lengths[chosen]
        # Nobody leaves early, or all leave at once: see MultiExit.
        alike = isinstance(call.policy, Never | AtExit) and call.context_layers is None

        def run(tier: WordMultiExit, wave: Sequence[IntArray]) -> None:
            most = max(int(lengths[group].sum()) for group in wave)
            live = [tier._begin(words, chosen[group]) for group in wave]
            for index in range(len(tier.stages)):
                parts = [tier._stage(index, part, call) for part in live]
                live = _merge([part for part in parts if part is not None], most)

        self.run_waves(run, lengths, 1 if alike else self.together)

    def _begin(self, words: Units, rows: IntArray) -> _Live:
        part, numbers = _cut_out(words, rows)
        history = np.empty((len(part), 0, self.labels), dtype=np.float32)
        packing = WordPacking.of(part, numbers, heads=self.heads)
        return _Live(packing, self.embedded(part.rows, packing.grid), history)

    def _stage(self, index: int, live: _Live, call: _Call) -> _Live | None:
        packing = live.packing
        made = self.stages[index].run({"hidden": live.hidden, **packing.feeds})
        inside = packing.words[packing.places]
        logits = check_logits(made["logits"], (len(inside), self.labels), self.stage_name(index))
        prior = None if call.prior is None else call.prior[inside]
        now = probabilities(logits, temperature=self.temperatures[index], prior=prior)
        history = np.concatenate((live.history, now[:, None]), axis=1)
        if self.is_last(index):
            call.leave(inside, index, history)
            return None
        gone = self._gone(index, packing, history, call)
        if gone.any():
            call.leave(inside[gone], index, history[gone])
        if gone.all():
            return None
        hidden = live.hidden
        if packing.all_active:
            hidden = made["hidden_out"]
        else:
            hidden[packing.active.tokens] = made["hidden_out"]  # an earlier stage's output, so it is ours
        return _Live(packing, hidden, history).keep(gone)

    def _gone(self, index: int, packing: WordPacking, history: FloatArray, call: _Call) -> BoolArray:
        inside = packing.words[packing.places]
        gone = np.zeros(len(inside), dtype=np.bool_)
        if not isinstance(call.policy, Never):
            state = UnitState(
                exit_index=index,
                exit_layer=self.layers[index],
                last=False,
                probabilities=history[:, -1],
                history=history,
                sentences=packing.sentences,
                places=packing.places,
                ids=call.ids[inside],
            )
            gone = exits.decide(call.policy, state)
        wanted = call.targets[inside]
        if wanted.all():
            return gone
        if call.context_layers is not None and self.layers[index] >= call.context_layers:
            gone = gone | ~wanted
        return gone | packing.finished(wanted & ~gone)


def _merge(parts: Sequence[_Live], most: int) -> list[_Live]:
    """Neighbours together, while they cost no more than the largest batch did when it started."""
    groups = neighbours([_cost(part.packing) for part in parts], (most,))
    return [_join(parts[group]) for group in groups]


def _cost(packing: WordPacking) -> tuple[int]:
    active = int(np.count_nonzero(packing.going))
    return (active + (len(packing.going) - active) // HALTED,)


def _join(parts: Sequence[_Live]) -> _Live:
    if len(parts) == 1:
        return parts[0]
    return _Live(
        WordPacking.join([part.packing for part in parts]),
        np.concatenate([part.hidden for part in parts]),
        np.concatenate([part.history for part in parts]),
    )


def _targets(words: Units, targets: BoolArray | None) -> BoolArray:
    if targets is None:
        return np.ones(len(words), dtype=np.bool_)
    if targets.shape != (len(words),) or targets.dtype != np.bool_:
        raise OptionError(
            f"targets must be bools of shape ({len(words)},), were: {targets.dtype} of shape {targets.shape}; "
            "give True for each word that needs an answer"
        )
    return targets


def _rows_with(words: Units, wanted: BoolArray, max_length: int) -> IntArray:
    """Numbers of the rows in which a word needs an answer."""
    rows = np.flatnonzero(np.bincount(words.row_of[wanted], minlength=words.n_rows))
    lengths = words.rows.lengths[rows]
    if (lengths > max_length).any():
        worst = rows[lengths.argmax()]
        raise InputError(
            f"each row must have at most {max_length} tokens, row {worst} had {lengths.max()}; "
            "cut it with word_engine.cut"
        )
    return rows


def _cut_out(words: Units, rows: IntArray) -> tuple[Units, IntArray]:
    """These rows, and the numbers of their words in the whole batch."""
    return words.select(rows), ranges(words.offsets[rows], words.counts[rows])


def _scores(result: FloatArray, layers: IntArray) -> Scores:
    return Scores(result, max_probability(result), layers)

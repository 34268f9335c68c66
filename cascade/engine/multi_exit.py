"""A tier of packed stages with an exit after each: a chain of graphs that sure units leave early."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cascade.core.checks import check_logits, check_names, check_temperature, check_whole
from cascade.core.confidence import probabilities
from cascade.core.rows import FloatArray, IntArray, ranges, read_only
from cascade.engine.live import PER_UNIT, WHOLE_ROWS, Halting, Live, merge
from cascade.engine.long_rows import Reading, RowTier
from cascade.engine.packing import Packing
from cascade.engine.tier import Progress, Readable, Scores
from cascade.exceptions import OptionError
from cascade.policies import exits
from cascade.policies.batching import POOL_FROM, batches, waves
from cascade.policies.exits import AtExit, ExitPolicy, ExitState, Never, never
from cascade.policies.reading import ReadingPolicy
from cascade.policies.registry import ModelInfo
from cascade.policies.unit_exits import UnitState
from cascade.runtime.backend import PASSING, Backend


@dataclass(frozen=True, eq=False)
class _Call:
    """One call of a tier: what is read, and by which graphs, for all threads or for one.

    `policy`: decides which units exit, `None`: all go on to full depth; `until`: number of the exit, from 0, at which
    all units leave, so that only its answers are computed, `None`: the policy says; `leave`: called with the numbers of
    units that exit, the number of the exit, their answers and their history.
    """

    reading: Reading
    policy: ExitPolicy | None
    until: int | None
    leave: Callable[[IntArray, int, FloatArray, FloatArray | None], None]
    embed: Backend
    stages: Sequence[Backend]


@dataclass(frozen=True, eq=False, kw_only=True)
class MultiExit(RowTier):
    """A tier of packed stages with an exit after each.

    A row ends with its last unit. For texts each row is one unit, and a stage has logits per row; for sentences of
    words a stage has logits per unit, and a word that has exited keeps its last hidden state, to which the rest of its
    sentence still attends. What remains of neighbouring batches goes on together, because a small batch costs more per
    token than a large one. Texts come cut from their encoder.

    Attributes:
        embed: `input_ids`, `position_ids` and perhaps `token_type_ids`, int64 of shape `(tokens,)`, to `hidden` of
            shape `(tokens, width)`.
        stages: `hidden` and indices (`live.Live.feeds`) to `logits` and `hidden_out`; the last stage may lack the
            latter. With an input `words` their logits are per unit.
        layers: number of the last layer of each stage, counted from 1.
        heads: of attention, in every stage; their indices are made for so many.
        temperatures: one per stage; its logits are divided by it.
        exit_policy: which units exit; not asked after the last stage, and never asked if it is `never`.
        reading: after which rows of a long text its answer stands; `None`: all are read.
        position_offset: position id of a row's first token.
        together: how many batches are under way at once, so that what remains of them can be merged. Their hidden
            states are in memory at once; 1 merges nothing.
    """

    embed: Backend
    stages: Sequence[Backend]
    layers: Sequence[int]
    heads: int
    temperatures: Sequence[float] = ()
    exit_policy: ExitPolicy = never
    reading: ReadingPolicy | None = None
    position_offset: int = 0
    together: int = 16
    pool_from: int = POOL_FROM[1]

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "temperatures", tuple(self.temperatures) or (1.0,) * len(self.stages))
        if not self.stages or not len(self.stages) == len(self.layers) == len(self.temperatures):
            raise OptionError(
                f"stages, layers and temperatures must be equally many and at least 1, got {len(self.stages)}, "
                f"{len(self.layers)} and {len(self.temperatures)}; give one of each per exit"
            )
        check_whole("together", self.together, "1 merges nothing")
        check_whole("heads", self.heads, "give as many as the stages were exported with")
        for temperature in self.temperatures:
            check_temperature(temperature)
        embed, known = self.embed, {"input_ids", "token_type_ids", "position_ids"}
        check_names("tier 2's embed", embed.inputs, embed.outputs, known=known, needed=("hidden",))
        known_inputs = PER_UNIT if self.per_unit else WHOLE_ROWS
        for index, stage in enumerate(self.stages):
            needed = ("logits",) if self._is_last(index) else ("hidden_out", "logits")
            check_names(self._stage_name(index), stage.inputs, stage.outputs, known=known_inputs, needed=needed)
        exits.check(self.exit_policy, ModelInfo(layers=tuple(self.layers), words=self.per_unit))

    @property
    def per_unit(self) -> bool:
        """Whether rows hold several units, each with logits of its own."""
        return "words" in self.stages[0].inputs

    def score(self, inputs: Readable, *, progress: Progress | None = None) -> Scores:
        """Scores of all units, each with the answer of the exit at which it left; see `Tier.score`.

        Context exits as any unit does, or with its row. Rows without a target are not run, and their scores are 0.
        Answers of the exit policy that are something other than one bool per unit are an `OptionError`.
        """
        reading = Reading.of(inputs, self)
        result = np.zeros((len(reading.units), self.labels), dtype=np.float32)
        layers = np.zeros(len(reading.units), dtype=np.int64)
        report = reading.reporter(progress)

        def leave(gone: IntArray, index: int, now: FloatArray, _history: FloatArray | None) -> None:
            result[gone], layers[gone] = now, self.layers[index]
            report(gone)

        for part in reading.rounds(self.reading, result, multi_label=self.multi_label):
            self._run(part, self.exit_policy, self._until(), leave)
        return reading.scores(result, layers, multi_label=self.multi_label)

    def all_exits(self, inputs: Readable, *, progress: Progress | None = None) -> FloatArray:
        """Probabilities at every exit, all units going to full depth. Shape `(row units, exits, labels)`.

        A long text has one row unit for each of its rows. For texts any exit policy can be replayed from these. For
        words a replay is close, not exact: words that stay would see the others in the state in which they exited. The
        arguments are those of `score`.
        """
        reading = Reading.of(inputs, self)
        result = np.empty((len(reading.units), len(self.stages), self.labels), dtype=np.float32)
        report = reading.reporter(progress)

        def leave(gone: IntArray, _index: int, _now: FloatArray, history: FloatArray | None) -> None:
            result[gone] = history
            report(gone)

        self._run(reading, None, None, leave)
        return result

    def _until(self) -> int | None:
        """The exit of all units, where the policy is fixed."""
        policy, last = self.exit_policy, len(self.layers) - 1
        if isinstance(policy, Never):
            return last
        if isinstance(policy, AtExit):
            return next((index for index, layer in enumerate(self.layers) if layer >= policy.layer), last)
        return None

    def _run(
        self,
        reading: Reading,
        policy: ExitPolicy | None,
        until: int | None,
        leave: Callable[[IntArray, int, FloatArray, FloatArray | None], None],
    ) -> None:
        lengths = reading.units.rows.lengths[reading.rows]
        # Where all units exit at one depth nothing is merged: one batch at a time needs the least memory and caches.
        together = 1 if until is not None or policy is None else self.together
        groups = waves(batches(self.batching, lengths), together=together, threads=self.executor.threads)
        pooled = self._pooled(len(groups), lengths)
        embed = self.embed.serial  # lookups: threads gain nothing, and would cost the tables a second time
        stages = self.stages if pooled else [stage.serial for stage in self.stages]
        call = _Call(reading, policy, until, leave, embed, stages)

        def run(wave: Sequence[IntArray]) -> None:
            live = [self._begin(reading.rows[group], call) for group in wave]
            most = tuple(map(max, zip(*(part.size for part in live), strict=True)))
            for index in range(len(self.stages)):
                parts = [self._stage(index, part, call) for part in live]
                live = merge([part for part in parts if part is not None], most)
                if not live:
                    break

        for _ in self.executor.run_each(run, groups, pooled=pooled):
            pass

    def _begin(self, rows: IntArray, call: _Call) -> Live:
        units = call.reading.units
        if self.per_unit:
            part = units.select(rows)
            tokens, halting = part.rows, Halting.of(part)
            numbers = ranges(units.offsets[rows], units.counts[rows])
        else:
            tokens, halting, numbers = units.rows.select(rows), None, rows
        grid = Packing.of(tokens.lengths, heads=self.heads)
        feeds = {
            "input_ids": tokens.ids,
            "token_type_ids": tokens.types,
            "position_ids": grid.position_ids(self.position_offset),
        }
        hidden = call.embed.run(feeds)["hidden"]
        history = None
        if call.until is None:
            history = np.empty((len(numbers), len(self.stages), self.labels), dtype=np.float32)
        return Live(grid, numbers, hidden, history, halting)

    def _stage(self, index: int, live: Live, call: _Call) -> Live | None:
        """Run a stage. What goes on, or `None`."""
        stage = call.stages[index]
        if call.until is not None and index < call.until:
            return live.after(stage.run(live.feeds(stage.inputs), PASSING)["hidden_out"])
        made = stage.run(live.feeds(stage.inputs))
        inside = live.inside
        logits = check_logits(made["logits"], (len(inside), self.labels), self._stage_name(index))
        prior = call.reading.prior
        now = probabilities(
            logits,
            multi_label=self.multi_label,
            temperature=self.temperatures[index],
            prior=None if prior is None else prior[inside],
        )
        if live.history is not None:
            live.history[:, index] = now
        if self._is_last(index) or index == call.until:
            call.leave(inside, index, now, live.history)
            return None
        if call.policy is None:
            return live.after(made["hidden_out"])
        gone = exits.decide(call.policy, self._state(index, live, now, call))
        if live.halting is not None and call.reading.targets is not None:
            gone = gone | live.finished(call.reading.targets[inside] & ~gone)  # context exits with its row
        if not gone.any():
            return live.after(made["hidden_out"])
        call.leave(inside[gone], index, now[gone], None)
        return None if gone.all() else live.after(made["hidden_out"]).leave(gone)

    def _state(self, index: int, live: Live, now: FloatArray, call: _Call) -> ExitState:
        history = now[:, None] if live.history is None else live.history[:, : index + 1]
        layer, several = self.layers[index], self.multi_label
        if live.halting is None:
            return ExitState(index, layer, False, read_only(now), read_only(history), several)
        return UnitState(
            exit_index=index,
            exit_layer=layer,
            last=False,
            probabilities=read_only(now),
            history=read_only(history),
            multi_label=several,
            sentences=read_only(live.halting.rows),
            places=read_only(live.halting.places),
            ids=read_only(call.reading.units.first_ids[live.inside]),
        )

    def _is_last(self, index: int) -> bool:
        return index == len(self.stages) - 1

    def _stage_name(self, index: int) -> str:
        return f"tier 2's stage of layer {self.layers[index]}"

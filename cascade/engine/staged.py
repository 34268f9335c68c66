"""What tiers of packed stages have in common: their graphs, their options, and which batches are under way together."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, TypeVar

from cascade.core.checks import check_names, check_temperature, check_whole
from cascade.core.rows import FloatArray, IntArray, Rows
from cascade.engine.packing import Packing
from cascade.exceptions import OptionError
from cascade.policies import exits
from cascade.policies.batching import POOL_FROM, BatchingPolicy, TokenBudget, batches, waves
from cascade.policies.exits import ExitPolicy, never
from cascade.policies.registry import ModelInfo
from cascade.runtime.backend import Backend
from cascade.runtime.workers import run_each

__all__ = ["Staged"]

T = TypeVar("T", bound="Staged")


@dataclass(frozen=True, eq=False, kw_only=True)
class Staged:
    """A tier of packed stages with an exit after each.

    What leaves takes its tokens along; what remains of neighbouring batches goes on together, because a small batch
    costs more per token than a large one.

    Attributes:
        embed: `input_ids`, `position_ids` and perhaps `token_type_ids`, int64 of shape `(tokens,)`, to `hidden` of
            shape `(tokens, width)`.
        stages: `hidden` and indices (`stage_inputs`) to `logits` and `hidden_out`; the last stage may lack the latter.
        layers: number of the last layer of each stage, counted from 1.
        labels: how many.
        heads: of attention, in every stage; their indices are made for so many.
        temperatures: one per stage; its logits are divided by it.
        exit_policy: who leaves; not asked after the last stage, and never asked if it is `never`.
        batching: which rows start together.
        position_offset: position id of a row's first token.
        together: how many batches are under way at once, so that what remains of them can be merged. Their hidden
            states are in memory at once; 1 merges nothing.
        threads: how many such groups of batches run at once, each on a thread of its own. Policies are then asked from
            several threads.
        pool_from: tokens from which a group that runs alone gets all threads; below, starting them costs more than it
            brings.
    """

    stage_inputs: ClassVar[frozenset[str]] = frozenset(
        {"hidden", "head_gather", "bias", "head_scatter", "firsts", "gather", "weights", "counts"}
    )

    embed: Backend
    stages: Sequence[Backend]
    layers: Sequence[int]
    labels: int
    heads: int
    temperatures: Sequence[float] = ()
    exit_policy: ExitPolicy = never
    batching: BatchingPolicy = field(default_factory=TokenBudget)
    position_offset: int = 0
    together: int = 16
    threads: int = 1
    pool_from: int = POOL_FROM[1]

    def __post_init__(self) -> None:
        object.__setattr__(self, "temperatures", tuple(self.temperatures) or (1.0,) * len(self.stages))
        if not self.stages or not len(self.stages) == len(self.layers) == len(self.temperatures):
            raise OptionError(
                f"stages, layers and temperatures must be equally many and at least 1, were: {len(self.stages)}, "
                f"{len(self.layers)} and {len(self.temperatures)}; give one of each per exit"
            )
        if self.together < 1:
            raise OptionError(f"together must be at least 1, was: {self.together}; 1 merges nothing")
        check_whole("heads", self.heads, "give as many as the stages were exported with")
        for temperature in self.temperatures:
            check_temperature(temperature)
        embed, known = self.embed, {"input_ids", "token_type_ids", "position_ids"}
        check_names("tier 2's embed", embed.inputs, embed.outputs, known=known, needed=("hidden",))
        for index, stage in enumerate(self.stages):
            needed = ("logits",) if self.is_last(index) else ("hidden_out", "logits")
            check_names(self.stage_name(index), stage.inputs, stage.outputs, known=self.stage_inputs, needed=needed)
        model = ModelInfo(layers=tuple(self.layers), words="words" in self.stage_inputs)
        exits.check(self.exit_policy, model)

    def is_last(self, index: int) -> bool:
        """Whether the stage of this number, counted from 0, is full depth."""
        return index == len(self.stages) - 1

    def stage_name(self, index: int) -> str:
        """What error messages call the stage of this number, counted from 0."""
        return f"tier 2's stage of layer {self.layers[index]}"

    @functools.cached_property
    def serial(self: T) -> T:  # noqa: PYI019  # typing has Self from 3.11 on
        """The same tier with graphs that keep to the thread that calls them."""
        return replace(self, embed=self.embed.serial, stages=[stage.serial for stage in self.stages])

    def run_waves(self: T, run: Callable[[T, Sequence[IntArray]], None], lengths: IntArray, together: int) -> None:  # noqa: PYI019
        """Cut rows into batches, and run groups of them.

        Args:
            run: given the tier whose graphs to use and some batches of row numbers; called from several threads.
            lengths: tokens of each row. Shape `(rows,)`.
            together: batches in a group, at most.
        """
        groups = waves(batches(self.batching, lengths), together=together, threads=self.threads)
        pooled = self.threads == 1 or (len(groups) < 2 and int(lengths.sum()) >= self.pool_from)
        tier = self if pooled else self.serial
        for _ in run_each(functools.partial(run, tier), groups, threads=self.threads):
            pass

    def embedded(self, batch: Rows, packing: Packing | None = None) -> FloatArray:
        """Hidden states below the first layer. Shape `(tokens, width)`. `packing`: of these rows, where it is known."""
        packing = packing or Packing.of(batch.lengths)
        feeds = {
            "input_ids": batch.ids,
            "token_type_ids": batch.types,
            "position_ids": packing.position_ids(self.position_offset),
        }
        return self.embed.run(feeds)["hidden"]

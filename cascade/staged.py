"""What tiers of packed stages have in common: their graphs, their options, and which batches are under way together.

It leaves to others: rows that leave whole (`tiers.MultiExit`) and words that leave one by one
(`word_tiers.WordMultiExit`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from cascade import exits
from cascade.backend import Backend
from cascade.batch import Batch, FloatArray, IntArray
from cascade.batching import BatchingPolicy, TokenBudget, batches
from cascade.checks import check_names, check_temperature
from cascade.exceptions import OptionError
from cascade.exits import ExitPolicy, never
from cascade.packing import Packing

__all__ = ["Staged"]


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
        temperatures: one per stage; its logits are divided by it.
        exit_policy: who leaves; not asked after the last stage, and never asked if it is `never`.
        batching: which rows start together.
        position_offset: position id of a row's first token.
        together: how many batches are under way at once, so that what remains of them can be merged. Their hidden
            states are in memory at once; 1 merges nothing.
    """

    stage_inputs: ClassVar[frozenset[str]] = frozenset({"hidden", "gather", "mask", "scatter"})

    embed: Backend
    stages: Sequence[Backend]
    layers: Sequence[int]
    labels: int
    temperatures: Sequence[float] = ()
    exit_policy: ExitPolicy = never
    batching: BatchingPolicy = field(default_factory=TokenBudget)
    position_offset: int = 0
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
            check_temperature(temperature)
        embed, known = self.embed, {"input_ids", "token_type_ids", "position_ids"}
        check_names("tier 2's embed", embed.inputs, embed.outputs, known=known, needed=("hidden",))
        for index, stage in enumerate(self.stages):
            needed = ("logits",) if self.is_last(index) else ("hidden_out", "logits")
            check_names(self.stage_name(index), stage.inputs, stage.outputs, known=self.stage_inputs, needed=needed)
        exits.check(self.exit_policy, self.layers)

    def is_last(self, index: int) -> bool:
        """Whether the stage of this number, counted from 0, is full depth."""
        return index == len(self.stages) - 1

    def stage_name(self, index: int) -> str:
        """What error messages call the stage of this number, counted from 0."""
        return f"tier 2's stage of layer {self.layers[index]}"

    def waves(self, lengths: IntArray, together: int) -> Iterator[list[IntArray]]:
        """Batches of row numbers, `together` at a time. `lengths`: tokens of each row, shape `(rows,)`."""
        waiting = batches(self.batching, lengths)
        for first in range(0, len(waiting), together):
            yield waiting[first : first + together]

    def embedded(self, batch: Batch) -> FloatArray:
        """Hidden states below the first layer. Shape `(tokens, width)`."""
        feeds = {
            "input_ids": batch.ids,
            "token_type_ids": batch.types,
            "position_ids": Packing.of(batch.lengths).position_ids(self.position_offset),
        }
        return self.embed.run(feeds)["hidden"]

"""A packed second tier as ONNX graphs: `embed` and the stages, in fp32."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch

from cascade.engine.packing import ACTIVE_FEEDS, Actives, Packing
from cascade_export.packed.stages import PackedModel, PackedStage
from cascade_export.tracing import Axes, trace

AXES: dict[str, Axes] = {
    "hidden": ("tokens",),
    "head_gather": ("rows", "", "longest"),
    "bias": ("rows", "", "", "longest"),
    "firsts": ("rows",),
    "gather": ("rows", "longest"),
    "weights": ("rows", "", "longest"),
    "counts": ("rows",),
    "buckets": ("bucket_rows", "longest_asking", "longest"),
    "active": ("actives",),
    "query_head_gather": ("rows", "", "longest_active"),
    "words": ("words",),
    "distances": ("distances",),
    "placed_query_head_gather": ("rows", "", "longest"),
    "position_ids": ("tokens",),
    "local_head_gather": ("blocks", "", "keys"),
    "local_bias": ("blocks", "", "seen_from", "keys"),
    "local_query_head_gather": ("blocks", "", "queries"),
}


@dataclass(frozen=True)
class TierTwoGraphs:
    """The graphs of a second tier.

    `embed`: `input_ids`, `position_ids` and `token_type_ids` (where the family has them) -> `hidden`; `stages`:
    `hidden` and indices (see ARCHITECTURE.md) -> `hidden_out` (the last may lack it), `logits`, in the order in which
    they run;
    `position_offset`: position id of a row's first token.
    """

    embed: onnx.ModelProto
    stages: tuple[onnx.ModelProto, ...]
    position_offset: int = 0

    @property
    def heads(self) -> int:
        """Of attention, as the stages declare them."""
        return _second_axis(self.stages[0].graph.input, "head_gather")

    @property
    def labels(self) -> int:
        """How many, as the stages declare them."""
        return _second_axis(self.stages[0].graph.output, "logits")


def _second_axis(values: Iterable[onnx.ValueInfoProto], name: str) -> int:
    return next(int(value.type.tensor_type.shape.dim[1].dim_value) for value in values if value.name == name)


def export_tier2(packed: PackedModel) -> TierTwoGraphs:
    """Write a packed model as ONNX graphs with free sizes for tokens, rows, the longest row, words."""
    ids = torch.zeros(3, dtype=torch.int64)
    example = dict.fromkeys(packed.embed.inputs, ids)
    embed = trace(packed.embed, example, inputs=dict.fromkeys(example, ("tokens",)), outputs={"hidden": ("tokens",)})
    return TierTwoGraphs(embed, tuple(_stage(stage, packed) for stage in packed.stages), packed.position_offset)


def _stage(stage: PackedStage, packed: PackedModel) -> onnx.ModelProto:
    # Nothing reads a size while the graph is traced, so any example does: two rows of two and one tokens. Of a tagger
    # the first token of each row is active, and a word begins with the second of them.
    rows = Packing.of(np.array([2, 1]), heads=packed.heads)
    feeds: dict[str, npt.NDArray[Any]] = {"hidden": np.zeros((3, packed.width), np.float32), **rows.feeds(stage.inputs)}
    new, answered = "tokens", "rows"
    if stage.pooling == "words":
        actives = Actives(rows, Packing.of(np.array([1, 1]), heads=packed.heads), np.array([0, 2]))
        feeds |= {name: actives.array(name) for name in stage.inputs if name in ACTIVE_FEEDS}
        feeds["words"] = np.array([1])
        new, answered = "actives", "words"
    return trace(
        stage,
        {name: torch.from_numpy(feeds[name]) for name in stage.inputs},
        inputs=AXES | dict.fromkeys(("head_scatter", "placed_head_scatter", "local_head_scatter"), (new,)),
        outputs=({} if stage.narrow else {"hidden_out": (new,)}) | {"logits": (answered,)},
    )

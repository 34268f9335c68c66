"""Torch modules as ONNX graphs: `embed` and the stages of tier 2, in fp32."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn

from cascade.engine.packing import Packing
from cascade_export.stages import PackedModel, PackedStage, PackedTagStage

__all__ = ["OPSET", "TierTwoGraphs", "export_tier2"]

# 20 is the first in which Gelu (erf or tanh) is one operator; ONNX Runtime reads it since 1.17.
OPSET = 20

# Names of the sizes of each input that are free; those that are "" or left out are the model's own.
AXES: dict[str, tuple[str, ...]] = {
    "hidden": ("tokens",),
    "head_gather": ("rows", "", "longest"),
    "bias": ("rows", "", "", "longest"),
    "firsts": ("rows",),
    "gather": ("rows", "longest"),
    "weights": ("rows", "", "longest"),
    "counts": ("rows",),
    "active": ("actives",),
    "query_head_gather": ("rows", "", "longest_active"),
    "words": ("words",),
}


@dataclass(frozen=True)
class TierTwoGraphs:
    """The graphs of a second tier.

    Attributes:
        embed: `input_ids`, `token_type_ids` (where the family has them), `position_ids` -> `hidden`.
        stages: `hidden` and indices (see ARCHITECTURE.md) -> `hidden_out`, `logits`; in the order in which they run.
    """

    embed: onnx.ModelProto
    stages: tuple[onnx.ModelProto, ...]

    @property
    def heads(self) -> int:
        """Of attention, as the stages declare them."""
        shapes = {value.name: value.type.tensor_type.shape for value in self.stages[0].graph.input}
        return int(shapes["head_gather"].dim[1].dim_value)


def export_tier2(packed: PackedModel) -> TierTwoGraphs:
    """Write a packed model as ONNX graphs with free sizes for tokens, rows, the longest row, words."""
    ids = torch.zeros(3, dtype=torch.int64)
    names = ["input_ids", "position_ids"] if not packed.takes_types else ["input_ids", "token_type_ids", "position_ids"]
    embed = _export(
        packed.embed,
        (ids, ids if packed.takes_types else None, ids),
        inputs=dict.fromkeys(names, ("tokens",)),
        outputs={"hidden": ("tokens",)},
    )
    stages = tuple(_stage(stage, packed) for stage in packed.stages)
    return TierTwoGraphs(embed=embed, stages=stages)


def _stage(stage: PackedStage | PackedTagStage, packed: PackedModel) -> onnx.ModelProto:
    # Nothing reads a size while the graph is traced, so any example does: two rows of two and one tokens.
    rows = Packing.of(np.array([2, 1]), heads=packed.heads)
    feeds: dict[str, npt.NDArray[Any]] = {"hidden": np.zeros((3, packed.width), np.float32), **rows.feeds}
    if isinstance(stage, PackedStage):
        names = ["hidden", "head_gather", "bias", "head_scatter"]
        names += ["firsts"] if stage.pooling == "first" else ["gather", "weights", "counts"]
        going, answered = "tokens", "rows"
    else:
        # The first token of each row is active, and a word begins with the second of them.
        actives = Packing.of(np.array([1, 1]), heads=packed.heads)
        feeds |= {"active": np.array([0, 2]), "words": np.array([1])}
        feeds |= {"query_head_gather": actives.head_gather, "head_scatter": actives.head_scatter}
        names = ["hidden", "head_gather", "bias", "active", "query_head_gather", "head_scatter", "words"]
        going, answered = "actives", "words"
    axes = AXES | {"head_scatter": (going,)}
    return _export(
        stage,
        tuple(torch.from_numpy(feeds[name]) for name in names),
        inputs={name: axes[name] for name in names},
        outputs={"hidden_out": (going,), "logits": (answered,)},
    )


def _export(
    module: nn.Module,
    example: tuple[torch.Tensor | None, ...],
    *,
    inputs: dict[str, tuple[str, ...]],
    outputs: dict[str, tuple[str, ...]],
) -> onnx.ModelProto:
    buffer = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        # The older of torch's two exporters is the one wanted: it makes the smaller graph and needs no onnxscript.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            example,
            buffer,  # type: ignore[arg-type]  # the older exporter writes to open files too
            dynamo=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={
                name: {axis: size for axis, size in enumerate(axes) if size}
                for name, axes in {**inputs, **outputs}.items()
            },
        )
    model = onnx.load_from_string(buffer.getvalue())
    # Names of source lines, with the exporter's folders in them, are nobody's business in a bundle.
    for node in model.graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    onnx.checker.check_model(model)
    return model

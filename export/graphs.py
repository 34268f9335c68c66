"""Torch modules as ONNX graphs: `embed` and the stages of tier 2, in fp32.

It leaves to others: what the modules compute (`stages`), int8 (`quantise`), tier 1 (`tier1`, through optimum).
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import onnx
import torch
from torch import nn

from cascade_export.stages import PackedModel, PackedStage, PackedTagStage

__all__ = ["OPSET", "TierTwoGraphs", "export_tier2"]

# 20 is the first in which Gelu (erf or tanh) is one operator; ONNX Runtime reads it since 1.17.
OPSET = 20


@dataclass(frozen=True)
class TierTwoGraphs:
    """The graphs of a second tier.

    Attributes:
        embed: `input_ids`, `token_type_ids` (where the family has them), `position_ids` -> `hidden`.
        stages: `hidden`, `gather`, `mask`, `scatter` (for taggers also `active`, `query_gather` and `words`) ->
            `hidden_out`, `logits`; in the order in which they run.
    """

    embed: onnx.ModelProto
    stages: tuple[onnx.ModelProto, ...]


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
    stages = tuple(_stage(stage, packed.width) for stage in packed.stages)
    return TierTwoGraphs(embed=embed, stages=stages)


def _stage(stage: PackedStage | PackedTagStage, width: int) -> onnx.ModelProto:
    # Two rows of two and one tokens: every size differs from the others, so none is taken for a constant.
    hidden, mask = torch.zeros(3, width), torch.tensor([[True, True], [True, False]])
    gather, scatter = torch.tensor([[0, 1], [2, 0]]), torch.tensor([0, 1, 2])
    inputs: dict[str, tuple[str, ...]]
    inputs = {"hidden": ("tokens",), "gather": ("rows", "longest"), "mask": ("rows", "longest")}
    if isinstance(stage, PackedStage):
        return _export(
            stage,
            (hidden, gather, mask, scatter),
            inputs=inputs | {"scatter": ("tokens",)},
            outputs={"hidden_out": ("tokens",), "logits": ("rows",)},
        )
    # The first token of each row is active, and a word begins with the second of them.
    active, query_gather, words = torch.tensor([0, 2]), torch.tensor([[0], [1]]), torch.tensor([1])
    return _export(
        stage,
        (hidden, gather, mask, active, query_gather, scatter[:2], words),
        inputs=inputs
        | {
            "active": ("actives",),
            "query_gather": ("rows", "longest_active"),
            "scatter": ("actives",),
            "words": ("words",),
        },
        outputs={"hidden_out": ("actives",), "logits": ("words",)},
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
            dynamic_axes={name: dict(enumerate(axes)) for name, axes in {**inputs, **outputs}.items()},
        )
    model = onnx.load_from_string(buffer.getvalue())
    # Names of source lines, with the exporter's folders in them, are nobody's business in a bundle.
    for node in model.graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    onnx.checker.check_model(model)
    return model

"""What tests of ONNX graphs share."""

from __future__ import annotations

import onnx

from cascade.core.rows import FloatArray, Units
from cascade_export import ExportOptions
from cascade_export.int8.quantise import Quantised, quantise_tier
from cascade_export.packed.chain import chain_logits
from cascade_export.packed.stages import TierGraphs
from cascade_export.texts import Sample

Axes = dict[str, list[str | int]]


def operators(model: onnx.ModelProto) -> list[str]:
    """Names of the operators, in order, but for those that make nothing."""
    return [node.op_type for node in model.graph.node if node.op_type not in ("Constant", "Identity")]


def axes(model: onnx.ModelProto) -> Axes:
    """Sizes, or their names, of all inputs and outputs."""
    values = [*model.graph.input, *model.graph.output]
    return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}


def scaled(stage: onnx.ModelProto) -> int:
    """How many tensors are multiplied by a scale before they are quantised."""
    inputs = {node.input[0] for node in stage.graph.node if node.op_type == "QuantizeLinear"}
    return sum(node.op_type == "Mul" and node.output[0] in inputs for node in stage.graph.node)


def padded_logits(model: onnx.ModelProto, units: Units, *, max_length: int = 64) -> FloatArray:
    """What a padded graph says. Shape `(units, labels)`."""
    return chain_logits(TierGraphs(None, (model,), max_length=max_length), units)[:, 0]


def quantised(graphs: TierGraphs, units: Units, int8: bool = True, bar: float = 0.0, weight_bits: int = 8) -> Quantised:
    """A second tier in int8, these units having calibrated it; stages below the bar stay fp32."""
    options = ExportOptions(int8=int8, agreement=bar, weight_bits=weight_bits)
    return quantise_tier(graphs, chain_logits(graphs, units), Sample(units), options)

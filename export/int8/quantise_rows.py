"""int8 linear layers with a scale for each row, measured while running: no calibration, and no batch mates.

Each row of an activation (a token) is divided by its own largest value, so that it takes 1 to 255 around a zero of 128
whatever the rows beside it hold (the per-token scales of Yao et al., ZeroQuant, NeurIPS 2022, section 4.1).
ONNX Runtime 1.31 has no product that takes such scales, `DynamicQuantizeMatMul` and `MatMulIntegerToFloat` take one per
tensor; so its int8 product runs with a scale of 1, and plain operators measure, divide, multiply back and add the
bias. That costs six more passes over activations per layer than a static scale.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, helper

from cascade_export.int8.rewriting import MICROSOFT, Rewriting, int8_weight

LARGEST, LAST_AXIS, LEAST, ONE, ZERO = "rows_largest", "rows_last_axis", "rows_least", "rows_one", "rows_zero"
CONSTANTS = {
    LARGEST: np.array(127, np.float32),
    LAST_AXIS: np.array([-1]),
    LEAST: np.array(1e-30, np.float32),  # of a scale: a row of zeros stays one
    ONE: np.array(1, np.float32),
    ZERO: np.array(128, np.uint8),
}


def quantise_by_row(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of an fp32 graph whose linear layers are int8, activations with a scale per row of their last axis.

    Inputs may have any number of axes. What several layers read is quantised once, and what is some rows of it is
    gathered as uint8, with its scales.
    """
    graph = Rewriting(model)
    graph.constants |= CONSTANTS if graph.linears else {}
    for number, linear in enumerate(graph.linears):
        name = f"int8_{number}"
        values, _, nodes = graph.quantised(linear, name, _quantised, "_scale")
        weight, product = [f"{name}_weight", f"{name}_weight_scale"], f"{name}_product"
        graph.constants |= zip(weight, int8_weight(linear.weight), strict=True)
        inputs = [values, weight[0], ONE, weight[1], ZERO]
        nodes.append(helper.make_node("MatMulIntegerToFloat", inputs, [product], product, domain=MICROSOFT))
        scaled = linear.output if linear.bias is None else f"{name}_scaled"
        nodes.append(helper.make_node("Mul", [product, f"{values}_scale"], [scaled], f"{name}_scaled"))
        if linear.bias is not None:
            graph.constants[f"{name}_bias"] = np.ascontiguousarray(linear.bias)
            nodes.append(helper.make_node("Add", [scaled, f"{name}_bias"], [linear.output], f"{name}_biased"))
        graph.put(linear, nodes)
    return graph.result()


def _quantised(source: str, name: str) -> list[NodeProto]:
    """Nodes that make `name`, the uint8 form of `source`, and `name_scale`, a column of scales."""
    size, most, scale, scaled = f"{name}_size", f"{name}_most", f"{name}_scale", f"{name}_scaled"
    return [
        helper.make_node("Abs", [source], [size], size),
        helper.make_node("ReduceMax", [size, LAST_AXIS], [most], most, keepdims=1),
        helper.make_node("Div", [most, LARGEST], [f"{scale}_any"], f"{scale}_any"),
        helper.make_node("Max", [f"{scale}_any", LEAST], [scale], scale),
        helper.make_node("Div", [source, scale], [scaled], scaled),
        helper.make_node("QuantizeLinear", [scaled, ONE, ZERO], [name], f"{name}_quantise"),
    ]

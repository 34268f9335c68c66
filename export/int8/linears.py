"""Finding linear layers and constants in an ONNX graph, and the ranges of what the layers read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from cascade.core.rows import FloatArray


@dataclass(frozen=True, eq=False)
class Linear:
    """A product with a constant matrix, and the constant that is added to it, as found in a graph.

    `nodes`: indices in `graph.node`, the last makes `output`; `input`, `output`: names of the activation and of the
    result; `weight`: shape `(in, out)`; `bias`: shape `(out,)`, or None.
    """

    nodes: tuple[int, ...]
    input: str
    output: str
    weight: FloatArray
    bias: FloatArray | None


def linears(model: onnx.ModelProto) -> list[Linear]:
    """All products of an activation with a constant matrix, in the order of the graph."""
    graph = model.graph
    constants = constants_of(graph)
    uses = Counter(name for node in graph.node for name in node.input) + Counter(value.name for value in graph.output)
    readers = {name: (i, node) for i, node in enumerate(graph.node) for name in node.input}
    found = []
    for i, node in enumerate(graph.node):
        if node.op_type not in ("MatMul", "Gemm") or node.input[0] in constants or node.input[1] not in constants:
            continue
        weight, bias, output = constants[node.input[1]], None, node.output[0]
        nodes: tuple[int, ...] = (i,)
        if weight.ndim != 2 or weight.dtype != np.float32 or not _is_plain(node):
            continue
        if attribute(node, "transB", 0):
            weight = weight.T
        if len(node.input) > 2:
            if node.input[2] not in constants:
                continue
            bias = constants[node.input[2]]
        position, reader = readers.get(output, (0, None))
        if node.op_type == "MatMul" and reader is not None and reader.op_type == "Add" and uses[output] == 1:
            other = next(name for name in reader.input if name != output)
            if other in constants and constants[other].shape == (weight.shape[1],):
                bias, nodes, output = constants[other], (i, position), reader.output[0]
        found.append(Linear(nodes, node.input[0], output, weight, bias))
    return found


def constants_of(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    """Constant values by name, seen through the copies and transposes that exporters leave for shared weights."""
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            values[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        elif node.op_type == "Identity" and node.input[0] in values:
            values[node.output[0]] = values[node.input[0]]
        elif node.op_type == "Transpose" and node.input[0] in values:
            values[node.output[0]] = values[node.input[0]].transpose(attribute(node, "perm", None))
    return values


def _is_plain(node: NodeProto) -> bool:
    return not attribute(node, "transA", 0) and attribute(node, "alpha", 1.0) == attribute(node, "beta", 1.0) == 1.0


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """A node's attribute by name, or the default."""
    return next((helper.get_attribute_value(value) for value in node.attribute if value.name == name), default)


AXES = "watched/axes"
Ranges: TypeAlias = FloatArray
"""The lowest and the highest value of each channel of a layer's input. Shape `(2, in)`."""


def watched(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that also gives the lowest and highest input of every channel, as `name/low` and `name/high`."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    for name in sorted({linear.input for linear in linears(model)}):
        flat = f"{name}/flat"
        copied.graph.node.append(helper.make_node("Flatten", [name], [flat], flat, axis=-1))
        for operator, end in (("ReduceMin", "low"), ("ReduceMax", "high")):
            output = f"{name}/{end}"
            copied.graph.node.append(helper.make_node(operator, [flat, AXES], [output], output, keepdims=0))
            copied.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, ["channels"]))
    copied.graph.initializer.append(numpy_helper.from_array(np.array([0]), AXES))
    return copied


def widen(found: dict[str, Ranges], outputs: Mapping[str, np.ndarray]) -> None:
    """Add what a watched graph gave to the ranges by input."""
    for output in outputs:
        if output.endswith("/low"):
            name = output.removesuffix("/low")
            both = [*found.get(name, []), outputs[output], outputs[f"{name}/high"]]
            found[name] = np.stack((np.min(both, axis=0), np.max(both, axis=0)))

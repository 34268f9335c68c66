"""Finding in an ONNX graph: linear layers, constants, values that are only moved or looked up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from cascade.core.rows import FloatArray, IntArray

Origin: TypeAlias = tuple[str, list[NodeProto]]
"""What a tensor is made of, and the nodes that make it, in order; the last makes the tensor itself."""


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


def movement(graph: onnx.GraphProto, name: str) -> Origin | None:
    """How a tensor is made of copies of a smaller one, and zeros, by `Pad`, `Slice` and `Concat`.

    The smaller one's name; None where it is not.
    """
    makers = {output: (i, node) for i, node in enumerate(graph.node) for output in node.output}
    constants = constants_of(graph)
    found: dict[int, NodeProto] = {}

    def origin(name: str) -> str | None:
        place, node = makers.get(name, (0, None))
        if node is None or not _moves(node, constants):
            return name
        origins = {origin(part) for part in (node.input if node.op_type == "Concat" else node.input[:1])}
        found[place] = node
        return origins.pop() if len(origins) == 1 else None

    source = origin(name)
    if source is None or not any(node.op_type == "Concat" for node in found.values()):
        return None
    return source, [found[place] for place in sorted(found)]


def lookup(graph: onnx.GraphProto, name: str) -> Origin | None:
    """How a tensor is looked up in a constant table of shape `(rows, width)`: by a `Gather`, perhaps with reshapes.

    The table's name; None where it is not.
    """
    makers = {output: node for node in graph.node for output in node.output}
    nodes: list[NodeProto] = []
    while (node := makers.get(name)) is not None and node.op_type == "Reshape":
        nodes.insert(0, node)
        name = node.input[0]
    if node is None or table_of(node, constants_of(graph)) is None:
        return None
    return node.input[0], [node, *nodes]


def table_of(node: NodeProto, constants: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The constant table of floats, of shape `(rows, width)`, that a node looks rows up in; None where it does not."""
    table = constants.get(node.input[0]) if _looks_up(node) else None
    return table if table is not None and table.ndim == 2 and table.dtype == np.float32 else None


def readers_of(graph: onnx.GraphProto, table: str) -> list[int]:
    """Numbers of all nodes that look rows up in this table."""
    return [i for i, node in enumerate(graph.node) if _looks_up(node) and node.input[0] == table]


def _looks_up(node: NodeProto) -> bool:
    return node.op_type == "Gather" and not attribute(node, "axis", 0)


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


def _moves(node: NodeProto, constants: dict[str, np.ndarray]) -> bool:
    """Whether a node's output has its inputs' values, or zeros, and nothing else."""
    if node.op_type != "Pad":
        return node.op_type in ("Slice", "Concat")
    filler = node.input[2] if len(node.input) > 2 else ""
    zero = not filler or (filler in constants and not constants[filler].any())
    return zero and attribute(node, "mode", b"constant") == b"constant"


def _is_plain(node: NodeProto) -> bool:
    return not attribute(node, "transA", 0) and attribute(node, "alpha", 1.0) == attribute(node, "beta", 1.0) == 1.0


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """A node's attribute by name, or the default."""
    return next((helper.get_attribute_value(value) for value in node.attribute if value.name == name), default)


AXES = "watched/axes"


@dataclass(frozen=True, eq=False)
class Ranges:
    """The lowest and the highest value of each channel of a layer's input. Shapes `(in,)`."""

    low: FloatArray
    high: FloatArray

    def __truediv__(self, scale: FloatArray) -> Ranges:
        """The ranges of an input that is divided by a positive scale of shape `(in,)`."""
        return Ranges(self.low / scale, self.high / scale)

    @property
    def largest(self) -> FloatArray:
        """The largest magnitude of each channel. Shape `(in,)`."""
        return np.maximum(np.abs(self.low), np.abs(self.high))

    def without(self, channels: IntArray) -> Ranges:
        """The ranges of an input whose channels of these numbers are 0."""
        kept = np.ones(len(self.low), np.float32)
        kept[channels] = 0
        return Ranges(self.low * kept, self.high * kept)


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
    for output, low in outputs.items():
        if output.endswith("/low"):
            name = output.removesuffix("/low")
            high = outputs[f"{name}/high"]
            old = found.get(name, Ranges(low, high))
            found[name] = Ranges(np.minimum(old.low, low), np.maximum(old.high, high))

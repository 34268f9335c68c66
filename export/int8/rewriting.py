"""A copy of an ONNX graph in which linear layers are replaced one by one, and the uint8 form of what they read.

What a layer reads has one scale from calibration: it is rounded, moved about, or looked up. What is made of copies of a
smaller tensor (a token beside its neighbours) is made of copies of its uint8 form: the same numbers for a fraction of
the work. Of what is looked up in a constant table the table is rounded, at export, and nothing is left to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from cascade.core.rows import FloatArray
from cascade_export.int8.linears import (
    Linear,
    Origin,
    Ranges,
    attribute,
    constants_of,
    linears,
    lookup,
    movement,
    readers_of,
)

MICROSOFT = "com.microsoft"


class Rewriting:
    """The linear layers of a graph, and what takes their place.

    Attributes:
        linears: all of them, in the order of the graph.
        constants: new ones, by name.
        replaced: by number of a node of the graph, nodes to put in its place.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.linears = linears(model)
        self.constants: dict[str, np.ndarray] = {}
        self.replaced: dict[int, list[NodeProto]] = {}
        self._rows = _shared_rows(model.graph, self.linears)
        self._ready: dict[str, str] = {}

    def origin(self, linear: Linear) -> str:
        """What is quantised for a layer: its input, or the tensor that its input is some rows of.

        In a tagger's layer, keys and values read all tokens and queries some of them: quantised once, gathered as
        bytes.
        """
        return self._rows.get(linear.input, (linear.input, ""))[0]

    def quantised(
        self, linear: Linear, name: str, make: Callable[[str, str], list[NodeProto]]
    ) -> tuple[str, str, list[NodeProto]]:
        """Names of the bytes of a layer's input and of its origin's; the nodes that make them if no layer before did.

        `make` gives nodes that quantise a tensor, from its name and that of the result.
        """
        origin, nodes = self.origin(linear), list[NodeProto]()
        if origin not in self._ready:
            self._ready[origin] = f"{name}_input"
            nodes += make(origin, f"{name}_input")
        whole = self._ready[origin]
        if linear.input not in self._ready:
            self._ready[linear.input] = made = f"{name}_rows"
            nodes.append(helper.make_node("Gather", [whole, self._rows[linear.input][1]], [made], made))
        return self._ready[linear.input], whole, nodes

    def put(self, linear: Linear, nodes: list[NodeProto]) -> None:
        """Replace a layer."""
        self.replaced |= {index: [] for index in linear.nodes[:-1]} | {linear.nodes[-1]: nodes}

    def result(self) -> onnx.ModelProto:
        """The new graph."""
        return rebuild(self.model, self.replaced, self.constants)


def int8_weight(matrix: FloatArray) -> tuple[np.ndarray, np.ndarray]:
    """A matrix of shape `(in, out)` as int8, and the scale of each column, shape `(out,)`."""
    scale = np.maximum(np.abs(matrix).max(axis=0) / 127, np.finfo(np.float32).tiny).astype(np.float32)
    return np.clip(np.rint(matrix / scale), -127, 127).astype(np.int8), scale


def rebuild(
    model: onnx.ModelProto, replaced: Mapping[int, list[NodeProto]], constants: Mapping[str, np.ndarray]
) -> onnx.ModelProto:
    """A copy with new nodes in place of old ones, in order, and without the constants that nothing reads any more."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    nodes = [new for i, node in enumerate(model.graph.node) for new in replaced.get(i, [node])]
    outputs = {value.name for value in model.graph.output}
    while True:
        read = {name for node in nodes for name in node.input} | outputs
        kept = [node for node in nodes if any(name in read for name in node.output)]
        if len(kept) == len(nodes):
            break
        nodes = kept
    graph = made.graph
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in read)
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    if not any(entry.domain == MICROSOFT for entry in made.opset_import):
        made.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    return made


def _shared_rows(graph: onnx.GraphProto, found: Sequence[Linear]) -> dict[str, tuple[str, str]]:
    """Inputs that are some rows of another layer's input: by name, that input and the numbers of the rows."""
    inputs = {linear.input for linear in found}
    return {
        node.output[0]: (node.input[0], node.input[1])
        for node in graph.node
        if node.op_type == "Gather"
        and node.output[0] in inputs
        and node.input[0] in inputs
        and not attribute(node, "axis", 0)
    }


def uint8_input(graph: Rewriting, source: str, name: str, span: Ranges) -> list[NodeProto]:
    """Nodes that make `name` of the tensor `source`, with the scale `name_scale` and the zero point `name_zero`."""
    scale, zero = _uint8(span)
    graph.constants |= {f"{name}_scale": scale, f"{name}_zero": zero}
    found, table = lookup(graph.model.graph, source), f"{name}_table"
    if found is None:
        return _rounded(source, name, movement(graph.model.graph, source))
    old, look_up = found
    rounded = np.rint(constants_of(graph.model.graph)[old] / scale) + zero
    graph.constants[table] = np.clip(rounded, 0, 255).astype(np.uint8)
    graph.replaced |= _other_readers(graph.model.graph, old, name)
    # The same look-up and reshapes as before, in the rounded table.
    names = [table, *(f"{name}_rows_{number}" for number in range(len(look_up) - 1)), name]
    return [
        helper.make_node(node.op_type, [before, *node.input[1:]], [after], after)
        for node, before, after in zip(look_up, names[:-1], names[1:], strict=True)
    ]


def _rounded(source: str, name: str, moved: Origin | None) -> list[NodeProto]:
    """Nodes that round a tensor, or the smaller one that it is copies of, and then copy the uint8 form."""
    scale, zero = f"{name}_scale", f"{name}_zero"
    if moved is None:
        return [helper.make_node("QuantizeLinear", [source, scale, zero], [name], f"{name}_quantise")]
    small, copies = moved
    names = {small: f"{name}_source", source: name}
    nodes = [helper.make_node("QuantizeLinear", [small, scale, zero], [names[small]], f"{name}_quantise")]
    for number, node in enumerate(copies):
        names.setdefault(node.output[0], f"{name}_moved_{number}")
        copied = NodeProto.FromString(node.SerializeToString())
        inputs = [names.get(given, given) for given in node.input]
        if node.op_type == "Pad":
            inputs = [*inputs[:2], zero, *inputs[3:]]
        del copied.input[:]
        copied.input.extend(inputs)
        copied.output[0], copied.name = names[node.output[0]], names[node.output[0]]
        nodes.append(copied)
    return nodes


def _other_readers(graph: onnx.GraphProto, table: str, name: str) -> dict[int, list[NodeProto]]:
    """By number of the node, what other readers of the table get: floats of the same bytes, so one table is enough."""
    replaced = {}
    for i in readers_of(graph, table):
        node, rows = graph.node[i], f"{name}_of_{i}"
        scaled = [rows, f"{name}_scale", f"{name}_zero"]
        replaced[i] = [
            helper.make_node("Gather", [f"{name}_table", node.input[1]], [rows], rows),
            helper.make_node("DequantizeLinear", scaled, [node.output[0]], f"{rows}_float"),
        ]
    return replaced


def _uint8(span: Ranges) -> tuple[np.ndarray, np.ndarray]:
    """Scale and zero point such that the range, widened to hold 0, covers 0 to 255."""
    low, high = min(float(span.low.min()), 0.0), max(float(span.high.max()), 0.0)
    scale = max((high - low) / 255, float(np.finfo(np.float32).tiny))
    return np.array(scale, np.float32), np.array(np.clip(np.rint(-low / scale), 0, 255), np.uint8)

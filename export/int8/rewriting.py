"""A copy of an ONNX graph in which linear layers are replaced one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from cascade.core.rows import FloatArray
from cascade_export.int8.linears import Linear, attribute, linears

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

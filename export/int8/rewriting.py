"""The linear layers of an ONNX graph, the ranges of what they read, and a copy in which they are replaced one by one.

What is made of copies of a smaller tensor (a token beside its neighbours) is made of copies of its uint8 form: the same
numbers for a fraction of the work. Of what is looked up in a constant table the table is rounded, at export, and
nothing is left to do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from cascade.core.rows import FloatArray

MICROSOFT = "com.microsoft"
LOOKING_UP, MOVING = ("Gather", "Reshape"), ("Pad", "Slice", "Concat")


class Rewriting:
    """The linear layers of a graph, and what takes their place.

    Attributes:
        linears: all of them, in the order of the graph; `by_origin`: the same by what is rounded for them.
        constants: new ones, by name.
        replaced: by number of a node of the graph, nodes to put in its place.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model, self.linears = model, linears(model)
        self.constants: dict[str, np.ndarray] = {}
        self.replaced: dict[int, list[NodeProto]] = {}
        self.by_origin: dict[str, list[Linear]] = {}
        self._known, self._ready = constants_of(model.graph), dict[str, str]()
        self._makers = {output: (i, node) for i, node in enumerate(model.graph.node) for output in node.output}
        self._inputs = {linear.input for linear in self.linears}
        for linear in self.linears:
            self.by_origin.setdefault(self.origin(linear), []).append(linear)

    def origin(self, linear: Linear) -> str:
        """What is rounded for a layer: its input, or the other layer's input that its input is some rows of.

        In a tagger's layer, keys and values read all tokens and queries some of them: rounded once, gathered as bytes.
        """
        _, node = self._makers.get(linear.input, (0, None))
        some = node is not None and _copies(node, ("Gather",), self._known) and node.input[0] in self._inputs
        return node.input[0] if some and node is not None else linear.input

    def uint8(
        self, linear: Linear, name: str, span: Ranges, smoothing: FloatArray | None
    ) -> tuple[str, str, list[NodeProto]]:
        """Names of the bytes of a layer's input and of its origin's; the nodes that make them if no layer before did.

        The latter, if new, is `name`; with `_scale` and `_zero` behind it the two names of how its bytes are meant.
        """
        origin, nodes = self.origin(linear), list[NodeProto]()
        if origin not in self._ready:
            self._ready[origin] = name
            nodes += self.rounded(origin, name, span, smoothing)
        whole = self._ready[origin]
        if linear.input not in self._ready:
            self._ready[linear.input] = made = f"{name}_rows"
            numbers = self._makers[linear.input][1].input[1]
            nodes.append(helper.make_node("Gather", [whole, numbers], [made], made))
        return self._ready[linear.input], whole, nodes

    def rounded(self, source: str, name: str, span: Ranges, smoothing: FloatArray | None = None) -> list[NodeProto]:
        """Nodes that make the uint8 form of a tensor, after a division by the smoothing's scales if there are some."""
        nodes, scaled = list[NodeProto](), [f"{name}_scale", f"{name}_zero"]
        if smoothing is not None:
            span, factors, smooth = span / smoothing, f"{name}_smoothing", f"{name}_smooth"
            self.constants[factors] = (1 / smoothing).astype(np.float32)
            nodes.append(helper.make_node("Mul", [source, factors], [smooth], smooth))
            source = smooth
        scale, zero = _uint8(span)
        self.constants |= zip(scaled, (scale, zero), strict=True)
        small, copies = self.copies(source)
        names = {small: f"{name}_source" if copies else name}
        if small in self._known:
            values = np.rint(self._known[small] / scale) + zero
            self.constants[names[small]] = np.clip(values, 0, 255).astype(np.uint8)
            self.replaced |= self._other_readers(small, names[small], scaled)
        else:
            nodes.append(helper.make_node("QuantizeLinear", [small, *scaled], [names[small]], f"{name}_quantise"))
        names[source] = name
        for number, node in enumerate(copies):
            made = names.setdefault(node.output[0], f"{name}_copied_{number}")
            inputs = [names.get(given, given) for given in node.input]
            if node.op_type == "Pad":
                inputs[2:3] = [scaled[1]]
            copied = helper.make_node(node.op_type, inputs, [made], made)
            copied.attribute.extend(node.attribute)
            nodes.append(copied)
        return nodes

    def copies(self, name: str) -> tuple[str, list[NodeProto]]:
        """What a tensor is made of copies of, and the nodes that copy, in order; itself where it is not.

        A constant table of floats in which rows are looked up, by a `Gather`, perhaps with reshapes; or a smaller
        tensor that is put beside itself, with zeros, by `Pad`, `Slice` and `Concat`.
        """
        for kinds in (LOOKING_UP, MOVING):
            found: dict[int, NodeProto] = {}
            source = self._origin(name, kinds, found)
            nodes = [found[place] for place in sorted(found)]
            if source is not None and nodes:
                looked_up = table_of(nodes[0], self._known) is not None
                if looked_up or any(node.op_type == "Concat" for node in nodes):
                    return source, nodes
        return name, []

    def put(self, linear: Linear, nodes: list[NodeProto]) -> None:
        """Replace a layer."""
        self.replaced |= {index: [] for index in linear.nodes[:-1]} | {linear.nodes[-1]: nodes}

    def result(self) -> onnx.ModelProto:
        """The new graph."""
        return rebuild(self.model, self.replaced, self.constants)

    def _origin(self, name: str, kinds: Collection[str], found: dict[int, NodeProto]) -> str | None:
        """What nodes of these kinds copy; None where it is several tensors. The nodes are added to those found."""
        place, node = self._makers.get(name, (0, None))
        if node is None or not _copies(node, kinds, self._known):
            return name
        parts = node.input if node.op_type == "Concat" else node.input[:1]
        origins = {self._origin(part, kinds, found) for part in parts}
        found[place] = node
        return origins.pop() if len(origins) == 1 else None

    def _other_readers(self, table: str, name: str, scaled: list[str]) -> dict[int, list[NodeProto]]:
        """By number of the node, what readers of the table get: floats of the same bytes, so one table is enough."""
        replaced = {}
        for i, node in enumerate(self.model.graph.node):
            if table_of(node, self._known) is not None and node.input[0] == table:
                rows = f"{name}_of_{i}"
                replaced[i] = [
                    helper.make_node("Gather", [name, node.input[1]], [rows], rows),
                    helper.make_node("DequantizeLinear", [rows, *scaled], [node.output[0]], f"{rows}_float"),
                ]
        return replaced


def table_of(node: NodeProto, constants: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The constant table of floats, of shape `(rows, width)`, that a node looks rows up in; None where it does not."""
    table = constants.get(node.input[0]) if _copies(node, ("Gather",), constants) else None
    return table if table is not None and table.ndim == 2 and table.dtype == np.float32 else None


def int8_weight(matrix: FloatArray, *, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """A matrix of shape `(in, out)` as int8, and the scale of each column, shape `(out,)`.

    Of 7 `bits` the largest number is 64: with it two products with uint8 still fit 16 bits, 2 * 255 * 64 < 2 ** 15, and
    ONNX Runtime, which looks at the numbers, uses its saturating instructions where it has to keep off them otherwise.
    """
    largest = {8: 127, 7: 64}[bits]
    scale = np.maximum(np.abs(matrix).max(axis=0) / largest, np.finfo(np.float32).tiny).astype(np.float32)
    return np.clip(np.rint(matrix / scale), -largest, largest).astype(np.int8), scale


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


def _copies(node: NodeProto, kinds: Collection[str], constants: Mapping[str, np.ndarray]) -> bool:
    """Whether a node is of these kinds and its output has its first input's values, or zeros, and nothing else."""
    if node.op_type == "Pad":
        filler = node.input[2] if len(node.input) > 2 else ""
        zero = not filler or (filler in constants and not constants[filler].any())
        return "Pad" in kinds and zero and attribute(node, "mode", b"constant") == b"constant"
    return node.op_type in kinds and not (node.op_type == "Gather" and attribute(node, "axis", 0))


def _uint8(span: Ranges) -> tuple[np.ndarray, np.ndarray]:
    """Scale and zero point such that the range, widened to hold 0, covers 0 to 255."""
    low, high = min(float(span.min()), 0.0), max(float(span.max()), 0.0)
    scale = max((high - low) / 255, float(np.finfo(np.float32).tiny))
    return np.array(scale, np.float32), np.array(np.clip(np.rint(-low / scale), 0, 255), np.uint8)


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

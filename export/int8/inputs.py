"""The uint8 form of what a linear layer reads, with one scale from calibration: rounded, moved about, or looked up.

What is made of copies of a smaller tensor (a token beside its neighbours) is made of copies of its uint8 form: the same
numbers for a fraction of the work. Of what is looked up in a constant table the table is rounded, at export, and
nothing is left to do.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, helper

from cascade_export.int8.linears import Origin, Ranges, constants_of, lookup, movement, readers_of
from cascade_export.int8.rewriting import Rewriting


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

"""A layer over rows of a constant table side by side: rows of the table's products are looked up, and added up.

A token beside its neighbours times a matrix is a sum, of each of them times its own part of the matrix. Table and
matrix are constants, so they are multiplied once, when the graph is loaded (ONNX Runtime folds it), and files stay
small. What is left of the layer is bytes to add.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import NodeProto, helper

from cascade_export.int8.rewriting import Rewriting

MIDDLE = 128  # the byte that stands for 0


def looks_up(nodes: Sequence[NodeProto]) -> bool:
    """Whether these nodes make rows of a table side by side."""
    return [node.op_type for node in nodes] == ["Gather", "Reshape"]


def looked_up(graph: Rewriting, nodes: Sequence[NodeProto], layer: NodeProto) -> list[NodeProto]:
    """Nodes in the place of an int8 layer, whose input, rows of a table side by side, these nodes make; or it itself.

    One scale for all products: with one for each column they answered as fp32 no more often.
    """
    if not looks_up(nodes):
        return [layer]
    _, weight, scale, weight_scale, zero, *bias = layer.input
    (table, ids), name, known = nodes[0].input, layer.name, graph.constants
    parts = known[weight].reshape(-1, known[table].shape[1], known[weight].shape[1])
    values = (known[table] - np.float32(known[zero])) * known[scale]
    largest = max(float(np.abs(values @ (part * known[weight_scale])).max()) for part in parts)
    own = {
        "parts": (parts + np.int16(MIDDLE)).astype(np.uint8),  # of signed ones sums may saturate without VNNI
        "parts_scale": np.tile(known[weight_scale], (len(parts), 1, 1)),
        "scale": np.float32(max(largest / (MIDDLE - 1), float(np.finfo(np.float32).tiny))),
        "middle": np.uint8(MIDDLE),
        "shape": np.array([-1, parts.shape[2]]),
        "starts": np.arange(len(parts)) * len(values),
        "ones": np.ones((1, len(parts)), np.uint8),
        "one": np.float32(1),
        "axis": np.array([-2]),
    }
    known |= {f"{name}@{key}": np.asarray(value) for key, value in own.items()}

    def node(kind: str, inputs: str, output: str, *others: str) -> NodeProto:
        """Names that begin with @ are this layer's own; `others` are inputs too."""
        names = [f"{name}{one}" if one.startswith("@") else one for one in (*inputs.split(), *others, output)]
        domain = layer.domain if kind == layer.op_type else ""
        return helper.make_node(kind, names[:-1], names[-1:], f"{name}@{kind}", domain=domain)

    return [
        node("QLinearMatMul", f"{table} {scale} {zero} @parts @parts_scale @middle @scale @middle", "@products"),
        node("Reshape", "@products @shape", "@rows"),
        node("Add", f"{ids} @starts", "@places"),
        node("Gather", "@rows @places", "@summands"),
        node("MatMulIntegerToFloat", "@ones @summands @one @scale", "@sum", "", "@middle", *bias[1:]),
        node("Squeeze", "@sum @axis", layer.output[0]),
    ]

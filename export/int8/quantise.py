"""int8 forms of ONNX graphs: linear layers and embedding tables.

Weights are symmetric with one scale per output column, activations uint8. Products without weights (attention) stay
fp32. A table has one scale per row (token), so a rare token's small vector keeps its precision.

The operators are ONNX Runtime's own (`MatMulIntegerToFloat`, `DynamicQuantizeMatMul`, with the bias inside). The
portable QDQ form (`QuantizeLinear` and `DequantizeLinear` around `MatMul` and `Add`) computes the same numbers, but
ONNX Runtime 1.31 fuses the product and its bias to an fp32 `Gemm` before it looks for int8: 12.5 ms against 3.0 ms
for 800 x 384 by 384 x 1536 on one core, one interleaved run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from cascade.core.rows import FloatArray
from cascade_export.int8.inputs import Ranges, uint8_input
from cascade_export.int8.linears import Linear, attribute, constants_of, linears

__all__ = ["int8_weight", "quantise_linears", "quantise_tables", "rebuild", "shared_rows"]

MICROSOFT = "com.microsoft"
# Below these a scale per row costs more than int8 saves: a weight per token, two token types.
MIN_TABLE_WIDTH, MIN_TABLE_ROWS = 8, 5
SMOOTHING = 0.8
SMOOTHING_FLOOR = 0.5


def quantise_linears(
    model: onnx.ModelProto, ranges: Mapping[str, Ranges] | None, *, smooth: bool = False
) -> onnx.ModelProto:
    """A copy of the graph whose linear layers are int8.

    Args:
        model: fp32.
        ranges: of each linear layer's input, by name: static; None: dynamic.
        smooth: with ranges only: divide each channel of an input by a scale and multiply the weights by it, so that
            a few large channels do not cost the others their precision (SmoothQuant, Xiao et al., ICML 2023,
            section 4). It halved the difference from fp32 on MiniLM for one more pass over each input.
    """
    quantised = onnx.ModelProto()
    quantised.CopyFrom(model)
    replaced: dict[int, list[NodeProto]] = {}
    constants: dict[str, np.ndarray] = {}
    ready: dict[str, tuple[str, str, str]] = {}
    found = linears(model)
    rows = shared_rows(model.graph, found)
    sources = {linear.input: rows[linear.input][0] if linear.input in rows else linear.input for linear in found}
    smoothing = _smoothing(found, sources, ranges) if smooth and ranges is not None else {}
    for number, linear in enumerate(found):
        name = f"int8_{number}"
        matrix, origin = linear.weight, sources[linear.input]
        if origin in smoothing:
            matrix = matrix * smoothing[origin][:, None]
        constants[f"{name}_weight"], constants[f"{name}_weight_scale"] = int8_weight(matrix)
        bias = ""
        if linear.bias is not None:
            bias = f"{name}_bias"
            constants[bias] = np.ascontiguousarray(linear.bias)
        weight = [f"{name}_weight", f"{name}_weight_scale"]
        nodes = []
        if ranges is None:
            nodes.append(_node("DynamicQuantizeMatMul", [linear.input, *weight, "", bias], linear.output))
        else:
            if origin not in ready:
                ready[origin] = (f"{name}_input", f"{name}_input_scale", f"{name}_input_zero")
                source, span = origin, ranges[origin]
                if source in smoothing:
                    span = span / smoothing[source]
                    constants[f"{name}_smoothing"] = (1 / smoothing[source]).astype(np.float32)
                    nodes.append(
                        helper.make_node("Mul", [source, f"{name}_smoothing"], [f"{name}_smooth"], f"{name}_smooth")
                    )
                    source = f"{name}_smooth"
                made = uint8_input(model.graph, source, name, span)
                nodes += made.nodes
                constants |= made.constants
                replaced |= made.replaced
            if linear.input not in ready:  # some rows of an input that is quantised as a whole
                ready[linear.input] = (f"{name}_rows", *ready[origin][1:])
                inputs = [ready[origin][0], rows[linear.input][1]]
                nodes.append(helper.make_node("Gather", inputs, [f"{name}_rows"], f"{name}_gather"))
            values, input_scale, zero = ready[linear.input]
            inputs = [values, weight[0], input_scale, weight[1], zero, "", bias]
            nodes.append(_node("MatMulIntegerToFloat", inputs, linear.output))
        for index in linear.nodes[:-1]:
            replaced[index] = []
        replaced[linear.nodes[-1]] = nodes
    rebuild(quantised, replaced, constants)
    return quantised


def int8_weight(matrix: FloatArray) -> tuple[np.ndarray, np.ndarray]:
    """A matrix of shape `(in, out)` as int8, and the scale of each column, shape `(out,)`."""
    scale = np.maximum(np.abs(matrix).max(axis=0) / 127, np.finfo(np.float32).tiny).astype(np.float32)
    return np.clip(np.rint(matrix / scale), -127, 127).astype(np.int8), scale


def quantise_tables(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the graph whose embedding tables are int8 with one scale per row."""
    quantised = onnx.ModelProto()
    quantised.CopyFrom(model)
    known = constants_of(model.graph)
    replaced: dict[int, list[NodeProto]] = {}
    constants: dict[str, np.ndarray] = {}
    for i, node in enumerate(model.graph.node):
        table = known.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or table.ndim != 2 or table.dtype != np.float32 or attribute(node, "axis", 0):
            continue
        if table.shape[0] < MIN_TABLE_ROWS or table.shape[1] < MIN_TABLE_WIDTH:
            continue
        name = f"table_{i}"
        scale = np.maximum(np.abs(table).max(axis=1, keepdims=True) / 127, np.finfo(np.float32).tiny)
        constants[name] = np.clip(np.rint(table / scale), -127, 127).astype(np.int8)
        constants[f"{name}_scale"] = scale.astype(np.float32)
        ids = node.input[1]
        replaced[i] = [
            helper.make_node("Gather", [name, ids], [f"{name}_rows"], f"{name}_gather"),
            helper.make_node("Cast", [f"{name}_rows"], [f"{name}_float"], f"{name}_cast", to=onnx.TensorProto.FLOAT),
            helper.make_node("Gather", [f"{name}_scale", ids], [f"{name}_scales"], f"{name}_gather_scale"),
            helper.make_node("Mul", [f"{name}_float", f"{name}_scales"], [node.output[0]], f"{name}_mul"),
        ]
    rebuild(quantised, replaced, constants)
    return quantised


def rebuild(
    model: onnx.ModelProto, replaced: Mapping[int, list[NodeProto]], constants: Mapping[str, np.ndarray]
) -> None:
    """Put new nodes in place of old ones, in order, and drop the constants that nothing reads any more."""
    graph = model.graph
    nodes = [new for i, node in enumerate(graph.node) for new in replaced.get(i, [node])]
    outputs = {value.name for value in graph.output}
    while True:
        read = {name for node in nodes for name in node.input} | outputs
        kept = [node for node in nodes if any(name in read for name in node.output)]
        if len(kept) == len(nodes):
            break
        nodes = kept
    initializers = [tensor for tensor in graph.initializer if tensor.name in read]
    initializers += [numpy_helper.from_array(array, name) for name, array in constants.items()]
    kept_nodes = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    kept_initializers = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in initializers]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(kept_nodes)
    graph.initializer.extend(kept_initializers)
    if not any(entry.domain == MICROSOFT for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))


def _node(operator: str, inputs: list[str], output: str) -> NodeProto:
    while not inputs[-1]:
        inputs = inputs[:-1]
    return helper.make_node(operator, inputs, [output], f"{operator}_{output}", domain=MICROSOFT)


def shared_rows(graph: onnx.GraphProto, found: Sequence[Linear]) -> dict[str, tuple[str, str]]:
    """Inputs that are rows of another layer's input: by name, that input and the numbers of the rows.

    In a tagger's layer, keys and values read all tokens and queries some of them: quantised once, gathered as uint8.
    """
    inputs = {linear.input for linear in found}
    return {
        node.output[0]: (node.input[0], node.input[1])
        for node in graph.node
        if node.op_type == "Gather"
        and node.output[0] in inputs
        and node.input[0] in inputs
        and not attribute(node, "axis", 0)
    }


def _smoothing(
    found: Sequence[Linear], sources: Mapping[str, str], ranges: Mapping[str, Ranges]
) -> dict[str, FloatArray]:
    """A scale per channel for each input: its largest value ** 0.8 / its largest weight ** 0.2.

    The paper's exponent of 0.5 made MiniLM worse than none; from 0.7 to 0.9 it halved the difference. The floor keeps a
    channel that the texts hardly used from being cut off when other texts do.
    """
    scales = {}
    for name in set(sources.values()):
        largest = np.maximum(np.abs(ranges[name].low), np.abs(ranges[name].high))
        floor = max(SMOOTHING_FLOOR * float(np.median(largest)), 1e-6)
        read = [np.abs(linear.weight).max(axis=1) for linear in found if sources[linear.input] == name]
        weight = np.max(read, axis=0)
        scale = np.maximum(largest, floor) ** SMOOTHING / np.maximum(weight, 1e-6) ** (1 - SMOOTHING)
        scales[name] = (scale / np.exp(np.log(scale).mean())).astype(np.float32)
    return scales

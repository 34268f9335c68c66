"""int8 forms of ONNX graphs, linear layers and embedding tables, and what stays fp32 so that answers agree with it.

Weights are symmetric with one scale per output column, activations uint8. Products without weights (attention) stay
fp32. A table has one scale per row (token), so a rare token's small vector keeps its precision.

The operator is ONNX Runtime's own (`MatMulIntegerToFloat`, with the bias inside). The portable QDQ form
(`QuantizeLinear` and `DequantizeLinear` around `MatMul` and `Add`) computes the same numbers, but ONNX Runtime 1.31
fuses the product and its bias to an fp32 `Gemm` before it looks for int8: 12.5 ms against 3.0 ms for 800 x 384 by 384 x
1536 on one core, one interleaved run.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, helper

from cascade.core.rows import FloatArray, IntArray
from cascade_export import ExportOptions
from cascade_export.int8.products import looked_up, looks_up
from cascade_export.int8.rewriting import (
    MICROSOFT,
    Linear,
    Ranges,
    Rewriting,
    constants_of,
    int8_weight,
    rebuild,
    table_of,
)
from cascade_export.packed.chain import ChainRanges, chain_logits, chain_ranges
from cascade_export.packed.stages import TierGraphs
from cascade_export.texts import Sample

# Below these a scale per row costs more than int8 saves: a weight per token, two token types.
MIN_TABLE_WIDTH, MIN_TABLE_ROWS = 8, 5
SMOOTHING = 0.8
SMOOTHING_FLOOR = 0.5
NARROW = 96  # of so many channels of an input that is wider than the output, one stays fp32


def quantise_linears(
    model: onnx.ModelProto, ranges: Mapping[str, Ranges], *, smooth: bool = False, weight_bits: int = 8
) -> onnx.ModelProto:
    """A copy of an fp32 graph whose linear layers are int8.

    `ranges`: of each linear layer's input, by name. `smooth`: a few large channels of an input do not cost the others
    their precision. Each channel is divided by a scale and the weights are multiplied by it (SmoothQuant, Xiao et al.,
    ICML 2023, section 4), for one more pass over the input; where that is wider than the output, as in an FFN's second
    layer, the largest channels are multiplied in fp32 instead (as in LLM.int8(), Dettmers et al., NeurIPS 2022, section
    3.2, but always the same), for one more pass over the output. `weight_bits`: see `ExportOptions`.
    """
    graph, scales, large = Rewriting(model), dict[str, FloatArray](), dict[str, IntArray]()
    if smooth:
        large = _large(graph, ranges)
        scales = _smoothing(graph, ranges, but=large)
        ranges = dict(ranges)
        for name, own in large.items():
            ranges[name] = ranges[name].copy()
            ranges[name][:, own] = 0
    for number, linear in enumerate(graph.linears):
        name, origin = f"int8_{number}", graph.origin(linear)
        matrix, product, added = linear.weight, linear.output, list[NodeProto]()
        if origin in scales:
            matrix = matrix * scales[origin][:, None]
        if origin in large:
            matrix, product, added = _apart(graph, linear, name, large[origin])
        weight = [f"{name}_weight", f"{name}_weight_scale"]
        values, whole, nodes = graph.uint8(linear, f"{name}_input", ranges[origin], scales.get(origin))
        bits = 8 if looks_up(nodes) else weight_bits  # nothing is left to multiply when the graph runs
        graph.constants |= zip(weight, int8_weight(matrix, bits=bits), strict=True)
        inputs = [values, weight[0], f"{whole}_scale", weight[1], f"{whole}_zero"]
        if linear.bias is not None:
            graph.constants[f"{name}_bias"] = np.ascontiguousarray(linear.bias)
            inputs += ["", f"{name}_bias"]
        operator = "MatMulIntegerToFloat"
        made = helper.make_node(operator, inputs, [product], f"{operator}_{product}", domain=MICROSOFT)
        graph.put(linear, [*nodes, *looked_up(graph, nodes, made), *added])
    return graph.result()


def quantise_tables(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the graph whose embedding tables are int8 with one scale per row."""
    known = constants_of(model.graph)
    replaced: dict[int, list[NodeProto]] = {}
    constants: dict[str, np.ndarray] = {}
    for i, node in enumerate(model.graph.node):
        table = table_of(node, known)
        if table is None or table.shape[0] < MIN_TABLE_ROWS or table.shape[1] < MIN_TABLE_WIDTH:
            continue
        name = f"table_{i}"
        numbers, scale = int8_weight(table.T, bits=8)
        constants[name], constants[f"{name}_scale"] = np.ascontiguousarray(numbers.T), scale[:, None]
        ids = node.input[1]
        replaced[i] = [
            helper.make_node("Gather", [name, ids], [f"{name}_rows"], f"{name}_gather"),
            helper.make_node("Cast", [f"{name}_rows"], [f"{name}_float"], f"{name}_cast", to=onnx.TensorProto.FLOAT),
            helper.make_node("Gather", [f"{name}_scale", ids], [f"{name}_scales"], f"{name}_gather_scale"),
            helper.make_node("Mul", [f"{name}_float", f"{name}_scales"], [node.output[0]], f"{name}_mul"),
        ]
    return rebuild(model, replaced, constants)


def _large(graph: Rewriting, ranges: Mapping[str, Ranges]) -> dict[str, IntArray]:
    """Of each input that is wider than what is made of it, numbers of the channels with the largest values, rising.

    One in 96 of a MiniLM's FFN halves the error of its second layer: at one token of each text, the first or the last,
    a channel is four times as large as all others.
    """
    found = {}
    for name, layers in graph.by_origin.items():
        shapes = [linear.weight.shape for linear in layers]
        if (count := shapes[0][0] // NARROW) and all(outputs < inputs for inputs, outputs in shapes):
            found[name] = np.sort(np.argsort(-np.abs(ranges[name]).max(axis=0), kind="stable")[:count])
    return found


def _apart(graph: Rewriting, linear: Linear, name: str, channels: IntArray) -> tuple[FloatArray, str, list[NodeProto]]:
    """A layer's matrix without these channels, a name for its product, nodes that add the channels' own in fp32."""
    graph.constants |= {f"{name}_channels": channels, f"{name}_large_weight": linear.weight[channels]}
    matrix, most, large, rest = linear.weight.copy(), f"{name}_most", f"{name}_large", f"{name}_rest"
    matrix[channels] = 0
    return (
        matrix,
        most,
        [
            helper.make_node("Gather", [linear.input, f"{name}_channels"], [large], large, axis=-1),
            helper.make_node("MatMul", [large, f"{name}_large_weight"], [rest], rest),
            helper.make_node("Add", [most, rest], [linear.output], f"{name}_sum"),
        ],
    )


def _smoothing(graph: Rewriting, ranges: Mapping[str, Ranges], *, but: Container[str]) -> dict[str, FloatArray]:
    """A scale per channel for each input: its largest value ** 0.8 / its largest weight ** 0.2.

    The paper's exponent of 0.5 made MiniLM worse than none; from 0.7 to 0.9 it halved the difference. The floor keeps a
    channel that the texts hardly used from being cut off when other texts do.
    """
    scales = {}
    for name in (name for name in graph.by_origin if name not in but):
        largest = np.abs(ranges[name]).max(axis=0)
        floor = max(SMOOTHING_FLOOR * float(np.median(largest)), 1e-6)
        weight = np.max([np.abs(linear.weight).max(axis=1) for linear in graph.by_origin[name]], axis=0)
        scale = np.maximum(largest, floor) ** SMOOTHING / np.maximum(weight, 1e-6) ** (1 - SMOOTHING)
        scales[name] = (scale / np.exp(np.log(scale).mean())).astype(np.float32)
    return scales


RANGE_ROWS = 512  # min-max ranges no longer move after some hundred texts
ALONE_ROWS = 128  # to tell which stages int8 disturbs most


@dataclass(frozen=True, eq=False)
class Quantised:
    """A tier in its final form: the `graphs` that the engine runs, and what they say.

    `logits`: of the sample, shape `(units, exits, labels)`; `precisions`: of each exit, `int8`, `int7` or `fp32`;
    `smoothed`: whether int8 had to be smoothed (`quantise_linears`).
    """

    graphs: TierGraphs
    logits: FloatArray
    precisions: Sequence[str]
    smoothed: bool = False


def quantise_tier(graphs: TierGraphs, reference: FloatArray, sample: Sample, options: ExportOptions) -> Quantised:
    """int8 stages and tables, but for those that have to stay fp32 for full depth to agree with fp32.

    Where too few units agree, int8 is smoothed, then of 8 bits. Where that does not help, a padded graph stays fp32; of
    a packed tier the tables do, which costs no time, and then stages, those first that move the logits most when they
    alone are int8. How many is found by bisection. `reference`: the fp32 graphs' logits of the sample. Shape `(units,
    exits, labels)`.
    """
    count = len(graphs.stages)
    if not options.int8:
        return Quantised(graphs, reference, ("fp32",) * count)
    spans = chain_ranges(graphs, sample.spread(RANGE_ROWS)[0])

    def agrees(logits: FloatArray) -> bool:
        found = sample.compare(logits[:, -1], reference[:, -1], by_sentence=options.by_sentence)
        return found.meets(options.agreement)

    # Smoothed activations leave more of the error to weights: 8 bits then make two thirds of that of 7.
    for smooth, bits in dict.fromkeys([(False, options.weight_bits), (True, options.weight_bits), (True, 8)]):
        best, form = _int8(graphs, spans, smooth=smooth, weight_bits=bits), f"int{bits}"
        logits = chain_logits(best, sample.units)
        if agrees(logits):
            return Quantised(best, logits, (form,) * count, smooth)

    def mixed(chosen: Collection[int]) -> TierGraphs:
        """The parts of these numbers in int8."""
        pairs = enumerate(zip(graphs.parts, best.parts, strict=True))
        return graphs.of(small if number in chosen else fp32 for number, (fp32, small) in pairs)

    stages = [*range(len(graphs.parts))][-count:]
    part, numbers = sample.spread(ALONE_ROWS)
    moved = [np.square(chain_logits(mixed([i]), part)[:, -1] - reference[numbers, -1]).mean() for i in stages]
    order = [*(stages[i] for i in np.argsort(moved, kind="stable")), *range(stages[0])]  # the tables last
    found, logits = graphs, reference
    most, too_many = 0, len(order)
    while too_many - most > 1:
        middle = (most + too_many) // 2
        tried = mixed(order[:middle])
        answered = chain_logits(tried, sample.units)
        if agrees(answered):
            most, found, logits = middle, tried, answered
        else:
            too_many = middle
    precisions = [form if i in order[:most] else "fp32" for i in stages]
    return Quantised(found, logits, precisions, smoothed=form in precisions)


def _int8(graphs: TierGraphs, spans: ChainRanges, *, smooth: bool, weight_bits: int) -> TierGraphs:
    """fp32 graphs with all linear layers int8, and the tables that no such layer reads directly."""
    pairs = zip(graphs.parts, spans, strict=True)
    first, *others = (quantise_linears(graph, own, smooth=smooth, weight_bits=weight_bits) for graph, own in pairs)
    return graphs.of((quantise_tables(first), *others))

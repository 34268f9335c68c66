"""Stages whose encoder layers run in one call of our own kernels, where this CPU and the stage allow it.

ONNX Runtime runs a layer as some thirty operators, each of which reads and writes states of all tokens; `kernels/`
takes a few rows at a time through the whole layer. The same int8 sums, scales and rounding; floats differ in their last
places. What comes after the last layer, pooling and the head, stays a graph.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.runtime.backend import PASSING, Array, OnnxBackend
from cascade.runtime.graph import Graph, Node
from cascade.runtime.kernels import KINDS, PANELS, SATURATES, Layer, Product, Quantiser, Rows, kind, mean, run

_LAYER = (
    *("QuantizeLinear", *["MatMulIntegerToFloat"] * 3, "MatMul", "Add", "Softmax", "MatMul"),
    *("QuantizeLinear", "MatMulIntegerToFloat", "Add", "LayerNormalization"),
    *("QuantizeLinear", "MatMulIntegerToFloat", "Gelu", "QuantizeLinear", "MatMulIntegerToFloat"),
    *("Add", "LayerNormalization"),
)
"""What a layer computes, in order, but for what only moves numbers, and for factors that smooth what is quantised."""
_APART = (*_LAYER[:-2], "MatMul", "Add", *_LAYER[-2:])
"""The same, some inputs of FFN's second product multiplied in float32, apart from the others."""
_MOVES = frozenset({"Identity", "Reshape", "Gather", "Transpose", "ScatterND", "Slice"})
_SHAPES = frozenset({"Constant", "Shape", "Unsqueeze", "Concat"})
_INPUTS = frozenset(
    {"hidden", "head_gather", "query_head_gather", "head_scatter", "bias", "buckets", "active"}
    | {"words", "firsts", "gather", "weights", "counts"}
)
_PIECES, _LIMIT = 16, 5.0
BUCKETS = 32
"""Of distances: MPNet's, as many as `bucket_line` names."""


@dataclass(frozen=True, eq=False)
class Layers:
    """The layers of one stage, packed for a kind of kernels. Make them with `Layers.of`.

    Attributes:
        kind: of `KINDS`.
        width: of a state.
        made: the name, in the graph, of what they make for the rest: the last layer's states, or their means.
        pools: whether it is the mean of each row.
        inputs: what `run` reads, by name.
        buckets: what is added to the scores of each head by bucket of distance (MPNet), shape `(heads, buckets)`;
            `None`: nothing.
        narrow: whether only the first token of each row goes through the last layer's queries and what follows them.
    """

    kind: int
    width: int
    made: str
    pools: bool
    inputs: tuple[str, ...]
    buckets: npt.NDArray[np.float32] | None
    narrow: bool
    _layers: Sequence[Layer] = field(repr=False)
    _kept: Sequence[Array] = field(repr=False)
    """What the layers point to."""
    _memory: list[npt.NDArray[np.uint8]] = field(default_factory=list, repr=False)
    """Of calls that are over, for the next ones."""

    @classmethod
    def of(cls, graph: Graph, kind: int) -> Layers:
        """Those that a stage begins with. A `ValueError` or `LookupError` where these kernels cannot compute it."""
        _check(graph.inputs.keys() <= _INPUTS, "its inputs")
        smoothed = {node.outputs[0] for node in graph.nodes if node.kind == "Mul" and node.inputs[1] in graph.constants}
        smoothed &= {node.inputs[0] for node in graph.nodes if node.kind == "QuantizeLinear"}
        skipped = _MOVES | _SHAPES
        nodes = [node for node in graph.nodes if node.kind not in skipped and node.outputs[0] not in smoothed]
        buckets = None
        if "buckets" in graph.inputs:
            (table,) = (node.inputs[0] for node in graph.nodes if "buckets" in node.inputs)
            _check([node.kind for node in nodes[:2]] == ["Mul", "Add"], "its bias")
            buckets, nodes = graph.constants[table].copy(), nodes[2:]  # a view would keep the whole file
            heads = graph.inputs["head_gather"][1]
            _check(buckets.dtype == np.float32 and buckets.shape == (heads, BUCKETS), "its bias")
        kept: list[Array] = []
        layers = []
        kinds = [node.kind for node in nodes]
        while end := next((len(one) for one in (_LAYER, _APART) if tuple(kinds[: len(one)]) == one), 0):
            layers.append(_layer(nodes[:end], graph, kind, kept))
            made, nodes, kinds = nodes[end - 1].outputs[0], nodes[end:], kinds[end:]
        _check("Softmax" not in kinds, "its layers")
        narrow = "hidden_out" not in graph.outputs and "firsts" in graph.inputs
        _check(bool(layers) and (narrow or made == "hidden_out"), "its layers")
        own = {"firsts": narrow, "bucket_line": buckets is not None, "active": "active" in graph.inputs}
        inputs = ("hidden", "lengths", *(name for name, read in own.items() if read))
        means = _mean(graph, made)
        return cls(kind, layers[0].width, means or made, bool(means), inputs, buckets, narrow, layers, kept)

    def run(self, feeds: Mapping[str, Array], threads: int) -> npt.NDArray[np.float32]:
        """New states of the active tokens, or of each row's first. Shape `(actives, width)`.

        States whose shape is not what `lengths` say are a `ValueError`: the kernels would read past their end.
        """
        hidden = np.ascontiguousarray(feeds["hidden"], dtype=np.float32)
        lengths = np.ascontiguousarray(feeds["lengths"], dtype=np.int64)
        if hidden.shape != (lengths.sum(), self.width):
            raise ValueError(f"states must have shape {(int(lengths.sum()), self.width)}, got {hidden.shape}")
        active = feeds.get("active")
        if active is not None and len(active) == len(hidden):
            active = None
        line = None if self.buckets is None else np.ascontiguousarray(self.buckets[:, feeds["bucket_line"]])
        longest, last = int(lengths.max()), len(self._layers) - 1
        for number, layer in enumerate(self._layers):
            if self.narrow and number == last:
                active = feeds["firsts"]
            asking = None if active is None else np.ascontiguousarray(active, dtype=np.int64)
            new = np.empty((len(hidden) if asking is None else len(asking), self.width), dtype=np.float32)
            rows = Rows(
                hidden.ctypes.data,
                len(lengths),
                lengths.ctypes.data,
                None if asking is None else asking.ctypes.data,
                len(new),
                None if line is None else line.ctypes.data,
                longest,
                new.ctypes.data,
            )
            run(self.kind, layer, rows, threads, self._memory)
            if asking is None:
                hidden = new
            elif number < last:
                hidden = hidden.copy()
                hidden[asking] = new
        return new


def _mean(graph: Graph, states: str) -> str:
    """The name of the means of each row's states, where they are read and nothing else is; nothing where not."""
    at = next((i for i, node in enumerate(graph.nodes) if node.inputs[:1] == [states] and node.kind == "Gather"), 0)
    nodes = [node for node in graph.nodes[at:] if node.kind != "Constant"][:4]
    kinds, read = [node.kind for node in nodes], [name for node in nodes for name in node.inputs]
    fits = kinds in (["Gather", "MatMul", one, "Div"] for one in ("Gather", "Squeeze"))
    return nodes[3].outputs[0] if fits and {"gather", "weights", "counts"} <= set(read) else ""


def _check(fits: bool, what: str) -> None:
    if not fits:
        raise ValueError(f"{what} are not those of a layer that the kernels know")


def _layer(nodes: Sequence[Node], graph: Graph, kind: int, kept: list[Array]) -> Layer:
    """One layer. What it points to is added to `kept`."""
    first, query, key, value = nodes[:4]
    context, output, attended, norm, middle, expand, gelu, wide, contract, *apart, added, last = nodes[8:]
    _check(norm.outputs[0] in added.inputs and output.outputs[0] in attended.inputs, "its residuals")
    constants = graph.constants

    def room(count: int, dtype: npt.DTypeLike) -> Any:
        """Numbers that begin where a line of the caches does, and stay."""
        size = count * np.dtype(dtype).itemsize
        raw = np.empty(size + 64, dtype=np.uint8)
        start = -raw.ctypes.data % 64
        kept.append(raw[start : start + size].view(dtype))
        return kept[-1]

    def pointer(array: Any, count: int) -> int:
        _check(array.size == count and array.dtype.kind in "fi", "its sizes")
        own = room(count, np.float32)
        own[:] = array.reshape(-1)
        return int(own.ctypes.data)

    width, heads = constants[norm.inputs[1]].size, graph.inputs["head_gather"][1]
    inner, large, rest = constants[contract.inputs[1]].shape[0], np.empty(0, np.int64), 0
    if apart:
        (numbers,) = (made.inputs[1] for made in graph.nodes if apart[0].inputs[0] in made.outputs)
        large = constants[numbers]
        _check(large.size % 16 == 0, "its channels apart")
        rest = pointer(constants[apart[0].inputs[1]], large.size * width)
    order = _apart_last(inner, large)

    def quantiser(node: Node, size: int) -> Quantiser:
        source, scale, zero = node.inputs[0], *(constants[name] for name in node.inputs[1:])
        _check(scale.shape == zero.shape == (), "its scales")
        factors = [constants[made.inputs[1]] for made in graph.nodes if made.kind == "Mul" and source in made.outputs]
        if factors and node is wide:
            factors = [factors[0][order]]
        return Quantiser(1 / scale, zero, pointer(factors[0], size) if factors else None)

    def product(node: Node, depth: int, width: int) -> Product:
        _, *names = node.inputs
        weight, scale, own, zero, _, bias = (constants[name] if name else np.empty(0) for name in names)
        _check(weight.dtype == np.int8 and weight.shape == (depth, width) and not names[4], "its weights")
        panel = PANELS[kind]
        _check(width % panel == 0 and depth % 4 == 0, "its sizes")
        _check(KINDS[kind] not in SATURATES or np.abs(weight.astype(np.int16)).max() <= 64, "its weights of 8 bits")
        sums = weight.sum(axis=0, dtype=np.int32)
        factor = np.broadcast_to(scale * own, width).astype(np.float32)
        moved = bias - factor * (int(zero) * sums)
        if node is expand and apart:
            weight, factor, moved = weight[:, order], factor[order], moved[order]
        elif node is contract and apart:
            weight = weight[order]
        panels, fours = room(depth * width, np.int8), weight.reshape(depth // 4, 4, width // panel, panel)
        for one in range(4):
            panels.reshape(width // panel, depth // 4, panel, 4)[..., one] = fours[:, one].transpose(1, 0, 2)
        pointers = pointer(factor, width), pointer(moved, width)
        return Product(depth, width, panels.ctypes.data, *pointers)

    def normed(node: Node) -> Any:
        return (ctypes.c_void_p * 2)(*(pointer(constants[name], width) for name in node.inputs[1:]))

    _check(heads > 0 and width % (16 * heads) == 0, "its heads")
    form = gelu.attribute("approximate", b"none").decode()
    return Layer(
        width,
        heads,
        np.frombuffer(norm.attribute("epsilon", b""), "<f4")[0],
        *(quantiser(node, width) for node in (first, context, middle)),
        quantiser(wide, inner),
        *(product(node, width, width) for node in (query, key, value, output)),
        product(expand, width, inner),
        product(contract, inner, width),
        normed(norm),
        normed(last),
        pointer(_activation(form), 5 * _PIECES),
        large.size,
        rest,
    )


def _apart_last(count: int, apart: Array) -> Array:
    """Numbers of all channels, these last. A `ValueError` or `IndexError` where they are none, or twice the same."""
    together = np.ones(count, dtype=np.bool_)
    together[apart] = False
    order = np.append(np.flatnonzero(together), apart)
    _check(order.size == count, "its channels apart")
    return order


@functools.cache
def _activation(form: str) -> npt.NDArray[np.float32]:
    """GELU over x, as the kernels read it: coefficients of degree 0 to 4 of each piece; error 2e-6."""
    inside = (np.cos((np.arange(32) + 0.5) * np.pi / 32) + 1) / 2  # Chebyshev's nodes
    x = (np.arange(_PIECES) + inside[:, None]) * (2 * _LIMIT / _PIECES) - _LIMIT
    _check(form in ("none", "tanh"), "its activation")
    inner = np.vectorize(math.erf)(x / math.sqrt(2))
    if form == "tanh":
        inner = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    made: Any = np.linalg.lstsq(np.vander(inside, 5, increasing=True), (1 + inner) / 2, rcond=None)[0]
    return made.astype(np.float32)  # type: ignore[no-any-return]


@dataclass(frozen=True, eq=False)
class StageBackend(OnnxBackend):
    """A stage's graph, whose layers our kernels run where they can; then `inputs` are what these and the rest read."""

    _layers: list[Layers] = field(init=False, repr=False, default_factory=list)
    _rest: list[str] = field(init=False, repr=False, default_factory=list)
    """What the rest reads beside the layers' states."""

    _kernels: int = field(init=False, repr=False)
    """Chosen once: sessions that are made later are of the same graph."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_kernels", kind())
        super().__post_init__()
        for layers in self._layers:
            rest = [name for name in self.inputs if name != layers.made]
            self._rest[:] = rest
            for backend in (self, self.serial):
                object.__setattr__(backend, "inputs", tuple(dict.fromkeys((*layers.inputs, *rest))))
                object.__setattr__(backend, "outputs", ("logits",) if layers.narrow else ("hidden_out", "logits"))

    @property
    def kind(self) -> str:
        """Which kernels run its layers: one of `KINDS`."""
        return KINDS[self._layers[0].kind if self._layers else 0]

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """As `OnnxBackend.run`; without `logits` where they are not read."""
        session = self._session(1)
        if not self._layers:
            return super().run(feeds)
        (layers,) = self._layers
        try:
            states = layers.run(feeds, self.threads)
        except ValueError as error:
            raise self.refused(error) from None
        if outputs == PASSING:
            return {"hidden_out": states}
        given = mean(states, feeds["lengths"]) if layers.pools else states
        own = {layers.made: given, **{name: feeds[name] for name in self._rest}}
        made = self._made_of(session, own, ("logits",))
        return made if layers.narrow else {"hidden_out": states, **made}

    def close(self) -> None:
        """As `OnnxBackend.close`."""
        super().close()
        self._layers.clear()

    def _content(self) -> bytes | str:
        """The verified bytes; of those whose layers the kernels run, what comes after these."""
        content = super()._content()
        if not self._kernels or isinstance(content, str):
            return content
        try:
            graph = Graph.of(content)
            layers = Layers.of(graph, self._kernels)
            rest = graph.after(layers.made, layers.width, ["logits"])
        except (ValueError, LookupError, TypeError):
            return content  # ONNX Runtime says what is wrong with it, if anything is
        self._layers[:] = [layers]
        return rest

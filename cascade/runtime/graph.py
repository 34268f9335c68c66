"""What an ONNX file holds, read and cut without the `onnx` package, which serving does not install.

The fields' numbers are those of onnx/onnx.proto. Of bytes that are no such file, and of a graph that is none, a
`ValueError`, `LookupError` or `TypeError` comes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

_GRAPH, _NODE, _NAME, _INITIALIZER, _INPUT, _OUTPUT = 7, 1, 2, 5, 11, 12
_TYPES: Mapping[int, type[np.generic]] = {1: np.float32, 2: np.uint8, 3: np.int8, 7: np.int64}


def fields(message: memoryview) -> Iterator[tuple[int, Any, memoryview]]:
    """Each field's number and value, a number or bytes (which may be a message), and the bytes of both."""
    at, end = 0, len(message)
    while at < end:
        begin, tag = at, message[at]
        at += 1
        if tag > 127:
            tag, at = _number(message, begin)
        kind = tag & 7
        value: Any
        if kind == 0:
            value, at = _number(message, at)
        else:
            size, at = _number(message, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
            value, at = message[at : at + size], at + size
        if at > end:
            raise ValueError("a field is longer than its message")
        yield tag >> 3, value, message[begin:at]


def _number(message: memoryview, at: int) -> tuple[int, int]:
    found = shift = 0
    while True:
        byte = message[at]
        found, shift, at = found | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return found, at


def grouped(message: memoryview) -> Mapping[int, list[Any]]:
    """The values of each field, in order, by its number."""
    found = defaultdict(list)
    for number, value, _ in fields(message):
        found[number].append(value)
    return found


def _text(message: memoryview) -> str:
    return str(message, "utf-8")


def _written(number: int, value: int | bytes) -> bytes:
    """A field: a number, or bytes."""

    def digits(rest: int) -> bytes:
        made = bytearray()
        while rest > 127:
            made.append(rest & 127 | 128)
            rest >>= 7
        return bytes([*made, rest])

    if isinstance(value, int):
        return digits(number << 3) + digits(value)
    return digits(number << 3 | 2) + digits(len(value)) + value


@dataclass(frozen=True)
class Node:
    """An operator: its type, and the names of what it takes and makes. `written`: its bytes in the file."""

    kind: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    written: memoryview = field(repr=False)
    _attributes: Sequence[memoryview] = field(repr=False)

    @classmethod
    def of(cls, message: memoryview, written: memoryview) -> Node:
        """Read a NodeProto."""
        parts = grouped(message)
        (kind,) = parts[4]
        return cls(_text(kind), list(map(_text, parts[1])), list(map(_text, parts[2])), written, parts[5])

    def attribute(self, name: str, default: bytes) -> bytes:
        """The bytes of an attribute: of a float four, of a text its own."""
        for parts in map(grouped, self._attributes):
            if _text(parts[1][0]) == name:
                return b"".join(map(bytes, (*parts[2], *parts[4])))
        return default


@dataclass(frozen=True)
class Graph:
    """The nodes of a file in order, its constants, and the sizes of its inputs' axes (0: free), by name.

    `content`: all of the file; constants are views of it.
    """

    nodes: Sequence[Node]
    constants: Mapping[str, npt.NDArray[Any]]
    inputs: Mapping[str, tuple[int, ...]]
    outputs: Sequence[str]
    content: memoryview = field(repr=False)

    @classmethod
    def of(cls, content: bytes) -> Graph:
        """Read a ModelProto."""
        model = memoryview(content)
        (graph,) = grouped(model)[_GRAPH]
        nodes = [Node.of(value, raw) for number, value, raw in fields(graph) if number == _NODE]
        parts = grouped(graph)
        constants = dict(map(_constant, parts[_INITIALIZER]))
        for node in nodes:
            if node.kind == "Identity" and node.inputs[0] in constants:  # of equal constants the exporter keeps one
                constants[node.outputs[0]] = constants[node.inputs[0]]
        outputs = [_text(grouped(value)[1][0]) for value in parts[_OUTPUT]]
        return cls(nodes, constants, dict(map(_input, parts[_INPUT])), outputs, model)

    def after(self, name: str, width: int, outputs: Iterable[str]) -> bytes:
        """A file of what makes these outputs of the states of this name, an input of shape `(any, width)`."""
        wanted, kept = set(outputs), []
        for node in reversed(self.nodes):
            if wanted.intersection(node.outputs) and name not in node.outputs:
                wanted.update(node.inputs)
                kept.append(bytes(node.written))
        if "hidden" in wanted:
            raise ValueError("what follows must read the last states alone")
        axes = _written(1, _written(2, b"states")) + _written(1, _written(1, width))
        states = _written(1, name.encode()) + _written(2, _written(1, _written(1, 1) + _written(2, axes)))
        made = [*reversed(kept), _written(_INPUT, states)]
        rest = []
        for number, value, raw in fields(self.content):
            if number != _GRAPH:
                rest.append(bytes(raw))
                continue
            for part, own, whole in fields(value):
                named = {_INITIALIZER: 8, _INPUT: 1, _OUTPUT: 1}.get(part)
                if part == _NAME or (named and _text(grouped(own)[named][0]) in wanted):
                    made.append(bytes(whole))
        return b"".join([*rest, _written(_GRAPH, b"".join(made))])


def _input(value: memoryview) -> tuple[str, tuple[int, ...]]:
    """Its name and the sizes of its axes."""
    parts = grouped(value)
    for step in (2, 1, 2):  # type, tensor, shape
        value = grouped(value)[step][0]
    return _text(parts[1][0]), tuple(next(iter(grouped(axis)[1]), 0) for axis in grouped(value)[1])


def _constant(tensor: memoryview) -> tuple[str, npt.NDArray[Any]]:
    """Its name and values; those that are not written as raw bytes are empty."""
    parts = grouped(tensor)
    shape: list[int] = []
    for size in parts[1]:
        shape.extend([size] if isinstance(size, int) else _packed(size))
    raw, kind = parts[9], _TYPES.get(parts[2][0])
    return _text(parts[8][0]), np.frombuffer(raw[0], kind).reshape(shape) if raw and kind else np.empty(0)


def _packed(numbers: memoryview) -> Iterator[int]:
    at = 0
    while at < len(numbers):
        found, at = _number(numbers, at)
        yield found

"""What an ONNX file holds, read and cut without the `onnx` package, which serving does not install.

The fields' numbers are those of onnx/onnx.proto.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Value: TypeAlias = "int | memoryview"
"""Of a field: a number, or bytes (which may be a message)."""

_GRAPH, _NODE, _INITIALIZER, _INPUT, _OUTPUT = 7, 1, 5, 11, 12
_TYPES: Mapping[int, type[np.generic]] = {1: np.float32, 2: np.uint8, 3: np.int8, 7: np.int64}


def fields(message: memoryview) -> Iterator[tuple[int, Value, memoryview]]:
    """Each field's number and value, and the bytes of both. A `ValueError` or `IndexError` where it is no message."""
    at = 0
    while at < len(message):
        begin = at
        tag, at = _number(message, at)
        kind = tag & 7
        value: Value
        if kind == 0:
            value, at = _number(message, at)
        else:
            size, at = _number(message, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
            value, at = message[at : at + size], at + size
        if at > len(message):
            raise ValueError("a field is longer than its message")
        yield tag >> 3, value, message[begin:at]


def _number(message: memoryview, at: int) -> tuple[int, int]:
    found = shift = 0
    while True:
        byte = message[at]
        found, shift, at = found | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return found, at


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


def _texts(message: memoryview, *numbers: int) -> list[str]:
    return [bytes(value).decode() for number, value, _ in fields(message) if number in numbers]


def _inside(message: memoryview, *path: int) -> list[Any]:
    """What is under these numbers, message in message."""
    found: list[Any] = [message]
    for step in path:
        found = [value for one in found for number, value, _ in fields(one) if number == step]
    return found


@dataclass(frozen=True)
class Node:
    """An operator: its type, and the names of what it takes and makes.

    Attributes:
        attributes: bytes by name, as written: of a float four, of a text its own.
        written: its bytes in the file.
    """

    kind: str
    inputs: list[str]
    outputs: list[str]
    attributes: Mapping[str, bytes]
    written: memoryview = field(repr=False)

    @classmethod
    def of(cls, message: memoryview, written: memoryview) -> Node:
        """Read a NodeProto."""
        named = {}
        for one in _inside(message, 5):
            (name,) = _texts(one, 1)
            named[name] = b"".join(bytes(value) for number, value, _ in fields(one) if number in (2, 4))
        (kind,) = _texts(message, 4)
        return cls(kind, _texts(message, 1), _texts(message, 2), named, written)


@dataclass(frozen=True)
class Graph:
    """The nodes of a file in order, its constants, and the sizes of its inputs' axes (0: free), by name."""

    nodes: list[Node]
    constants: Mapping[str, npt.NDArray[Any]]
    inputs: Mapping[str, tuple[int, ...]]
    outputs: list[str]
    content: memoryview = field(repr=False)

    @classmethod
    def of(cls, content: bytes) -> Graph:
        """Read a ModelProto. A `ValueError`, `LookupError` or `TypeError` where it is none."""
        model = memoryview(content)
        (graph,) = _inside(model, _GRAPH)
        nodes = [Node.of(value, raw) for number, value, raw in fields(graph) if number == _NODE]  # type: ignore[arg-type]
        inputs = {}
        for value in _inside(graph, _INPUT):
            (name,) = _texts(value, 1)
            axes = _inside(value, 2, 1, 2, 1)
            inputs[name] = tuple(next(iter(_inside(axis, 1)), 0) for axis in axes)
        constants = dict(map(_constant, _inside(graph, _INITIALIZER)))
        for node in nodes:
            if node.kind == "Identity" and node.inputs[0] in constants:  # of equal constants the exporter keeps one
                constants[node.outputs[0]] = constants[node.inputs[0]]
        return cls(
            nodes, constants, inputs, [name for one in _inside(graph, _OUTPUT) for name in _texts(one, 1)], model
        )

    def after(self, name: str, width: int, outputs: Iterable[str]) -> bytes:
        """A file of what makes these outputs of the states of this name, shape `(any, width)`, which become an input.

        A `ValueError` where they need `hidden` beside that.
        """
        wanted, kept = set(outputs), []
        for node in reversed(self.nodes):
            if wanted.intersection(node.outputs) and name not in node.outputs:
                wanted.update(node.inputs)
                kept.append(node.written)
        if "hidden" in wanted:
            raise ValueError("more than one layer's states are read")
        axes = _written(1, _written(2, b"states")) + _written(1, _written(1, width))
        states = _written(1, name.encode()) + _written(2, _written(1, _written(1, 1) + _written(2, axes)))
        made = [*map(bytes, reversed(kept)), _written(_INPUT, states)]
        (graph,) = _inside(self.content, _GRAPH)
        for number, value, raw in fields(graph):
            if number == 2 or (
                number in (_INITIALIZER, _INPUT, _OUTPUT)
                and _texts(value, 8 if number == _INITIALIZER else 1)[0] in wanted  # type: ignore[arg-type]
            ):
                made.append(bytes(raw))
        rest = [bytes(raw) for number, _, raw in fields(self.content) if number != _GRAPH]
        return b"".join([*rest, _written(_GRAPH, b"".join(made))])


def _constant(tensor: memoryview) -> tuple[str, npt.NDArray[Any]]:
    """Its name and values; those that are not written as raw bytes are empty."""
    (name,) = _texts(tensor, 8)
    shape: list[int] = []
    for size in _inside(tensor, 1):
        shape.extend([size] if isinstance(size, int) else _packed(size))
    raw, kind = _inside(tensor, 9), _TYPES.get(_inside(tensor, 2)[0])
    if not raw or kind is None:
        return name, np.empty(0)
    return name, np.frombuffer(raw[0], kind).reshape(shape)


def _packed(numbers: memoryview) -> Iterator[int]:
    at = 0
    while at < len(numbers):
        found, at = _number(numbers, at)
        yield found

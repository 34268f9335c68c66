"""Checks of option values, and of graphs, that several rooms share. Messages name rule, value and remedy."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator, Sequence
from numbers import Real
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from cascade.exceptions import BundleError, OptionError


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value read from JSON is a number that a float can hold; true and false are none."""
    return isinstance(value, float) or (is_whole(value) and abs(value) <= sys.float_info.max)


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value read from JSON is a whole number; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_real(value: Any) -> bool:
    """Whether a value is a real number, numpy's among them; true and false are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_inside(name: str, value: Any, remedy: str) -> float:
    """A number strictly between 0 and 1; an `OptionError` otherwise."""
    if not is_real(value) or not 0 < value < 1:
        raise OptionError(f"{name} must be above 0 and below 1, got {value!r}; {remedy}")
    return float(value)


def check_whole(name: str, value: object, remedy: str, *, least: int = 1) -> int:
    """A whole number of at least `least`; an `OptionError` otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise OptionError(f"{name} must be a whole number of at least {least}, got {value!r}; {remedy}")
    return int(value)


def check_share(name: str, value: Any, remedy: str) -> float:
    """A number in [0, 1]; an `OptionError` otherwise."""
    if not is_real(value) or not 0 <= value <= 1:
        raise OptionError(f"{name} must be in [0, 1], got {value!r}; {remedy}")
    return float(value)


def check_mask(
    mask: object, rows: int, kind: str, policy: object, meaning: str
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """One bool per row, as policies return them; an `OptionError` for another type or shape.

    Policies are asked at every exit, so their repr is made only for the message.
    """
    array = np.asarray(mask)
    if array.shape != (rows,) or array.dtype != np.bool_:
        raise OptionError(
            f"the {kind} {policy!r} must return bools of shape ({rows},), got {array.dtype} of shape {array.shape}; "
            f"return a mask with True for each row {meaning}"
        )
    return array


def check_temperature(temperature: float) -> None:
    """A number that logits can be divided by; an `OptionError` otherwise."""
    if not 0 < temperature < float("inf"):
        raise OptionError(f"temperature must be above 0 and finite, got {temperature}; 1 changes nothing")


def check_names(
    who: str, inputs: Sequence[str], outputs: Sequence[str], *, known: Collection[str], needed: Sequence[str]
) -> None:
    """A graph takes only what its caller feeds and gives all that it reads; a `BundleError` otherwise."""
    if set(inputs) - set(known) or set(needed) - set(outputs):
        raise BundleError(
            f"{who} must have inputs among {sorted(known)} and the outputs {list(needed)}, got "
            f"{list(inputs)} and {list(outputs)}; export the bundle again"
        )


def check_logits(logits: npt.NDArray[np.float32], shape: tuple[int, ...], who: str) -> npt.NDArray[np.float32]:
    """What a graph returned, if it has the shape that its caller needs; a `BundleError` otherwise."""
    if logits.shape != shape:
        raise BundleError(
            f"{who} must return logits of shape {shape}, got {logits.shape}; "
            "its labels differ from the manifest's, export the bundle again"
        )
    return logits


# The key of `TensorProto.external_data` that names a file, in any spelling of its tag and length that protobuf reads.
_EXTERNAL = re.compile(rb"(?:\x0a|\x8a\x80{0,8}\x00)(?:\x08|\x88\x80{0,8}\x00)location")
_RAW_DATA = (0x3A, 0x2A, 0x4A)  # tags of `ModelProto.graph`, `GraphProto.initializer`, `TensorProto.raw_data`
_LARGE = 4096  # bytes


def names_another_file(graph: bytes) -> bool:
    """Whether an ONNX graph has weights in another file, which no hash covers.

    Given bytes, ONNX Runtime looks for such files in the working directory. An input of a node that is called
    `location` looks like one too. What lies in large raw data of initializers is no key and is not searched.
    """
    start = 0
    for begin, end in (*_raw_data(graph, 0, len(graph), _RAW_DATA), (len(graph), len(graph))):
        if graph.find(b"location", start, begin) >= 0 and _EXTERNAL.search(graph, start, begin):
            return True
        start = end
    return False


def _raw_data(content: bytes, at: int, stop: int, tags: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Where large fields begin and end to which these tags lead, message in message.

    A message is left at the first field that serializers of ONNX seldom write: what follows is then searched.
    """
    while at < stop:
        tag, size, shift = content[at], 0, 0
        at += 1
        while at < stop and content[at] >= 128 and shift < 28:
            size, shift, at = size | (content[at] & 127) << shift, shift + 7, at + 1
        if at == stop or content[at] >= 128 or not 8 <= tag < 128 or tag & 7 not in (0, 2):
            return
        size, at = size | content[at] << shift, at + 1
        if tag & 7 == 0:  # a number, read already
            continue
        if at + size > stop:
            return
        if tag == tags[0] and tags[1:]:
            yield from _raw_data(content, at, at + size, tags[1:])
        elif tag == tags[0] and size >= _LARGE:
            yield at, at + size
        at += size

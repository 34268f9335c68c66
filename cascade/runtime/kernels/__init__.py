"""Encoder layers in int8 by kernels of our own: what was compiled, and how it is called.

`layer.cpp` and the files that it includes are built as `_layer`, where the package is installed with GCC on x86-64.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cascade.exceptions import OptionError
from cascade.runtime.host import cpu_info

KINDS = ("onnxruntime", "avx2", "avx512", "avx_vnni", "avx512_vnni")
"""By the number that `kernels/layer.cpp` gives them; 0: none of ours."""
PANELS = (0, 16, 32, 16, 32)
"""Columns of a panel of weights, of each."""
SATURATES = ("avx2", "avx512")
"""Those whose weights have 7 bits."""

_LOGGER = logging.getLogger(__name__)

VARIABLE = "CASCADE_KERNELS"
"""Names one of `KINDS` that is used at most, to compare or to be safe."""


class Product(ctypes.Structure):
    """A matrix in int8, as `layer.cpp` has it; so are those below."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("depth", "width")),
        *((name, ctypes.c_void_p) for name in ("weight", "scale", "bias")),
    )


class Quantiser(ctypes.Structure):
    """How floats become uint8."""

    _fields_ = (("inverse", ctypes.c_float), ("zero", ctypes.c_float), ("factors", ctypes.c_void_p))


class Layer(ctypes.Structure):
    """One layer: what it points to has to be kept."""

    _fields_ = (
        ("width", ctypes.c_int64),
        ("heads", ctypes.c_int64),
        ("epsilon", ctypes.c_float),
        *((name, Quantiser) for name in ("input", "context", "middle", "wide")),
        *((name, Product) for name in ("query", "key", "value", "output", "expand", "contract")),
        *((name, ctypes.c_void_p * 2) for name in ("attention_norm", "output_norm")),
        ("activation", ctypes.c_void_p),
        ("large", ctypes.c_int64),
        ("large_weight", ctypes.c_void_p),
    )


class Rows(ctypes.Structure):
    """Rows of tokens, and where their new states go."""

    _fields_ = (
        ("hidden", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("lengths", ctypes.c_void_p),
        ("active", ctypes.c_void_p),
        ("actives", ctypes.c_int64),
        ("line", ctypes.c_void_p),
        ("longest", ctypes.c_int64),
        ("out", ctypes.c_void_p),
    )


_INTERFACE = 3000000 + 1000 * ctypes.sizeof(Layer) + ctypes.sizeof(Rows)
"""As `cascade_interface` in layer.cpp."""


@functools.cache
def library() -> ctypes.CDLL | None:
    """The kernels, if they were built with the package."""
    for file in sorted(Path(__file__).parent.glob("_layer*.so")):
        try:
            found = ctypes.CDLL(str(file))
        except OSError:  # built for another system
            continue
        if getattr(found, "cascade_interface", int)() != _INTERFACE:
            _LOGGER.warning("%s was built from other sources and is not used; install cascade again", file)
        elif found.cascade_can(1):
            found.cascade_scratch.restype = ctypes.c_int64
            found.cascade_scratch.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
            found.cascade_layer.argtypes = (ctypes.c_int, *found.cascade_scratch.argtypes, ctypes.c_void_p)
            found.cascade_layer.restype = None
            found.cascade_mean.argtypes = (*[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 2, ctypes.c_void_p)
            found.cascade_mean.restype = None
            return found
    return None


def kind() -> int:
    """The number of those of `KINDS` that stages are run by here: the last that this CPU can, or that is named at most.

    A CPU with AMX is left to ONNX Runtime, whose int8 products take an eighth of the cycles there, unless one is named.

    Raises:
        OptionError: `CASCADE_KERNELS` names something else.
    """
    found, named = library(), os.environ.get(VARIABLE)
    if named not in (None, *KINDS):
        raise OptionError(f"{VARIABLE} must be one of {', '.join(KINDS)}, got {named!r}; unset it to choose by the CPU")
    if found is None or (named is None and "amx_int8" in cpu_info("flags").split()):
        return 0
    most = KINDS.index(named or KINDS[-1])
    return max((number for number in range(1, most + 1) if found.cascade_can(number)), default=0)


def in_words() -> str:
    """What runs int8 layers here, and why."""
    if library() is None:
        return "by ONNX Runtime: no kernels for this CPU; on x86-64 install cascade again where GCC is"
    used = kind()
    return (
        f"by kernels for {KINDS[used]}, where they know the layer"
        if used
        else f"by ONNX Runtime, for AMX or by {VARIABLE}"
    )


def run(kind: int, layer: Layer, rows: Rows, threads: int, memory: list[npt.NDArray[np.uint8]]) -> None:
    """Run a layer on rows by so many threads, which divide the rows among themselves.

    `memory`: of calls that are over, taken by this one and given back. The kernels have to be there (`kind`).
    """
    found = library()
    both = ctypes.byref(layer), ctypes.byref(rows)
    size = found.cascade_scratch(*both, threads)  # type: ignore[union-attr]  # as the docstring says
    try:
        own = memory.pop()
    except IndexError:
        own = np.empty(0, dtype=np.uint8)
    if len(own) < size:
        own = np.empty(size, dtype=np.uint8)
    found.cascade_layer(kind, *both, threads, own.ctypes.data)  # type: ignore[union-attr]
    memory.append(own)


def mean(states: npt.NDArray[np.float32], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Of each row's states. Shapes `(tokens, width)`, `(rows,)` -> `(rows, width)`; the kernels have to be there."""
    found, (rows, width) = library(), (len(lengths), states.shape[1])
    own, made = np.ascontiguousarray(lengths, dtype=np.int64), np.empty((rows, width), dtype=np.float32)
    found.cascade_mean(states.ctypes.data, own.ctypes.data, rows, width, made.ctypes.data)  # type: ignore[union-attr]
    return made

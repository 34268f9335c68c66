"""The host's own ceiling: how fast ONNX Runtime multiplies matrices here, in fp32 and int8, and nothing else.

A stage cannot be faster than its products alone; what it takes beyond them is transposes, activations, norms, gathers
and waiting.
 Needs the `bench`
extra.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnxruntime

from cascade.exceptions import MissingExtraError
from cascade.runtime.backend import Array

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError as error:
    raise MissingExtraError(
        'measuring the host needs the bench extra, but onnx is missing; pip install "cascade-encoder[bench]"'
    ) from error

__all__ = ["LARGE", "Product", "runner", "session_options"]

OPSET, IR_VERSION = 17, 9


@dataclass(frozen=True)
class Product:
    """Matrices of shape `(batch, m, k)` times `(k, n)`, or times `(batch, k, n)` where there are several.

    Attributes:
        precision: `int8` (`MatMulIntegerToFloat` with constant weights) or `fp32` (`MatMul`).
        batch, m, k, n: sizes.
    """

    precision: str
    batch: int
    m: int
    k: int
    n: int

    @property
    def operations(self) -> int:
        """Multiplications and additions."""
        return 2 * self.batch * self.m * self.k * self.n

    @property
    def name(self) -> str:
        """For readers and programs."""
        several = f"{self.batch}x" if self.batch > 1 else ""
        return f"{self.precision} {several}{self.m}x{self.k}x{self.n}"


LARGE: Mapping[str, Product] = {kind: Product(kind, 1, 2048, 1024, 1024) for kind in ("fp32", "int8")}
"""Large enough to keep all cores busy, small enough for their caches."""


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """As `cascade.runtime.backend` sets them: a pool of this many threads that does not spin."""
    made = onnxruntime.SessionOptions()
    made.intra_op_num_threads = threads
    made.log_severity_level = 3
    made.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return made


def runner(product: Product, *, threads: int) -> Callable[[], object]:
    """A function that does one product, on random numbers.

    Args:
        product: which.
        threads: of its session.
    """
    rng = np.random.default_rng(0)
    graph, feeds = _int8(product, rng) if product.precision == "int8" else _fp32(product, rng)
    domains = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=IR_VERSION)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), session_options(threads), providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, feeds)


def _fp32(product: Product, rng: np.random.Generator) -> tuple[onnx.GraphProto, dict[str, Array]]:
    left = rng.normal(size=(product.batch, product.m, product.k)).astype(np.float32)
    right = rng.normal(size=(product.batch, product.k, product.n)).astype(np.float32)
    node = helper.make_node("MatMul", ["left", "right"], ["made"])
    if product.batch == 1:  # weights are constants, and packed beforehand
        return _graph(node, {"left": left[0]}, {"right": right[0]}), {"left": left[0]}
    return _graph(node, {"left": left, "right": right}, {}), {"left": left, "right": right}


def _int8(product: Product, rng: np.random.Generator) -> tuple[onnx.GraphProto, dict[str, Array]]:
    left = rng.integers(0, 256, (product.batch * product.m, product.k)).astype(np.uint8)
    constants: dict[str, Array] = {
        "right": rng.integers(-127, 128, (product.k, product.n)).astype(np.int8),
        "scale": np.array(0.01, dtype=np.float32),
        "scales": np.full(product.n, 0.01, dtype=np.float32),
        "zero": np.array(128, dtype=np.uint8),
        "bias": np.zeros(product.n, dtype=np.float32),
    }
    inputs = ["left", "right", "scale", "scales", "zero", "", "bias"]
    node = helper.make_node("MatMulIntegerToFloat", inputs, ["made"], domain="com.microsoft")
    return _graph(node, {"left": left}, constants), {"left": left}


def _graph(node: onnx.NodeProto, inputs: Mapping[str, Array], constants: Mapping[str, Array]) -> onnx.GraphProto:
    return helper.make_graph(
        [node],
        "product",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in inputs.items()
        ],
        [helper.make_tensor_value_info("made", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )

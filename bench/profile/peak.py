"""The host's peak: how fast ONNX Runtime multiplies matrices here, in fp32 and int8, and nothing else.

A stage cannot be faster than its products at this rate; what it takes beyond that is smaller shapes, transposes,
activations, norms, gathers and waiting. Needs the `bench` extra.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime

from cascade.exceptions import MissingExtraError

try:
    from onnx import TensorProto, helper, numpy_helper
except ImportError as error:
    raise MissingExtraError(
        'measuring the host needs the bench extra, but onnx is missing; pip install "cascade-encoder[bench]"'
    ) from error


OPSET, IR_VERSION = 17, 9


@dataclass(frozen=True)
class Product:
    """A matrix of shape `(m, k)` times constant weights of shape `(k, n)`.

    `precision`: `int8` (`MatMulIntegerToFloat`) or `fp32` (`MatMul`).
    """

    precision: str
    m: int
    k: int
    n: int

    @property
    def operations(self) -> int:
        """Multiplications and additions."""
        return 2 * self.m * self.k * self.n

    @property
    def name(self) -> str:
        """For readers and programs."""
        return f"{self.precision} {self.m}x{self.k}x{self.n}"


LARGE: Mapping[str, Product] = {kind: Product(kind, 2048, 1024, 1024) for kind in ("fp32", "int8")}
"""Large enough to keep all cores busy, small enough for their caches."""


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """As `cascade.runtime.backend` sets them: a pool of this many threads that does not spin."""
    made = onnxruntime.SessionOptions()
    made.intra_op_num_threads = threads
    made.log_severity_level = 3
    made.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return made


def runner(product: Product, *, threads: int) -> Callable[[], object]:
    """A function that does one product, on random numbers. `threads`: of its session."""
    rng = np.random.default_rng(0)
    if product.precision == "fp32":
        left: Any = rng.normal(size=(product.m, product.k)).astype(np.float32)
        constants: dict[str, Any] = {"right": rng.normal(size=(product.k, product.n)).astype(np.float32)}
        node = helper.make_node("MatMul", ["left", "right"], ["made"])
    else:
        left = rng.integers(0, 256, (product.m, product.k)).astype(np.uint8)
        constants = {
            "right": rng.integers(-127, 128, (product.k, product.n)).astype(np.int8),
            "scale": np.array(0.01, dtype=np.float32),
            "scales": np.full(product.n, 0.01, dtype=np.float32),
            "zero": np.array(128, dtype=np.uint8),
            "bias": np.zeros(product.n, dtype=np.float32),
        }
        inputs = ["left", "right", "scale", "scales", "zero", "", "bias"]
        node = helper.make_node("MatMulIntegerToFloat", inputs, ["made"], domain="com.microsoft")
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("left", helper.np_dtype_to_tensor_dtype(left.dtype), left.shape)],
        [helper.make_tensor_value_info("made", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    domains = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=IR_VERSION).SerializeToString()
    session = onnxruntime.InferenceSession(model, session_options(threads), providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"left": left})

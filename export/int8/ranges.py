"""What calibration texts do to the inputs of linear layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cascade.core.rows import FloatArray
from cascade_export.int8.linears import linears

AXES = "watched/axes"


@dataclass(frozen=True, eq=False)
class Ranges:
    """The lowest and the highest value of each channel of a layer's input. Shapes `(in,)`."""

    low: FloatArray
    high: FloatArray

    def __truediv__(self, scale: FloatArray) -> Ranges:
        """The ranges of an input that is divided by a positive scale of shape `(in,)`."""
        return Ranges(self.low / scale, self.high / scale)


def watched(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that also gives the lowest and highest input of every channel, as `name/low` and `name/high`."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    for name in sorted({linear.input for linear in linears(model)}):
        flat = f"{name}/flat"
        copied.graph.node.append(helper.make_node("Flatten", [name], [flat], flat, axis=-1))
        for operator, end in (("ReduceMin", "low"), ("ReduceMax", "high")):
            output = f"{name}/{end}"
            copied.graph.node.append(helper.make_node(operator, [flat, AXES], [output], output, keepdims=0))
            copied.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, ["channels"]))
    copied.graph.initializer.append(numpy_helper.from_array(np.array([0]), AXES))
    return copied


def widen(found: dict[str, Ranges], outputs: Mapping[str, np.ndarray]) -> None:
    """Add what a watched graph gave to the ranges by input."""
    for output, low in outputs.items():
        if output.endswith("/low"):
            name = output.removesuffix("/low")
            high = outputs[f"{name}/high"]
            old = found.get(name, Ranges(low, high))
            found[name] = Ranges(np.minimum(old.low, low), np.maximum(old.high, high))

"""A torch module as an ONNX graph, by tracing."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from typing import TypeAlias

import onnx
import torch
from torch import nn

OPSET = 20
"""The first in which Gelu (erf or tanh) is one operator; ONNX Runtime reads it since 1.17."""

Axes: TypeAlias = tuple[str, ...]
"""Names of the axes of a tensor whose sizes are free; those that are "" or left out have the example's size."""


def trace(
    module: nn.Module, example: Mapping[str, torch.Tensor], *, inputs: Mapping[str, Axes], outputs: Mapping[str, Axes]
) -> onnx.ModelProto:
    """Run a module on an example, inputs by name in the order of `forward`, and write down what it does.

    `inputs` and `outputs` give the free axes, and the latter the names of what `forward` returns, in order.
    """
    module.eval()  # the tracer restores the mode that it found, in all modules inside
    names = {*example, *outputs}
    buffer = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        # The older of torch's two exporters is the one wanted: it makes the smaller graph and needs no onnxscript. It
        # warns about constants in the code of models, too.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tuple(example.values()),
            buffer,  # type: ignore[arg-type]  # the older exporter writes to open files too
            dynamo=False,
            opset_version=OPSET,
            input_names=list(example),
            output_names=list(outputs),
            dynamic_axes={name: _free(axes) for name, axes in {**inputs, **outputs}.items() if name in names},
        )
        given = module(*example.values())
    model = onnx.load_from_string(buffer.getvalue())
    # The exporter loses sizes behind operators that only ONNX Runtime has.
    for value, tensor in zip(model.graph.output, [given] if isinstance(given, torch.Tensor) else given, strict=True):
        free = _free(outputs[value.name])
        for axis, size in enumerate(tensor.shape):
            if axis not in free:
                value.type.tensor_type.shape.dim[axis].dim_value = size
    # Names of source lines, with the exporter's folders in them, do not belong into a bundle.
    for node in model.graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    onnx.checker.check_model(model)
    return model


def _free(axes: Axes) -> dict[int, str]:
    return {axis: size for axis, size in enumerate(axes) if size}

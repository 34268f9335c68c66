"""A torch module as an ONNX graph, by tracing."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping

import onnx
import torch
from torch import nn

__all__ = ["OPSET", "Axes", "trace"]

OPSET = 20
"""The first in which Gelu (erf or tanh) is one operator; ONNX Runtime reads it since 1.17."""

Axes = tuple[str, ...]
"""Names of the axes of a tensor whose sizes are free; those that are "" or left out have the example's size."""


def trace(
    module: nn.Module,
    example: tuple[torch.Tensor | None, ...],
    *,
    inputs: Mapping[str, Axes],
    outputs: Mapping[str, Axes],
) -> onnx.ModelProto:
    """Run a module on an example and write down what it does.

    Args:
        module: put into evaluation mode, because the tracer restores the mode that it found, in all modules inside.
        example: arguments of `forward`; None where there is no such input.
        inputs: in the order of the arguments, those that are None left out.
        outputs: in the order of `forward`.
    """
    module.eval()
    buffer = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        # The older of torch's two exporters is the one wanted: it makes the smaller graph and needs no onnxscript. It
        # warns about constants in the code of models, too.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            example,
            buffer,  # type: ignore[arg-type]  # the older exporter writes to open files too
            dynamo=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={
                name: {axis: size for axis, size in enumerate(axes) if size}
                for name, axes in {**inputs, **outputs}.items()
            },
        )
    model = onnx.load_from_string(buffer.getvalue())
    # Names of source lines, with the exporter's folders in them, do not belong into a bundle.
    for node in model.graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    onnx.checker.check_model(model)
    return model

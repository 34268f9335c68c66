"""A torch module as an ONNX graph, by tracing; the graphs of a tier; a packed model as `embed` and the stages."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn

from cascade.engine.packing import ACTIVE_FEEDS, Actives, Packing
from cascade_export.packed.stages import PackedModel, PackedStage

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


AXES: dict[str, Axes] = {
    "hidden": ("tokens",),
    "head_gather": ("rows", "", "longest"),
    "bias": ("rows", "", "", "longest"),
    "firsts": ("rows",),
    "gather": ("rows", "longest"),
    "weights": ("rows", "", "longest"),
    "counts": ("rows",),
    "buckets": ("bucket_rows", "longest_asking", "longest"),
    "active": ("actives",),
    "query_head_gather": ("rows", "", "longest_active"),
    "words": ("words",),
    "distances": ("distances",),
    "placed_query_head_gather": ("rows", "", "longest"),
    "position_ids": ("tokens",),
    "local_head_gather": ("blocks", "", "keys"),
    "local_bias": ("blocks", "", "seen_from", "keys"),
    "local_query_head_gather": ("blocks", "", "queries"),
}


@dataclass(frozen=True)
class TierGraphs:
    """The graphs of a tier, of which ARCHITECTURE.md tells inputs and outputs.

    `embed`: of a packed tier; None: the only stage is one padded graph; `stages`: in the order in which they run;
    `position_offset`: position id of a row's first token; `max_length`: tokens of a row at most, more are cut.
    """

    embed: onnx.ModelProto | None
    stages: tuple[onnx.ModelProto, ...]
    position_offset: int = 0
    max_length: int = 1 << 30

    @property
    def parts(self) -> tuple[onnx.ModelProto, ...]:
        """All graphs, in the order in which they run."""
        return self.stages if self.embed is None else (self.embed, *self.stages)

    def of(self, parts: Iterable[onnx.ModelProto]) -> TierGraphs:
        """The tier with other graphs in the places of its parts."""
        made, count = tuple(parts), len(self.stages)
        return replace(self, embed=None if self.embed is None else made[0], stages=made[-count:])

    @property
    def heads(self) -> int:
        """Of attention, as packed stages declare them."""
        return _axis(self.stages[0].graph.input, "head_gather", 1)

    @property
    def labels(self) -> int:
        """How many, as the stages declare them."""
        return _axis(self.stages[0].graph.output, "logits", -1)


def _axis(values: Iterable[onnx.ValueInfoProto], name: str, axis: int) -> int:
    return next(int(value.type.tensor_type.shape.dim[axis].dim_value) for value in values if value.name == name)


def export_tier2(packed: PackedModel) -> TierGraphs:
    """Write a packed model as ONNX graphs with free sizes for tokens, rows, the longest row, words."""
    ids = torch.zeros(3, dtype=torch.int64)
    example = dict.fromkeys(packed.embed.inputs, ids)
    embed = trace(packed.embed, example, inputs=dict.fromkeys(example, ("tokens",)), outputs={"hidden": ("tokens",)})
    return TierGraphs(embed, tuple(_stage(stage, packed) for stage in packed.stages), packed.position_offset)


def _stage(stage: PackedStage, packed: PackedModel) -> onnx.ModelProto:
    # Nothing reads a size while the graph is traced, so any example does: two rows of two and one tokens. Of a tagger
    # the first token of each row is active, and a word begins with the second of them.
    rows = Packing.of(np.array([2, 1]), heads=packed.heads)
    feeds: dict[str, npt.NDArray[Any]] = {"hidden": np.zeros((3, packed.width), np.float32), **rows.feeds(stage.inputs)}
    new, answered = "tokens", "rows"
    if stage.pooling == "words":
        actives = Actives(rows, Packing.of(np.array([1, 1]), heads=packed.heads), np.array([0, 2]))
        feeds |= {name: actives.array(name) for name in stage.inputs if name in ACTIVE_FEEDS}
        feeds["words"] = np.array([1])
        new, answered = "actives", "words"
    return trace(
        stage,
        {name: torch.from_numpy(feeds[name]) for name in stage.inputs},
        inputs=AXES | dict.fromkeys(("head_scatter", "placed_head_scatter", "local_head_scatter"), (new,)),
        outputs=({} if stage.narrow else {"hidden_out": (new,)}) | {"logits": (answered,)},
    )

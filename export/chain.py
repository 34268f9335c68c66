"""Running exported graphs on encoded texts: to find ranges, to compare forms, to fit temperatures.

It leaves to others: policies and rows that leave (`cascade.tiers`); here every row goes through every stage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from cascade.batch import Batch, FloatArray, IntArray
from cascade.batching import TokenBudget, batches
from cascade.packing import Packing, padded
from cascade_export.graphs import TierTwoGraphs
from cascade_export.quantise import Ranges, linears

__all__ = ["chain_logits", "chain_ranges", "padded_logits", "padded_ranges", "session"]

AXES = "watched/axes"
Outputs = dict[str, np.ndarray]


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    """A session on the CPU that leaves the cores alone between runs."""
    options = ort.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.x64quantprecision", "1")  # no saturation on CPUs without VNNI
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def chain_logits(graphs: TierTwoGraphs, batch: Batch, *, position_offset: int) -> FloatArray:
    """Logits of all exits for all rows. Shape `(rows, exits, labels)`."""
    parts = [
        (rows, np.stack([stage["logits"] for stage in stages], axis=1))
        for rows, _, stages in _run_chain(graphs, batch, position_offset=position_offset)
    ]
    return _in_order(parts)


def chain_ranges(
    graphs: TierTwoGraphs, batch: Batch, *, position_offset: int
) -> tuple[dict[str, Ranges], list[dict[str, Ranges]]]:
    """What the rows do to the inputs of all linear layers: of `embed`, and of each stage."""
    watched = TierTwoGraphs(embed=_watched(graphs.embed), stages=tuple(map(_watched, graphs.stages)))
    embed: dict[str, Ranges] = {}
    stages: list[dict[str, Ranges]] = [{} for _ in graphs.stages]
    for _, first, rest in _run_chain(watched, batch, position_offset=position_offset):
        for found, outputs in zip((embed, *stages), (first, *rest), strict=True):
            _widen(found, outputs)
    return embed, stages


def padded_logits(model: onnx.ModelProto, batch: Batch, *, max_length: int) -> FloatArray:
    """Logits of a padded graph (tier 1) for all rows. Shape `(rows, labels)`."""
    return _in_order([(rows, out["logits"]) for rows, out in _run_padded(model, batch, max_length=max_length)])


def padded_ranges(model: onnx.ModelProto, batch: Batch, *, max_length: int) -> dict[str, Ranges]:
    """What the rows do to the inputs of all linear layers of a padded graph."""
    found: dict[str, Ranges] = {}
    for _, outputs in _run_padded(_watched(model), batch, max_length=max_length):
        _widen(found, outputs)
    return found


def _run_chain(
    graphs: TierTwoGraphs, batch: Batch, *, position_offset: int
) -> Iterator[tuple[IntArray, Outputs, list[Outputs]]]:
    embed, stages = session(graphs.embed), [session(stage) for stage in graphs.stages]
    for rows in batches(TokenBudget(), batch.lengths):
        part = batch.select(rows)
        packing = Packing.of(part.lengths)
        first = _run(
            embed,
            {
                "input_ids": part.ids,
                "token_type_ids": part.types,
                "position_ids": packing.position_ids(position_offset),
            },
        )
        index = {"gather": packing.gather, "mask": packing.mask, "scatter": packing.scatter}
        hidden, rest = first["hidden"], []
        for stage in stages:
            outputs = _run(stage, {"hidden": hidden, **index})
            hidden = outputs.pop("hidden_out")
            rest.append(outputs)
        yield rows, first, rest


def _run_padded(model: onnx.ModelProto, batch: Batch, *, max_length: int) -> Iterator[tuple[IntArray, Outputs]]:
    graph = session(model)
    for rows in batches(TokenBudget(), batch.lengths):
        ids, mask, types = padded(batch.select(rows), max_length=max_length)
        yield rows, _run(graph, {"input_ids": ids, "attention_mask": mask, "token_type_ids": types})


def _run(graph: ort.InferenceSession, feeds: Outputs) -> Outputs:
    wanted = {value.name for value in graph.get_inputs()}
    names = [value.name for value in graph.get_outputs()]
    found = graph.run(names, {name: array for name, array in feeds.items() if name in wanted})
    return dict(zip(names, found, strict=True))


def _in_order(parts: Sequence[tuple[IntArray, FloatArray]]) -> FloatArray:
    rows = np.concatenate([rows for rows, _ in parts])
    values = np.concatenate([values for _, values in parts])
    return values[np.argsort(rows)]


def _watched(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that also gives the lowest and highest input of every channel, as `name/low` and `name/high`."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    for name in sorted({linear.input for linear in linears(model)}):
        flat = f"{name}/flat"
        watched.graph.node.append(helper.make_node("Flatten", [name], [flat], flat, axis=-1))
        for operator, end in (("ReduceMin", "low"), ("ReduceMax", "high")):
            output = f"{name}/{end}"
            watched.graph.node.append(helper.make_node(operator, [flat, AXES], [output], output, keepdims=0))
            watched.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, ["channels"]))
    watched.graph.initializer.append(numpy_helper.from_array(np.array([0]), AXES))
    return watched


def _widen(ranges: dict[str, Ranges], outputs: Outputs) -> None:
    for output in outputs:
        if output.endswith("/low"):
            name = output.removesuffix("/low")
            low, high = outputs[output], outputs[f"{name}/high"]
            old = ranges.get(name, Ranges(low, high))
            ranges[name] = Ranges(np.minimum(old.low, low), np.maximum(old.high, high))

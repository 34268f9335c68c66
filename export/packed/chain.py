"""Running exported graphs on encoded texts: to find ranges, to compare forms, to fit temperatures.

Tier 2's graphs run in the engine's own loop over stages, one batch of whole rows at a time; each is wrapped so that its
outputs can be read between batches. An answer belongs to a unit: a row in classification, a word in tagging.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cascade.core.rows import BoolArray, FloatArray, IntArray, Units, ranges
from cascade.engine.multi_exit import MultiExit
from cascade.engine.packing import padded
from cascade.policies.batching import FixedSize, TokenBudget, batches
from cascade.policies.exits import ExitPolicy, ExitState, never
from cascade.runtime.backend import Array, FunctionBackend
from cascade_export.int8.inputs import Ranges
from cascade_export.int8.linears import linears
from cascade_export.packed.graphs import TierTwoGraphs

import onnxruntime as ort  # isort: skip  # after cascade.runtime, which tells it not to report home

__all__ = ["ChainRanges", "Outputs", "at_units", "chain_logits", "chain_ranges", "padded_logits", "padded_ranges"]
__all__ += ["session"]

AXES = "watched/axes"
Outputs: TypeAlias = dict[str, np.ndarray]
ChainRanges: TypeAlias = list[dict[str, Ranges]]
"""What goes into the linear layers of a second tier, by name: of `embed`, and of each stage."""


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    """A session on the CPU that leaves the cores alone between runs."""
    options = ort.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.x64quantprecision", "1")  # no saturation on CPUs without VNNI
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _backend(model: onnx.ModelProto, last: list[Outputs]) -> FunctionBackend:
    """A graph as the engine runs one; what it gave last is in `last`."""
    graph = session(model)
    inputs, outputs = ([value.name for value in own] for own in (model.graph.input, model.graph.output))

    def run(feeds: dict[str, Array]) -> Outputs:
        last[:] = [dict(zip(outputs, graph.run(outputs, feeds), strict=True))]
        return last[0]

    return FunctionBackend(run, tuple(inputs), tuple(outputs))


def chain_logits(graphs: TierTwoGraphs, units: Units, *, exits: IntArray | None = None) -> FloatArray:
    """Logits of all exits for all units.

    Args:
        graphs: in any precision.
        units: of texts or sentences.
        exits: for a tagger, number of the exit, from 0, after which each word leaves and keeps its state; all of them
            stay to the end if not given. Shape `(units,)`.

    Returns:
        Shape `(units, exits, labels)`; NaN where a word has left.
    """
    result = np.full((len(units), len(graphs.stages), graphs.labels), np.nan, np.float32)
    for numbers, (_, *stages) in _run_chain(graphs, units, exits):
        for index, outputs in enumerate(stages):
            if outputs is not None:
                inside = numbers if exits is None else numbers[exits[numbers] >= index]
                result[inside, index] = outputs["logits"]
    return result


def chain_ranges(graphs: TierTwoGraphs, units: Units) -> ChainRanges:
    """What the rows do to the inputs of all linear layers."""
    watched = graphs.with_graphs(_watched(graphs.embed), map(_watched, graphs.stages))
    found: list[dict[str, Ranges]] = [{} for _ in (graphs.embed, *graphs.stages)]
    for _, last in _run_chain(watched, units, None):
        for own, outputs in zip(found, last, strict=True):
            _widen(own, outputs or {})
    return found


def padded_logits(model: onnx.ModelProto, units: Units, *, max_length: int) -> FloatArray:
    """Logits of a padded graph (tier 1) for all units. Shape `(units, labels)`."""
    parts = [
        (numbers, at_units(outputs["logits"], part, dims=2))
        for part, numbers, outputs in _run_padded(model, units, max_length)
    ]
    numbers, found = (np.concatenate(column) for column in zip(*parts, strict=True))
    logits: FloatArray = found[np.argsort(numbers)]
    return logits


def padded_ranges(model: onnx.ModelProto, units: Units, *, max_length: int) -> dict[str, Ranges]:
    """What the rows do to the inputs of all linear layers of a padded graph."""
    found: dict[str, Ranges] = {}
    for _, _, outputs in _run_padded(_watched(model), units, max_length):
        _widen(found, outputs)
    return found


def at_units(logits: FloatArray, units: Units, *, dims: int) -> FloatArray:
    """Logits of units from logits of rows.

    Args:
        logits: shape `(rows, ..., labels)`, or with one axis more than `dims`, of a tagger: `(rows, longest, ...,
            labels)`, of which the places of the units' first tokens are read.
        units: of these rows.
        dims: axes where a row has one answer.
    """
    if logits.ndim == dims:
        return logits
    rows = units.row_of
    found: FloatArray = logits[rows, units.first_token - units.rows.offsets[rows]]
    return found


def _run_chain(
    graphs: TierTwoGraphs, units: Units, exits: IntArray | None
) -> Iterator[tuple[IntArray, list[Outputs | None]]]:
    """Batch by batch: numbers of its units, the outputs of `embed` and of each stage, None where none was left."""
    models = (graphs.embed, *graphs.stages)
    last: list[list[Outputs]] = [[] for _ in models]
    embed, *stages = map(_backend, models, last)
    options: dict[str, Any] = {
        "embed": embed,
        "stages": stages,
        "layers": range(1, len(stages) + 1),
        "labels": graphs.labels,
        "heads": graphs.heads,
        "max_length": 1 << 30,
        "position_offset": graphs.position_offset,
        "batching": FixedSize(1 << 30),  # all rows in one batch, in their order
    }
    for part, numbers in _in_batches(units):
        for outputs in last:
            outputs.clear()
        policy = never if exits is None else _leaving(exits[numbers])
        MultiExit(**options, exit_policy=policy).score(part)
        yield numbers, [outputs[0] if outputs else None for outputs in last]


def _leaving(exits: IntArray) -> ExitPolicy:
    """A policy by which each unit of one batch leaves after the exit of this number. Shape `(units,)`."""
    inside = exits

    def leave(state: ExitState) -> BoolArray:
        nonlocal inside
        gone: BoolArray = inside == state.exit_index
        inside = inside[~gone]
        return gone

    return leave


def _in_batches(units: Units) -> Iterator[tuple[Units, IntArray]]:
    """Rows of like length together, and the numbers of their units; those without units are left out."""
    for rows in batches(TokenBudget(), units.rows.lengths):
        numbers = ranges(units.offsets[rows], units.counts[rows])
        if len(numbers):
            yield units.select(rows), numbers


def _run_padded(model: onnx.ModelProto, units: Units, max_length: int) -> Iterator[tuple[Units, IntArray, Outputs]]:
    graph = _backend(model, [])
    names = ("input_ids", "attention_mask", "token_type_ids")
    for part, numbers in _in_batches(units):
        grids = padded(part.rows, max_length=max_length)
        yield part, numbers, graph.run(dict(zip(names, grids, strict=True)))


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


def _widen(ranges: dict[str, Ranges], outputs: Mapping[str, np.ndarray]) -> None:
    for output in outputs:
        if output.endswith("/low"):
            name = output.removesuffix("/low")
            low, high = outputs[output], outputs[f"{name}/high"]
            old = ranges.get(name, Ranges(low, high))
            ranges[name] = Ranges(np.minimum(old.low, low), np.maximum(old.high, high))

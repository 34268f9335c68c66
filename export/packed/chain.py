"""Running exported graphs on encoded texts: to find ranges, to compare forms, to fit temperatures.

Tier 2's graphs run in the engine's own loop over stages, one batch of whole rows at a time; each is wrapped so that its
outputs can be read between batches. An answer belongs to a unit: a row in classification, a word in tagging.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import onnx

from cascade.core.rows import BoolArray, FloatArray, IntArray, Units, ranges
from cascade.engine.multi_exit import MultiExit
from cascade.engine.packing import padded
from cascade.policies.batching import FixedSize, TokenBudget, batches
from cascade.policies.exits import ExitPolicy, ExitState, never
from cascade.runtime.backend import Array, FunctionBackend, session_options
from cascade_export.int8.linears import Ranges, watched, widen
from cascade_export.packed.graphs import TierTwoGraphs

import onnxruntime as ort  # isort: skip  # after cascade.runtime, which tells it not to report home

Outputs: TypeAlias = dict[str, Array]
ChainRanges: TypeAlias = list[dict[str, Ranges]]
"""What goes into the linear layers of a second tier, by name: of `embed`, and of each stage."""


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    """A session on the CPU, on all cores, with the engine's own settings."""
    return ort.InferenceSession(model.SerializeToString(), session_options(0), providers=["CPUExecutionProvider"])


def chain_logits(graphs: TierTwoGraphs, units: Units, *, exits: IntArray | None = None) -> FloatArray:
    """Logits of all exits for all units. Shape `(units, exits, labels)`; NaN after the exit at which a word has left.

    `exits`: for a tagger, number of the exit, from 0, after which each word leaves and keeps its state; all
    stay to the end if not given. Shape `(units,)`.
    """
    result = np.full((len(units), len(graphs.stages), graphs.labels), np.nan, np.float32)
    for numbers, (_, *stages) in _run_chain(graphs, units, exits):
        for index, outputs in enumerate(stages):
            if outputs:
                inside = numbers if exits is None else numbers[exits[numbers] >= index]
                result[inside, index] = outputs["logits"]
    return result


def chain_ranges(graphs: TierTwoGraphs, units: Units) -> ChainRanges:
    """What the rows do to the inputs of all linear layers."""
    found: list[dict[str, Ranges]] = [{} for _ in (graphs.embed, *graphs.stages)]
    seen = replace(graphs, embed=watched(graphs.embed), stages=tuple(map(watched, graphs.stages)))
    for _, last in _run_chain(seen, units, None):
        for own, outputs in zip(found, last, strict=True):
            widen(own, outputs)
    return found


def padded_logits(model: onnx.ModelProto, units: Units, *, max_length: int) -> FloatArray:
    """Logits of a padded graph (tier 1) for all units. Shape `(units, labels)`."""
    graph = _backend(model, {})
    return in_order(units, lambda part, _: graph.run(_grids(part, max_length))["logits"], dims=2)


def padded_ranges(model: onnx.ModelProto, units: Units, *, max_length: int) -> dict[str, Ranges]:
    """What the rows do to the inputs of all linear layers of a padded graph."""
    graph, found = _backend(watched(model), {}), dict[str, Ranges]()
    for part, _ in _in_batches(units):
        widen(found, graph.run(_grids(part, max_length)))
    return found


def in_order(units: Units, run: Callable[[Units, IntArray], FloatArray], *, dims: int) -> FloatArray:
    """Logits of all units, in their order, from logits of rows.

    `run` gives, for some rows and the numbers of their units, logits of shape `(rows, ..., labels)`, which have `dims`
    axes, or of a tagger, with one more, `(rows, longest, ..., labels)`, of which the places of first tokens are read.
    """
    numbers, found = [], []
    for part, own in _in_batches(units):
        logits = run(part, own)
        rows = part.row_of
        places = (rows, part.first_token - part.rows.offsets[rows])
        found.append(logits if logits.ndim == dims else logits[places])
        numbers.append(own)
    ordered: FloatArray = np.concatenate(found)[np.argsort(np.concatenate(numbers))]
    return ordered


def _run_chain(graphs: TierTwoGraphs, units: Units, exits: IntArray | None) -> Iterator[tuple[IntArray, list[Outputs]]]:
    """Batch by batch: numbers of its units, the outputs of `embed` and of each stage, none where no unit was left."""
    models = (graphs.embed, *graphs.stages)
    last: list[Outputs] = [{} for _ in models]
    embed, *stages = map(_backend, models, last)
    tier = MultiExit(
        embed=embed,
        stages=stages,
        layers=range(1, len(stages) + 1),
        labels=graphs.labels,
        heads=graphs.heads,
        max_length=1 << 30,
        position_offset=graphs.position_offset,
        batching=FixedSize(1 << 30),  # all rows in one batch, in their order
    )
    for part, numbers in _in_batches(units):
        for outputs in last:
            outputs.clear()
        replace(tier, exit_policy=never if exits is None else _leaving(exits[numbers])).score(part)
        yield numbers, last


def _backend(model: onnx.ModelProto, last: Outputs) -> FunctionBackend:
    """A graph as the engine runs one; what it gave last is in `last`."""
    graph = session(model)
    inputs, outputs = (tuple(value.name for value in own) for own in (model.graph.input, model.graph.output))

    def run(feeds: Outputs) -> Outputs:
        last.update(zip(outputs, graph.run(outputs, feeds), strict=True))
        return last

    return FunctionBackend(run, inputs, outputs)


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


def _grids(part: Units, max_length: int) -> Outputs:
    names = ("input_ids", "attention_mask", "token_type_ids")
    return dict(zip(names, padded(part.rows, max_length=max_length), strict=True))

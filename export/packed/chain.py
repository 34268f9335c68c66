"""Running exported graphs on encoded texts: to find ranges, to compare forms, to fit temperatures.

Packed graphs run in the engine's own loop over stages, one batch of whole rows at a time; each is wrapped so that its
outputs can be read between batches. An answer belongs to a unit: a row in classification, a word in tagging.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import onnx

from cascade.core.rows import BoolArray, FloatArray, IntArray, Units, ranges
from cascade.engine.multi_exit import MultiExit
from cascade.engine.packing import padded
from cascade.policies.batching import TokenBudget, batches
from cascade.policies.exits import ExitPolicy, ExitState, never
from cascade.runtime.backend import Array, FunctionBackend, session_options
from cascade_export.int8.rewriting import Ranges, watched, widen
from cascade_export.packed.stages import TierGraphs

import onnxruntime as ort  # isort: skip  # after cascade.runtime, which tells it not to report home


Outputs: TypeAlias = dict[str, Array]
ChainRanges: TypeAlias = list[dict[str, Ranges]]
"""What goes into the linear layers of a tier, by name: of each part."""
GRIDS = ("input_ids", "attention_mask", "token_type_ids")
"""Inputs of a padded graph."""


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    """A session on the CPU, on all cores, with the engine's own settings."""
    return ort.InferenceSession(model.SerializeToString(), session_options(0), providers=["CPUExecutionProvider"])


def chain_logits(graphs: TierGraphs, units: Units, *, exits: IntArray | None = None) -> FloatArray:
    """Logits of all exits for all units. Shape `(units, exits, labels)`; NaN after the exit at which a word has left.

    `exits`: for a packed tagger, number of the exit, from 0, after which each word leaves and keeps its state; all
    stay to the end if not given. Shape `(units,)`.
    """
    count = len(graphs.stages)
    result = np.full((len(units), count, graphs.labels), np.nan, np.float32)
    for numbers, parts in _run(graphs, units, exits):
        for index, outputs in enumerate(parts[-count:]):
            if outputs:
                inside = numbers if exits is None else numbers[exits[numbers] >= index]
                result[inside, index] = outputs["logits"]
    return result


def chain_ranges(graphs: TierGraphs, units: Units) -> ChainRanges:
    """What the rows do to the inputs of all linear layers."""
    found: list[dict[str, Ranges]] = [{} for _ in graphs.parts]
    for _, last in _run(graphs.of(map(watched, graphs.parts)), units, None):
        for own, outputs in zip(found, last, strict=True):
            widen(own, outputs)
    return found


def _run(graphs: TierGraphs, units: Units, exits: IntArray | None) -> Iterator[tuple[IntArray, list[Outputs]]]:
    """Batch by batch: numbers of its units, the outputs of each part, none where no unit was left."""
    last: list[Outputs] = [{} for _ in graphs.parts]
    first, *others = map(_backend, graphs.parts, last)
    tier = None
    if graphs.embed is not None:
        tier = MultiExit(
            embed=first,
            stages=others,
            layers=range(1, len(others) + 1),
            labels=graphs.labels,
            heads=graphs.heads,
            max_length=graphs.max_length,
            position_offset=graphs.position_offset,
            batching=lambda lengths: iter([np.arange(len(lengths))]),  # all rows, in their order
        )
    for rows in batches(TokenBudget(), units.rows.lengths):
        part, numbers = units.select(rows), ranges(units.offsets[rows], units.counts[rows])
        if not len(numbers):
            continue
        for outputs in last:
            outputs.clear()
        if tier is not None:
            replace(tier, exit_policy=never if exits is None else _leaving(exits[numbers])).score(part)
        else:
            first.run(dict(zip(GRIDS, padded(part.rows, max_length=graphs.max_length), strict=True)))
            if (logits := last[0]["logits"]).ndim == 3:  # of words, read at their first tokens
                last[0]["logits"] = logits[part.row_of, part.first_token - part.rows.offsets[part.row_of]]
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

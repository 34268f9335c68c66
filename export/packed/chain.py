"""Running exported graphs on encoded texts: to find ranges, to compare forms, to fit temperatures; and against torch.

Packed graphs run in the engine's own loop over stages, one batch of whole rows at a time; each is wrapped so that its
outputs can be read between batches. An answer belongs to a unit: a row in classification, a word in tagging. Nothing is
written that does not answer as its checkpoint does.
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
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from cascade.core.rows import Rows
from cascade.exceptions import BundleError
from cascade.training.data import TrainingRows, grids
from cascade.training.models.teacher import Teacher, WholeModel
from cascade.training.units import exit_grid, over_units
from cascade_export.texts import Sample

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


TOLERANCE = 1e-4  # of the largest logit, if that is above 1; fp32 graphs differ from torch by about 1e-6
ROWS = 64  # on which graphs are compared with torch


def check_tier(
    names: Sequence[str],
    model: Any,
    graphs: TierGraphs,
    sample: Sample,
    reference: FloatArray,
    *,
    max_length: int,
    alone: bool = False,
) -> list[float]:
    """Compare every stage with torch; of a packed tier also in a long row, and with words leaving at random.

    `names` are the stages', for messages; `reference`, shape `(units, exits, labels)`, the fp32 graphs' logits of the
    sample, some of whose rows are compared. As many of them as `max_length` tokens hold are the long row. `alone`:
    torch reads each row by itself, so that a model whose answers depend on padding is found out. Returned is each
    stage's largest difference; one above the tolerance is a `BundleError`.
    """
    part, numbers = sample.spread(ROWS)
    rows = [part.select(np.array([row])) for row in range(part.n_rows)] if alone else [part]
    limit = graphs.max_length
    expected = np.concatenate([torch_logits(model, own, max_length=limit) for own in rows if len(own)])
    differences = [check(name, reference[numbers, i], expected[:, i]) for i, name in enumerate(names)]
    if graphs.embed is None:
        return differences
    long = _one_row(part, max_length, whole=sample.sentences is None)
    cases: list[tuple[Units, IntArray | None, str]] = [(long, None, f", in a row of {long.rows.tokens} tokens,")]
    if sample.sentences is not None:
        cases.append((part, random_exits(part, len(names)), ", with words that have left,"))
    for own, exits, case in cases:
        found, expected = chain_logits(graphs, own, exits=exits), torch_logits(model, own, exits=exits)
        for i, name in enumerate(names):
            inside = slice(None) if exits is None else exits >= i
            if len(found[inside]):
                differences[i] = max(differences[i], check(f"{name}{case}", found[inside, i], expected[inside, i]))
    return differences


def _one_row(units: Units, longest: int, *, whole: bool) -> Units:
    """As many rows with units as fit, as one, which is one unit if `whole`: some families read long rows otherwise."""
    with_units = np.flatnonzero(units.counts)
    fit = int(np.searchsorted(np.cumsum(units.rows.lengths[with_units]), longest, side="right"))
    part = units.select(with_units[: max(fit, 1)])
    row = Rows(part.rows.ids, part.rows.types, part.rows.offsets[[0, -1]])
    return Units.whole(row) if whole else Units(row, part.first_token, part.n_tokens, part.offsets[[0, -1]])


def torch_logits(model: Any, units: Units, *, exits: IntArray | None = None, max_length: int = 1 << 30) -> FloatArray:
    """The checkpoint's own logits. Shape `(units, exits, labels)`; one exit where it has none.

    `exits`: as for `chain.chain_logits`; after its exit a word has what the head says of the state that it kept.
    """
    asked = model if isinstance(model, Teacher) else WholeModel(model, "")

    def collate(rows: TrainingRows) -> dict[str, Tensor]:
        batch = grids(rows, padding=asked.padding, max_length=max_length)
        stops = rows.targets.get("exits")
        return batch if stops is None else batch | {"exit_layers": exit_grid(rows.units, stops, model.layers)}

    rows = TrainingRows(units, {} if exits is None else {"exits": exits})
    return over_units(asked, rows, read=lambda logits: logits, collate=collate, progress=bool)


def random_exits(units: Units, exits: int) -> IntArray:
    """An exit for each unit, from 0, drawn with equal chances; the same for as many units. Shape `(units,)`."""
    return np.random.default_rng(len(units)).integers(0, exits, len(units))


def check(name: str, found: FloatArray, expected: FloatArray) -> float:
    """Compare a graph's logits with torch's, two arrays of the same shape; the largest absolute difference.

    One above the tolerance is a `BundleError`.
    """
    difference = float(np.abs(found - expected).max())
    allowed = TOLERANCE * max(1.0, float(np.abs(expected).max()))
    if not difference <= allowed:  # not "above": a NaN must fail
        raise BundleError(
            f"{name} must answer as its checkpoint within {allowed:.0e}, the largest difference was {difference:.1e}; "
            "nothing was written; use the versions of torch and transformers that trained the checkpoint"
        )
    return difference

"""ONNX against torch: nothing is written that does not answer as its checkpoint does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cascade.core.rows import FloatArray, IntArray, Rows, Units, ranges
from cascade.engine.packing import Packing, padded
from cascade.exceptions import BundleError
from cascade.training.models.whole import inputs_of
from cascade_export.checkpoints import TierTwo
from cascade_export.packed.chain import chain_logits, in_order
from cascade_export.packed.graphs import TierTwoGraphs
from cascade_export.texts import Sample

TOLERANCE = 1e-4  # of the largest logit, if that is above 1; fp32 graphs differ from torch by about 1e-6
ROWS = 64  # on which graphs are compared with torch


def check_tier1(
    name: str, model: Any, sample: Sample, reference: FloatArray, *, max_length: int, alone: bool = False
) -> float:
    """Compare a padded graph, whose logits of the sample are the reference, with torch; see `check_tier2`.

    `alone`: torch reads each row by itself, so that a model whose answers depend on padding is found out.
    """
    part, numbers = sample.part(sample.spread(ROWS))
    if not alone:
        return check(name, reference[numbers], torch_tier1(model, part, max_length=max_length))
    rows = [part.select(np.array([row])) for row in range(part.n_rows)]
    expected = np.concatenate([torch_tier1(model, own, max_length=max_length) for own in rows if len(own)])
    return check(name, reference[numbers], expected)


def check_tier2(
    names: Sequence[str],
    model: TierTwo,
    graphs: TierTwoGraphs,
    sample: Sample,
    reference: FloatArray,
    *,
    max_length: int,
) -> list[float]:
    """Compare every stage with torch: at full depth, in a long row, and for a tagger with words leaving at random too.

    `names` are the stages', for messages; `reference`, shape `(units, exits, labels)`, the fp32 graphs' logits of the
    sample, some of whose rows are compared. As many of them as `max_length` tokens hold are the long row. Returned is
    each stage's largest difference; one above the tolerance is a `BundleError`.
    """
    (part, numbers), stages = sample.part(sample.spread(ROWS)), range(len(names))
    expected = torch_tier2(model, part)
    differences = [check(names[i], reference[numbers, i], expected[:, i]) for i in stages]
    long = _one_row(part, max_length, whole=sample.sentences is None)
    found, expected = chain_logits(graphs, long), torch_tier2(model, long)
    for i in stages:
        name = f"{names[i]}, in a row of {long.rows.tokens} tokens,"
        differences[i] = max(differences[i], check(name, found[:, i], expected[:, i]))
    if sample.sentences is None:
        return differences
    exits = random_exits(part, len(names))
    found, expected = chain_logits(graphs, part, exits=exits), torch_tier2(model, part, exits=exits)
    for i in stages:
        inside = exits >= i
        if inside.any():
            halted = check(f"{names[i]}, with words that have left,", found[inside, i], expected[inside, i])
            differences[i] = max(differences[i], halted)
    return differences


def _one_row(units: Units, longest: int, *, whole: bool) -> Units:
    """As many rows with units as fit, as one, which is one unit if `whole`: some families read long rows otherwise."""
    with_units = np.flatnonzero(units.counts)
    fit = int(np.searchsorted(np.cumsum(units.rows.lengths[with_units]), longest, side="right"))
    part = units.select(with_units[: max(fit, 1)])
    row = Rows(part.rows.ids, part.rows.types, part.rows.offsets[[0, -1]])
    return Units.whole(row) if whole else Units(row, part.first_token, part.n_tokens, part.offsets[[0, -1]])


def torch_tier2(model: TierTwo, units: Units, *, exits: IntArray | None = None) -> FloatArray:
    """The checkpoint's own logits. Shape `(units, exits, labels)`.

    `exits`: as for `chain.chain_logits`; after its exit a word has what the head says of the state that it kept.
    """
    depth, layers = model.layers[-1], np.array(model.layers, np.int64)

    def run(part: Units, numbers: IntArray) -> FloatArray:
        grids, stops = _tensors(part), {}
        if exits is not None:
            last = np.full(part.rows.tokens, depth)
            last[ranges(part.first_token, part.n_tokens)] = np.repeat(layers[exits[numbers]], part.n_tokens)
            packing = Packing.of(part.rows.lengths)
            stops["exit_layers"] = torch.from_numpy(np.where(packing.mask, last[packing.array("gather")], depth))
        with torch.no_grad():
            logits: Tensor = model(*grids, **stops)["logits"]
        found: FloatArray = (logits.transpose(1, 2) if logits.ndim == 4 else logits).numpy()  # 4: places after exits
        return found

    return in_order(units, run, dims=3)


def torch_tier1(model: Any, units: Units, *, max_length: int) -> FloatArray:
    """The checkpoint's own logits. Shape `(units, labels)`."""
    names = inputs_of(model)

    def run(part: Units, _numbers: IntArray) -> FloatArray:
        with torch.no_grad():
            logits: Tensor = model(**dict(zip(names, _tensors(part, max_length), strict=False))).logits
        return logits.numpy()

    return in_order(units, run, dims=2)


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


def _tensors(part: Units, max_length: int = 1 << 30) -> list[Tensor]:
    return [torch.from_numpy(grid) for grid in padded(part.rows, max_length=max_length)]

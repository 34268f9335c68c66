"""ONNX against torch: nothing is written that does not answer as its checkpoint does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from cascade.core.rows import FloatArray, IntArray, Rows, Units
from cascade.exceptions import BundleError
from cascade.training.data import TrainingRows, grids
from cascade.training.models.teacher import Teacher, WholeModel
from cascade.training.units import exit_grid, over_units
from cascade_export.packed.chain import chain_logits
from cascade_export.packed.stages import TierGraphs
from cascade_export.texts import Sample

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

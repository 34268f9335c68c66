"""int8 forms of both tiers, ranges from calibration texts, and what stays fp32 so that answers agree with fp32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
import onnx

from cascade.core.rows import FloatArray, IntArray
from cascade_export.int8.quantise import quantise_linears, quantise_tables
from cascade_export.options import ExportOptions, Int8
from cascade_export.packed.chain import ChainRanges, chain_logits, chain_ranges, padded_logits, padded_ranges
from cascade_export.packed.graphs import TierTwoGraphs
from cascade_export.texts import Agreement, Sample

RANGE_ROWS = 512  # min-max ranges no longer move after some hundred texts
T = TypeVar("T", onnx.ModelProto, TierTwoGraphs)


@dataclass(frozen=True, eq=False)
class Quantised(Generic[T]):
    """A tier in its final form: the `graphs` that the engine runs, and what they say.

    `logits`: of the sample, of tier 1 `(units, labels)`, of tier 2 `(units, exits, labels)`; `precisions`: of each
    exit, `int8` or `fp32`; `smoothed`: whether int8 had to be smoothed (`quantise_linears`).
    """

    graphs: T
    logits: FloatArray
    precisions: Sequence[str]
    smoothed: bool = False


def quantise_tier2(
    graphs: TierTwoGraphs, reference: FloatArray, sample: Sample, options: ExportOptions
) -> Quantised[TierTwoGraphs]:
    """int8 stages, but for those that have to stay fp32 for full depth to agree with fp32.

    Where too few units agree, static int8 is smoothed; where that does not help, the stage that disagrees most when it
    alone is int8 goes back to fp32, then the next. `reference`: the fp32 graphs' logits of the sample. Shape
    `(units, exits, labels)`.
    """
    count, static = len(graphs.stages), options.int8 is Int8.STATIC
    if options.int8 is Int8.NONE:
        return Quantised(graphs, reference, ("fp32",) * count)
    few, everything = sample.spread(RANGE_ROWS), np.arange(sample.units.n_rows)
    spans = chain_ranges(graphs, sample.part(few)[0]) if static else None

    def measured(found: TierTwoGraphs, rows: IntArray) -> tuple[FloatArray, Agreement]:
        part, numbers = sample.part(rows)
        logits = chain_logits(found, part)
        return logits, sample.compare(logits[:, -1], reference[numbers, -1])

    best = _int8(graphs, spans)
    logits, agreement = measured(best, everything)
    if agreement.meets(options.agreement):
        return Quantised(best, logits, ("int8",) * count)
    best = _int8(graphs, spans, smooth=True) if static else best

    def mixed(small: Sequence[bool]) -> TierTwoGraphs:
        stages = zip(graphs.stages, best.stages, small, strict=True)
        return replace(best, stages=tuple(int8 if chosen else fp32 for fp32, int8, chosen in stages))

    small, order = [True] * count, list[int]()
    while True:
        found = mixed(small)
        logits, agreement = measured(found, everything)
        if not any(small) or agreement.meets(options.agreement):
            break
        if not order:
            alone = [measured(mixed([i == stage for i in range(count)]), few)[1] for stage in range(count)]
            order = sorted(range(count), key=lambda i: (-alone[i].different, -alone[i].largest))
        small[order.pop(0)] = False
    precisions = ["int8" if chosen else "fp32" for chosen in small]
    return Quantised(found, logits, precisions, smoothed=static and any(small))


def quantise_tier1(
    model: onnx.ModelProto, reference: FloatArray, sample: Sample, options: ExportOptions, *, max_length: int
) -> Quantised[onnx.ModelProto]:
    """The int8 form of a padded graph, smoothed where it has to be, or the fp32 one if neither agrees with it.

    `reference`: the fp32 graph's logits of the sample. Shape `(units, labels)`.
    """
    spans = None
    if options.int8 is Int8.STATIC:
        spans = padded_ranges(model, sample.part(sample.spread(RANGE_ROWS))[0], max_length=max_length)
    for smooth in {Int8.STATIC: (False, True), Int8.NONE: ()}.get(options.int8, (False,)):
        # The tables that no linear layer reads directly.
        small = quantise_tables(quantise_linears(model, spans, smooth=smooth))
        logits = padded_logits(small, sample.units, max_length=max_length)
        if sample.compare(logits, reference).meets(options.agreement):
            return Quantised(small, logits, ("int8",), smooth)
    return Quantised(model, reference, ("fp32",))


def _int8(graphs: TierTwoGraphs, spans: ChainRanges | None, *, smooth: bool = False) -> TierTwoGraphs:
    """fp32 graphs with all linear layers and tables int8; static with ranges."""
    fp32 = (quantise_tables(graphs.embed), *graphs.stages)
    each = [None] * len(fp32) if spans is None else spans
    embed, *stages = (quantise_linears(graph, own, smooth=smooth) for graph, own in zip(fp32, each, strict=True))
    return replace(graphs, embed=embed, stages=tuple(stages))

"""int8 forms of both tiers, ranges from calibration texts, and what stays fp32 so that answers agree with fp32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
import onnx

from cascade.core.rows import FloatArray
from cascade_export.int8.quantise import quantise_linears, quantise_tables
from cascade_export.options import ExportOptions, Int8
from cascade_export.packed.chain import ChainRanges, chain_logits, chain_ranges, padded_logits, padded_ranges
from cascade_export.packed.graphs import TierTwoGraphs
from cascade_export.texts import Sample

RANGE_ROWS = 512  # min-max ranges no longer move after some hundred texts
ALONE_ROWS = 128  # to tell which stages int8 disturbs most
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
    """int8 stages and tables, but for those that have to stay fp32 for full depth to agree with fp32.

    Where too few units agree, int8 is smoothed; where that does not help, the tables stay fp32, which costs no
    time, and then stages, those first that move the logits most when they alone are int8. How many is found by
    bisection. `reference`: the fp32 graphs' logits of the sample. Shape `(units, exits, labels)`.
    """
    count = len(graphs.stages)
    if options.int8 is Int8.NONE:
        return Quantised(graphs, reference, ("fp32",) * count)
    spans = chain_ranges(graphs, sample.part(sample.spread(RANGE_ROWS))[0])

    def agrees(logits: FloatArray) -> bool:
        found = sample.compare(logits[:, -1], reference[:, -1], by_sentence=options.by_sentence)
        return found.meets(options.agreement)

    for smooth in (False, True):
        best = _int8(graphs, spans, smooth=smooth)
        logits = chain_logits(best, sample.units)
        if agrees(logits):
            return Quantised(best, logits, ("int8",) * count, smooth)

    def mixed(chosen: Sequence[int]) -> TierTwoGraphs:
        """The stages of these numbers in int8; with that of the last the tables."""
        stages = tuple((best if i in chosen else graphs).stages[i] for i in range(count))
        return replace(graphs, embed=(best if count in chosen else graphs).embed, stages=stages)

    part, numbers = sample.part(sample.spread(ALONE_ROWS))
    moved = [np.square(chain_logits(mixed([i]), part)[:, -1] - reference[numbers, -1]).mean() for i in range(count)]
    order, found, logits = [*np.argsort(moved, kind="stable").tolist(), count], graphs, reference
    most, too_many = 0, count + 1
    while too_many - most > 1:
        middle = (most + too_many) // 2
        tried = mixed(order[:middle])
        answered = chain_logits(tried, sample.units)
        if agrees(answered):
            most, found, logits = middle, tried, answered
        else:
            too_many = middle
    precisions = ["int8" if i in order[:most] else "fp32" for i in range(count)]
    return Quantised(found, logits, precisions, smoothed="int8" in precisions)


def quantise_tier1(
    model: onnx.ModelProto, reference: FloatArray, sample: Sample, options: ExportOptions, *, max_length: int
) -> Quantised[onnx.ModelProto]:
    """The int8 form of a padded graph, smoothed where it has to be, or the fp32 one if neither agrees with it.

    `reference`: the fp32 graph's logits of the sample. Shape `(units, labels)`.
    """
    if options.int8 is Int8.NONE:
        return Quantised(model, reference, ("fp32",))
    spans = padded_ranges(model, sample.part(sample.spread(RANGE_ROWS))[0], max_length=max_length)
    for smooth in (False, True):
        # The tables that no linear layer reads directly.
        small = quantise_tables(quantise_linears(model, spans, smooth=smooth))
        logits = padded_logits(small, sample.units, max_length=max_length)
        if sample.compare(logits, reference, by_sentence=options.by_sentence).meets(options.agreement):
            return Quantised(small, logits, ("int8",), smooth)
    return Quantised(model, reference, ("fp32",))


def _int8(graphs: TierTwoGraphs, spans: ChainRanges, *, smooth: bool) -> TierTwoGraphs:
    """fp32 graphs with all linear layers and tables int8."""
    fp32 = (quantise_tables(graphs.embed), *graphs.stages)
    embed, *stages = (quantise_linears(graph, own, smooth=smooth) for graph, own in zip(fp32, spans, strict=True))
    return replace(graphs, embed=embed, stages=tuple(stages))

"""int8 forms of tiers, ranges from calibration texts, and what stays fp32 so that answers agree with fp32."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from cascade.core.rows import FloatArray
from cascade_export.int8.quantise import quantise_linears, quantise_tables
from cascade_export.options import ExportOptions, Int8
from cascade_export.packed.chain import ChainRanges, chain_logits, chain_ranges
from cascade_export.packed.graphs import TierGraphs
from cascade_export.texts import Sample

RANGE_ROWS = 512  # min-max ranges no longer move after some hundred texts
ALONE_ROWS = 128  # to tell which stages int8 disturbs most


@dataclass(frozen=True, eq=False)
class Quantised:
    """A tier in its final form: the `graphs` that the engine runs, and what they say.

    `logits`: of the sample, shape `(units, exits, labels)`; `precisions`: of each exit, `int8` or `fp32`; `smoothed`:
    whether int8 had to be smoothed (`quantise_linears`).
    """

    graphs: TierGraphs
    logits: FloatArray
    precisions: Sequence[str]
    smoothed: bool = False


def quantise_tier(graphs: TierGraphs, reference: FloatArray, sample: Sample, options: ExportOptions) -> Quantised:
    """int8 stages and tables, but for those that have to stay fp32 for full depth to agree with fp32.

    Where too few units agree, int8 is smoothed. Where that does not help, a padded graph stays fp32; of a packed
    tier the tables do, which costs no time, and then stages, those first that move the logits most when they alone are
    int8. How many is found by bisection. `reference`: the fp32 graphs' logits of the sample. Shape `(units, exits,
    labels)`.
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

    def mixed(chosen: Collection[int]) -> TierGraphs:
        """The parts of these numbers in int8."""
        pairs = enumerate(zip(graphs.parts, best.parts, strict=True))
        return graphs.of(small if number in chosen else fp32 for number, (fp32, small) in pairs)

    stages = [*range(len(graphs.parts))][-count:]
    part, numbers = sample.part(sample.spread(ALONE_ROWS))
    moved = [np.square(chain_logits(mixed([i]), part)[:, -1] - reference[numbers, -1]).mean() for i in stages]
    order = [*(stages[i] for i in np.argsort(moved, kind="stable")), *range(stages[0])]  # the tables last
    found, logits = graphs, reference
    most, too_many = 0, len(order)
    while too_many - most > 1:
        middle = (most + too_many) // 2
        tried = mixed(order[:middle])
        answered = chain_logits(tried, sample.units)
        if agrees(answered):
            most, found, logits = middle, tried, answered
        else:
            too_many = middle
    precisions = ["int8" if i in order[:most] else "fp32" for i in stages]
    return Quantised(found, logits, precisions, smoothed="int8" in precisions)


def _int8(graphs: TierGraphs, spans: ChainRanges, *, smooth: bool) -> TierGraphs:
    """fp32 graphs with all linear layers int8, and the tables that no such layer reads directly."""
    pairs = zip(graphs.parts, spans, strict=True)
    first, *others = (quantise_linears(graph, own, smooth=smooth) for graph, own in pairs)
    return graphs.of((quantise_tables(first), *others))

"""Numbers from calibration texts: temperatures, agreement with fp32, and which stages stay fp32."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from scipy.optimize import minimize_scalar

from cascade.core.confidence import answers, log_loss, probabilities
from cascade.core.rows import FloatArray, IntArray, Units, ranges
from cascade_export.int8.precision import Int8
from cascade_export.int8.quantise import quantise_linears, quantise_tables
from cascade_export.int8.quantise_rows import quantise_by_row
from cascade_export.packed.chain import ChainRanges, chain_logits, chain_ranges, padded_logits, padded_ranges
from cascade_export.packed.graphs import TierTwoGraphs

__all__ = ["Agreement", "QuantisedTierOne", "QuantisedTierTwo", "accuracy", "compare", "fit_temperature"]
__all__ += ["int8_tier2", "quantise_tier1", "quantise_tier2", "rows_tier2"]

RANGE_ROWS = 512  # min-max ranges no longer move after some hundred texts
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
Targets = npt.NDArray[np.int64] | npt.NDArray[np.float32]


@dataclass(frozen=True)
class Agreement:
    """How near one form's logits are to another's.

    Attributes:
        share: of units with the same answer, in [0, 1].
        different: number of units with another answer.
        largest: largest absolute difference of a logit.
    """

    share: float
    different: int
    largest: float

    def meets(self, bar: float) -> bool:
        """Whether the share reaches the bar; a single unit never fails it, however few there are."""
        return self.share >= bar or self.different <= 1


@dataclass(frozen=True)
class QuantisedTierTwo:
    """A second tier in its final form: the graphs; per stage, `int8` or `fp32`; whether int8 had to be smoothed."""

    graphs: TierTwoGraphs
    precisions: tuple[str, ...]
    smoothed: bool = False


@dataclass(frozen=True)
class QuantisedTierOne:
    """The int8 form of a first tier, its logits, whether they meet the bar, whether int8 had to be smoothed."""

    model: onnx.ModelProto
    logits: FloatArray
    accepted: bool
    smoothed: bool


def compare(logits: FloatArray, reference: FloatArray, *, multi_label: bool) -> Agreement:
    """Compare two arrays of logits. Shapes `(units, labels)`."""
    different = int((_answers(logits, multi_label) != _answers(reference, multi_label)).any(axis=-1).sum())
    return Agreement(1 - different / len(logits), different, float(np.abs(logits - reference).max()))


def accuracy(logits: FloatArray, targets: Targets, *, multi_label: bool) -> float:
    """Share of units whose answer (for multi-label heads: whose whole set of labels) is the target."""
    return float((_answers(logits, multi_label) == np.asarray(targets).reshape(len(targets), -1)).all(axis=-1).mean())


def fit_temperature(logits: FloatArray, targets: Targets, *, multi_label: bool) -> float:
    """The temperature with the smallest negative log-likelihood, in [0.05, 20] (Guo et al., ICML 2017, section 4.2).

    Args:
        logits: shape `(units, labels)`.
        targets: numbers of the labels `(units,)`, or zeros and ones `(units, labels)` for a multi-label head.
        multi_label: as in `cascade.core.confidence.probabilities`.
    """

    def loss(log_temperature: float) -> float:
        scaled = logits.astype(np.float64) / np.exp(log_temperature)
        return log_loss(scaled, targets, multi_label=multi_label)

    found = minimize_scalar(loss, bounds=np.log([MIN_TEMPERATURE, MAX_TEMPERATURE]), method="bounded")
    return float(np.clip(np.exp(found.x), MIN_TEMPERATURE, MAX_TEMPERATURE))


def quantise_tier2(
    graphs: TierTwoGraphs, units: Units, reference: FloatArray, *, int8: Int8, bar: float, multi_label: bool
) -> QuantisedTierTwo:
    """int8 stages, but for those that have to stay fp32 for full depth to agree with fp32.

    Args:
        graphs: fp32.
        units: of calibration texts.
        reference: the fp32 logits of these. Shape `(units, exits, labels)`.
        int8: which form; `NONE` gives the graphs back.
        bar: share of units whose full-depth answer must be fp32's. Where it is missed, static int8 is smoothed; where
            that does not help, the stage that disagrees most when it alone is int8 goes back to fp32, then the next.
        multi_label: what an answer is.
    """
    count = len(graphs.stages)
    if int8 is Int8.NONE:
        return QuantisedTierTwo(graphs, ("fp32",) * count)
    sample = _range_rows(units)
    spans = chain_ranges(graphs, units.select(sample)) if int8 is Int8.STATIC else None

    def agreement(found: TierTwoGraphs, rows: IntArray) -> Agreement:
        numbers = ranges(units.offsets[rows], units.counts[rows])
        logits = chain_logits(found, units.select(rows))
        return compare(logits[:, -1], reference[numbers, -1], multi_label=multi_label)

    everything = np.arange(units.n_rows)
    plain = rows_tier2(graphs) if int8 is Int8.ROWS else int8_tier2(graphs, spans)
    if agreement(plain, everything).meets(bar):
        return QuantisedTierTwo(plain, ("int8",) * count)
    best = int8_tier2(graphs, spans, smooth=True) if spans is not None else plain

    def mixed(small: tuple[bool, ...]) -> TierTwoGraphs:
        chosen = (b if s else a for a, b, s in zip(graphs.stages, best.stages, small, strict=True))
        return TierTwoGraphs(best.embed, tuple(chosen), graphs.position_offset)

    small = (True,) * count
    order: list[int] | None = None
    while any(small) and not agreement(mixed(small), everything).meets(bar):
        if order is None:
            alone = [agreement(mixed(tuple(i == stage for i in range(count))), sample) for stage in range(count)]
            order = sorted(range(count), key=lambda i: (-alone[i].different, -alone[i].largest))
        worst = order.pop(0)
        small = tuple(s and i != worst for i, s in enumerate(small))
    precisions = tuple("int8" if s else "fp32" for s in small)
    return QuantisedTierTwo(mixed(small), precisions, smoothed=spans is not None and any(small))


def int8_tier2(graphs: TierTwoGraphs, spans: ChainRanges | None, *, smooth: bool = False) -> TierTwoGraphs:
    """fp32 graphs with all linear layers and tables int8; static with ranges, dynamic with None."""
    each = [None] * (len(graphs.stages) + 1) if spans is None else spans
    fp32 = (quantise_tables(graphs.embed), *graphs.stages)
    embed, *stages = (quantise_linears(graph, own, smooth=smooth) for graph, own in zip(fp32, each, strict=True))
    return TierTwoGraphs(embed, tuple(stages), graphs.position_offset)


def rows_tier2(graphs: TierTwoGraphs) -> TierTwoGraphs:
    """fp32 graphs with all linear layers and tables int8, a scale per row of each activation."""
    embed = quantise_by_row(quantise_tables(graphs.embed))
    return TierTwoGraphs(embed, tuple(map(quantise_by_row, graphs.stages)), graphs.position_offset)


def quantise_tier1(
    model: onnx.ModelProto,
    units: Units,
    reference: FloatArray,
    *,
    int8: Int8,
    bar: float,
    max_length: int,
    multi_label: bool,
) -> QuantisedTierOne:
    """The int8 form of a padded graph, compared to its fp32 logits `(units, labels)`."""
    spans = None
    if int8 is Int8.STATIC:
        spans = padded_ranges(model, units.select(_range_rows(units)), max_length=max_length)
    for smooth in (False, True) if spans is not None else (False,):
        linear = quantise_by_row(model) if int8 is Int8.ROWS else quantise_linears(model, spans, smooth=smooth)
        small = quantise_tables(linear)  # the tables that no linear layer reads directly
        logits = padded_logits(small, units, max_length=max_length)
        accepted = compare(logits, reference, multi_label=multi_label).meets(bar)
        if accepted:
            break
    return QuantisedTierOne(small, logits, accepted, smooth)


def _range_rows(units: Units) -> IntArray:
    """The rows that ranges come from, spread evenly over all of them. Shape `(at most RANGE_ROWS,)`."""
    rows = units.n_rows
    return np.unique(np.linspace(0, rows - 1, min(rows, RANGE_ROWS)).astype(np.int64))


def _answers(logits: FloatArray, multi_label: bool) -> IntArray:
    return answers(probabilities(logits, multi_label=multi_label), multi_label=multi_label)

"""Ranges of activations that leave out the rarest values: a percentile in place of the minimum and maximum.

A few outliers stretch a min-max range, and all other values lose precision to them; a percentile saturates the
outliers instead (Wu et al., Integer Quantization for Deep Learning Inference: Principles and Empirical Evaluation,
2020, section 4.2; ONNX Runtime's `PercentileCalibrater` cuts both ends alike, and so does this). Values are counted in
a histogram between the minimum and the maximum, which a first pass has found (`chain.chain_ranges`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from cascade.core.rows import FloatArray, IntArray
from cascade.exceptions import OptionError
from cascade_export.int8.inputs import Ranges
from cascade_export.int8.linears import linears
from cascade_export.packed.chain import ChainRanges, Encoded, Outputs, run_chain
from cascade_export.packed.graphs import TierTwoGraphs

__all__ = ["Histogram", "check_percentile", "percentile_ranges"]

BINS = 4096  # ends are found to a 4096th of the min-max range, a sixteenth of a step of int8
SUFFIX = "/values"


@dataclass(frozen=True, eq=False)
class Histogram:
    """How often values lie where, between two ends.

    Attributes:
        low, high: the ends; all values lie between them.
        counts: of bins of equal width. Shape `(bins,)`.
    """

    low: float
    high: float
    counts: IntArray

    @classmethod
    def empty(cls, low: float, high: float, *, bins: int = BINS) -> Histogram:
        """One without values."""
        return cls(low, high, np.zeros(bins, np.int64))

    def with_values(self, values: FloatArray) -> Histogram:
        """One that counts these too. `values`: of any shape."""
        found, _ = np.histogram(values, bins=len(self.counts), range=(self.low, self.high))
        return Histogram(self.low, self.high, self.counts + found)

    def ends(self, percentile: float) -> tuple[float, float]:
        """Ends between which at least `percentile` % of the values lie, at most half of the rest on each side.

        Example: of 1,000 values, spread evenly from 0 to 100, 98 % lie between 1 and 99.
        """
        beyond = self.counts.sum() * (1 - percentile / 100) / 2
        edges = np.linspace(self.low, self.high, len(self.counts) + 1)
        below, above = np.cumsum(self.counts), np.cumsum(self.counts[::-1])
        first = int(np.searchsorted(below, beyond, side="right"))
        last = len(self.counts) - int(np.searchsorted(above, beyond, side="right"))
        return float(edges[min(first, len(self.counts) - 1)]), float(edges[max(last, 1)])


def check_percentile(percentile: float) -> float:
    """A percentile of which something is left on both sides.

    Raises:
        OptionError: it is not above 50 and at most 100.
    """
    if not 50 < percentile <= 100:
        raise OptionError(f"percentile must be above 50 and at most 100, was: {percentile}; 99.99 is usual")
    return percentile


def percentile_ranges(
    graphs: TierTwoGraphs,
    batch: Encoded,
    ranges: ChainRanges,
    *,
    percentile: float,
    position_offset: int,
) -> ChainRanges:
    """Ranges cut where a percentile of each tensor's values lies.

    Args:
        graphs: fp32.
        batch: calibration rows: those that the ranges are of.
        ranges: minimum and maximum of each channel.
        percentile: share of a tensor's values that stays inside its range, in %, above 50.
        position_offset: position id of a row's first token.

    Raises:
        OptionError: an impossible percentile.
    """
    check_percentile(percentile)
    full = [ranges[0], *ranges[1]]
    counted = [
        {name: Histogram.empty(float(own.low.min()), float(own.high.max())) for name, own in each.items()}
        for each in full
    ]
    seen = TierTwoGraphs(_seen(graphs.embed), tuple(map(_seen, graphs.stages)))
    for _, first, rest in run_chain(seen, batch, position_offset=position_offset):
        for histograms, outputs in zip(counted, (first, *rest), strict=True):
            for name, values in _values(outputs):
                histograms[name] = histograms[name].with_values(values)
    cut = [
        {name: _cut(own, histograms[name].ends(percentile)) for name, own in each.items()}
        for each, histograms in zip(full, counted, strict=True)
    ]
    return cut[0], cut[1:]


def _cut(ranges: Ranges, ends: tuple[float, float]) -> Ranges:
    return Ranges(np.clip(ranges.low, *ends), np.clip(ranges.high, *ends))


def _seen(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that also gives the inputs of its linear layers, as `name/values`."""
    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    for name in sorted({linear.input for linear in linears(model)}):
        output = name + SUFFIX
        seen.graph.node.append(helper.make_node("Identity", [name], [output], output))
        seen.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))
    return seen


def _values(outputs: Outputs) -> Iterator[tuple[str, FloatArray]]:
    for name, values in outputs.items():
        if name.endswith(SUFFIX):
            yield name.removesuffix(SUFFIX), values

"""A bundle's second tier in every numeric form that the exporter knows, each in a copy of the bundle, to be compared.

    fp32         as the checkpoint computes
    dynamic      int8, one scale per tensor, measured while running
    static       int8, one scale per activation, from the minimum and maximum of calibration texts
    smoothed     the same after SmoothQuant
    percentile   the same, ranges cut at a percentile
    rows         int8, a scale per row of an activation, measured while running

All linear layers of a form are in that form, whatever it does to the answers; the exporter would keep fp32 where int8
fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from cascade.bundle.manifest import Manifest
from cascade.bundle.opening import Bundle
from cascade.bundle.writing import write_bundle
from cascade.exceptions import BundleError
from cascade_export.checkpoints import common_tokenizer, load_tier2
from cascade_export.int8.calibrate import int8_tier2, range_rows, rows_tier2
from cascade_export.int8.linears import constants_of, linears
from cascade_export.packed.chain import Encoded, chain_ranges
from cascade_export.packed.graphs import TierTwoGraphs, export_tier2
from cascade_export.packed.stages import PackedModel, pack
from cascade_export.percentiles import check_percentile, percentile_ranges
from cascade_export.tag_texts import TagCalibration, encode_sentences
from cascade_export.texts import Calibration, encode

__all__ = ["write_forms"]

Form = tuple[str, TierTwoGraphs]


def write_forms(
    bundle: Bundle,
    checkpoint: str | Path,
    output: Path,
    calibration: Calibration | TagCalibration,
    *,
    percentile: float = 99.99,
    progress: Callable[[str], object] = lambda _step: None,
) -> dict[str, Path]:
    """Write a bundle with tier 2 in each form; all else, temperatures included, is as in the one given.

    Args:
        bundle: gives everything but tier 2's graphs.
        checkpoint: multi-exit model that its second tier was made from.
        output: folder for the bundles, one in each.
        calibration: texts, of a tagger sentences, that ranges come from; labels are not needed.
        percentile: share of an activation's values that stay inside its range in the form `percentile`, in %.
        progress: called before each step.

    Returns:
        The folder of each form, by its name above.

    Raises:
        BundleError: the bundle's second tier was not made from this checkpoint.
        OptionError: a checkpoint that cannot be read, an impossible percentile, no calibration texts.
    """
    check_percentile(percentile)
    manifest = bundle.manifest
    progress("reading the checkpoint")
    model = load_tier2(checkpoint)
    tokenizer = common_tokenizer(checkpoint, bundle.folder)
    packed = pack(model)
    _check(manifest, packed, model.labels)
    batch = _encoded(manifest, calibration, tokenizer)
    progress("exporting")
    graphs = export_tier2(packed)
    _check_weights(bundle, graphs)
    written = {}
    for name, form in _forms(graphs, batch.select(range_rows(batch)), packed.position_offset, percentile):
        progress(f"writing {name}")
        written[name] = write_bundle(output / name, *_parts(bundle, name, form)).folder
    return written


def _forms(graphs: TierTwoGraphs, batch: Encoded, position_offset: int, percentile: float) -> Iterator[Form]:
    """One after the other, so that only one is in memory beside fp32."""
    yield "fp32", graphs
    yield "dynamic", int8_tier2(graphs, None)
    ranges = chain_ranges(graphs, batch, position_offset=position_offset)
    yield "static", int8_tier2(graphs, ranges)
    yield "smoothed", int8_tier2(graphs, ranges, smooth=True)
    cut = percentile_ranges(graphs, batch, ranges, percentile=percentile, position_offset=position_offset)
    yield "percentile", int8_tier2(graphs, cut)
    yield "rows", rows_tier2(graphs)


def _parts(bundle: Bundle, name: str, form: TierTwoGraphs) -> tuple[dict[str, bytes | Path], Manifest]:
    """Files and manifest of a bundle with this second tier."""
    old = bundle.manifest
    spec = old.tier2
    graphs = dict(zip([spec.embed, *(stage.file for stage in spec.stages)], [form.embed, *form.stages], strict=True))
    files: dict[str, bytes | Path] = {path: bundle.path(path) for path in old.files}
    files |= {path: graph.SerializeToString() for path, graph in graphs.items()}
    precision = "fp32" if name == "fp32" else "int8"
    stages = tuple(replace(stage, precision=precision) for stage in spec.stages)
    return files, replace(old, tier2=replace(spec, stages=stages), figures={"form": name}, certificate=None)


def _check(manifest: Manifest, packed: PackedModel, labels: tuple[str, ...]) -> None:
    """Whether a bundle's second tier can have been made from a checkpoint: names and sizes, not the weights."""
    spec = manifest.tier2
    pairs = {
        "labels": (list(spec.labels), list(labels)),
        "layers with an exit": ([stage.layer for stage in spec.stages], list(packed.layers)),
        "width": (spec.width, packed.width),
        "position of the first token": (spec.position_offset, packed.position_offset),
    }
    wrong = [f"{name}: {one} and {two}" for name, (one, two) in pairs.items() if one != two]
    if wrong:
        raise BundleError(
            "the bundle's second tier must have been made from this checkpoint, but they differ in "
            f"{'; '.join(wrong)}; give the checkpoint that cascade-export was given"
        )


def _check_weights(bundle: Bundle, graphs: TierTwoGraphs) -> None:
    """Whether the last head's bias, which stays fp32 in every form, is the bundle's."""
    bias = linears(graphs.stages[-1])[-1].bias
    shipped = onnx.load(bundle.path(bundle.manifest.tier2.stages[-1].file)).graph
    if bias is not None and not any(np.array_equal(bias, own) for own in constants_of(shipped).values()):
        raise BundleError(
            "the bundle's second tier must have been made from this checkpoint, but their last heads differ; "
            "give the checkpoint that cascade-export was given"
        )


def _encoded(manifest: Manifest, calibration: Calibration | TagCalibration, tokenizer: str) -> Encoded:
    length = manifest.tier2.max_length
    if isinstance(calibration, TagCalibration):
        return encode_sentences(calibration, tokenizer, manifest.labels, max_length=length).batch
    return encode(calibration, tokenizer, manifest.labels, max_length=length, multi_label=False).batch

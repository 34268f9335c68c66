"""Two checkpoints in, one bundle out: exported, quantised, verified, calibrated, and only then written.

A classifier or a tagger, as the second tier's `config.json` says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

from cascade._version import __version__
from cascade.bundle.manifest import Manifest, StageSpec, TierOneSpec, TierTwoSpec
from cascade.bundle.opening import Bundle
from cascade.bundle.writing import write_bundle
from cascade.core.rows import FloatArray
from cascade.exceptions import OptionError
from cascade.policies import exits, routing, windows
from cascade_export.card import model_card
from cascade_export.checkpoints import (
    TierOne,
    common_labels,
    common_tokenizer,
    load_tier1,
    load_tier2,
    small_files,
    task_of,
)
from cascade_export.int8.calibrate import quantise_tier1, quantise_tier2
from cascade_export.int8.precision import Int8
from cascade_export.options import ExportOptions
from cascade_export.packed.chain import chain_logits, padded_logits
from cascade_export.packed.graphs import TierTwoGraphs, export_tier2
from cascade_export.packed.stages import PackedModel, pack
from cascade_export.texts import Calibration, Sample, encode
from cascade_export.tier1 import export_tier1
from cascade_export.verify import SAMPLES, check_tier1, check_tier2

__all__ = ["STEPS", "export_bundle"]

STEPS = ("read the checkpoints", "export tier 2", "export tier 1", "quantise tier 2", "quantise tier 1", "write")
TIER1_FP32, TIER1_INT8, EMBED = "onnx/model.onnx", "onnx/model_quantized.onnx", "tier2/embed.onnx"
DEFAULT_MAX_LENGTH = 512


def export_bundle(
    tier2: str | Path,
    tier1: str | Path,
    output: str | Path,
    *,
    calibration: Calibration | None = None,
    options: ExportOptions | None = None,
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda _step: None,
) -> Bundle:
    """Make a bundle of two checkpoints.

    Args:
        tier2: folder (or Hub id) of a multi-exit model, as `cascade-train exits` writes it.
        tier1: folder of a first tier, as `cascade-train first-tier` writes it, or of any classifier (for a tagger:
            any token classifier) that transformers reads, with the same labels and the same tokenizer.
        output: folder of the bundle.
        calibration: texts, and labels where there are some; for a tagger sentences and tags. Without, ranges come from
            `verify.SAMPLES`, temperatures stay 1.
        options: see there.
        overwrite: whether a bundle that is there is replaced.
        progress: called with the name of each of `STEPS` when it begins.

    Raises:
        OptionError: a checkpoint that cannot be read, an option that does not fit it, an output that is taken.
        BundleError: the tiers do not belong together, or a graph does not answer as its checkpoint.
        InputError, DataError: calibration texts or labels of another kind than the tiers'.
    """
    options = options or ExportOptions()
    progress(STEPS[0])
    _check_output(Path(output), overwrite=overwrite)
    task = task_of(tier2)
    calibration = calibration or Calibration([task.split(text) for text in SAMPLES])
    model, first = load_tier2(tier2, task=task), load_tier1(tier1, task=task)
    labels = common_labels(model, first)
    tokenizer_text = common_tokenizer(tier2, tier1)
    packed = pack(model)
    max_length = _max_length(options.max_length, packed.max_length)
    length1 = min(max_length, first.max_length)
    sample = encode(
        calibration,
        task,
        tokenizer_text,
        labels,
        max_length=length1 if task.tags else max_length,  # of sentences both tiers read the same rows
        multi_label=first.problem_type == "multi_label_classification",
    )

    progress(STEPS[1])
    graphs = export_tier2(packed)
    reference = chain_logits(graphs, sample.units)
    stage_files = [f"tier2/stage_{number:02d}.onnx" for number in range(len(packed.layers))]
    verified2 = check_tier2(stage_files, model, graphs, sample, reference)
    progress(STEPS[2])
    graph1 = export_tier1(first)
    reference1 = padded_logits(graph1, sample.units, max_length=length1)
    verified1 = check_tier1(TIER1_FP32, first, sample, reference1, max_length=length1)

    progress(STEPS[3])
    second_tier = _tier2(packed, graphs, reference, sample, stage_files, verified2, max_length, options)
    progress(STEPS[4])
    first_tier = _tier1(first, graph1, reference1, sample, verified1, length1, options)

    progress(STEPS[5])
    manifest = Manifest(
        task=task.name,
        problem_type=first.problem_type,
        labels=labels,
        tier1=first_tier.spec,
        tier2=second_tier.spec,
        router=routing.to_json(options.router),
        exit_policy=exits.to_json(options.exit_policy or task.exit_policy),
        windows=windows.to_json(options.windows) if task.tags else None,
        library_version=__version__,
        figures={
            "calibration": calibration.described(task),
            "int8": options.int8.value,
            "smoothed": {"tier1": first_tier.smoothed, "tier2": second_tier.smoothed},
            "tier1": first_tier.figures[0],
            "tier2": second_tier.figures,
        },
    )
    files = first_tier.files | second_tier.files | small_files(tier2, first, model, tokenizer_text, max_length)
    files["README.md"] = model_card(
        manifest,
        name=options.card.name or Path(output).resolve().name,
        license=options.card.license,
        data=options.card.data,
        sizes={path: len(content) for path, content in files.items()},
    ).encode()
    return write_bundle(output, files, manifest, overwrite=overwrite)


@dataclass(eq=False)
class _Finished:
    """What a tier puts into a bundle: its manifest entry, its files, figures of each exit; whether it was smoothed."""

    spec: Any
    files: dict[str, bytes]
    smoothed: bool
    figures: list[dict[str, Any]] = field(default_factory=list)


def _tier2(
    packed: PackedModel,
    graphs: TierTwoGraphs,
    reference: FloatArray,
    sample: Sample,
    stage_files: list[str],
    verified: list[float],
    max_length: int,
    options: ExportOptions,
) -> _Finished:
    small = quantise_tier2(
        graphs,
        sample.units,
        reference,
        int8=options.int8,
        bar=options.agreement,
        multi_label=sample.multi_label,
    )
    logits = chain_logits(small.graphs, sample.units)
    stages = tuple(
        StageSpec(file, layer, sample.temperature(logits[:, exit_index]), small.precisions[exit_index])
        for exit_index, (file, layer) in enumerate(zip(stage_files, packed.layers, strict=True))
    )
    spec = TierTwoSpec(
        embed=EMBED,
        stages=stages,
        labels=tuple(sample.labels),
        width=packed.width,
        heads=packed.heads,
        max_length=max_length,
        position_offset=packed.position_offset,
    )
    files = {EMBED: small.graphs.embed.SerializeToString()}
    files |= {file: graph.SerializeToString() for file, graph in zip(stage_files, small.graphs.stages, strict=True)}
    figures = [
        {"layer": stage.layer} | _figures(stage.precision, verified[i], sample, logits[:, i], reference[:, i])
        for i, stage in enumerate(stages)
    ]
    return _Finished(spec, files, small.smoothed, figures)


def _tier1(
    first: TierOne,
    graph: onnx.ModelProto,
    reference: FloatArray,
    sample: Sample,
    verified: float,
    max_length: int,
    options: ExportOptions,
) -> _Finished:
    files = {TIER1_FP32: graph.SerializeToString()}
    file, precision, logits, smoothed = TIER1_FP32, "fp32", reference, False
    if options.int8 is not Int8.NONE:
        small = quantise_tier1(
            graph,
            sample.units,
            reference,
            int8=options.int8,
            bar=options.agreement,
            max_length=max_length,
            multi_label=sample.multi_label,
        )
        if small.accepted:
            file, precision, logits, smoothed = TIER1_INT8, "int8", small.logits, small.smoothed
            files = (files if options.fp32 else {}) | {TIER1_INT8: small.model.SerializeToString()}
    spec = TierOneSpec(file, first.kind, tuple(sample.labels), max_length, sample.temperature(logits), precision)
    return _Finished(spec, files, smoothed, [_figures(precision, verified, sample, logits, reference)])


def _figures(
    precision: str, verified: float, sample: Sample, logits: FloatArray, reference: FloatArray
) -> dict[str, Any]:
    measured = sample.figures(logits, reference)
    return {"precision": precision, "verified_within": float(f"{verified:.1e}"), **measured}


def _check_output(output: Path, *, overwrite: bool) -> None:
    """Minutes of work must not end in a refusal that could come first."""
    if output.is_file() or (output.is_dir() and any(output.iterdir()) and not overwrite):
        raise OptionError(f"the output must be a new or empty folder, was: {output}; choose another or overwrite")


def _max_length(wanted: int | None, possible: int) -> int:
    if wanted is None:
        return min(possible, DEFAULT_MAX_LENGTH)
    if not 0 < wanted <= possible:
        raise OptionError(f"max_length must be in [1, {possible}], the positions of tier 2, was: {wanted}")
    return wanted

"""Two checkpoints in, one bundle out: exported, quantised, verified, calibrated, and only then written.

A classifier or a tagger, as the second tier's `config.json` says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx

import cascade
from cascade.bundle.manifest import Manifest, StageSpec, TierOneSpec, TierTwoSpec
from cascade.bundle.opening import Bundle
from cascade.bundle.writing import write_bundle
from cascade.core.rows import FloatArray
from cascade.exceptions import OptionError
from cascade.policies import exits, routing, windows
from cascade.policies.exits import MaxProbability
from cascade.policies.unit_exits import TokenExit
from cascade.training.models.backbone import TAGGING
from cascade_export.card import model_card
from cascade_export.checkpoints import common_labels, common_tokenizer, load_tier2, small_files, task_of
from cascade_export.int8.calibrate import quantise_tier1, quantise_tier2
from cascade_export.int8.precision import Int8
from cascade_export.options import ExportOptions
from cascade_export.packed.chain import chain_logits, padded_logits, units
from cascade_export.packed.graphs import TierTwoGraphs, export_tier2
from cascade_export.packed.stages import PackedModel, pack
from cascade_export.tag_texts import TagCalibration, encode_sentences, split
from cascade_export.texts import Calibration, Rows, encode
from cascade_export.tier1 import TierOne, export_tier1, load_tier1
from cascade_export.verify import SAMPLES, check, check_tier2, torch_tier1

__all__ = ["STEPS", "export_bundle"]

STEPS = ("read the checkpoints", "export tier 2", "export tier 1", "quantise tier 2", "quantise tier 1", "write")
TIER1_FP32, TIER1_INT8, EMBED = "onnx/model.onnx", "onnx/model_quantized.onnx", "tier2/embed.onnx"
DEFAULT_MAX_LENGTH = 512


def export_bundle(
    tier2: str | Path,
    tier1: str | Path,
    output: str | Path,
    *,
    calibration: Calibration | TagCalibration | None = None,
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
        calibration: texts, and labels where there are some; of a tagger, sentences and tags. Without, ranges come from
            `verify.SAMPLES`, temperatures stay 1.
        options: see there.
        overwrite: whether a bundle that is there is replaced.
        progress: called with the name of each of `STEPS` when it begins.

    Raises:
        OptionError: a checkpoint that cannot be read, an option that does not fit it, an output that is taken.
        BundleError: the tiers do not belong together, or a graph does not answer as its checkpoint.
    """
    options = options or ExportOptions()
    progress(STEPS[0])
    _check_output(Path(output), overwrite=overwrite)
    task = task_of(tier2)
    calibration = _fitting(calibration, task)
    model, first = load_tier2(tier2), load_tier1(tier1, task=task)
    labels = common_labels(model, first)
    tokenizer_text = common_tokenizer(tier2, tier1)
    packed = pack(model)
    max_length = _max_length(options.max_length, packed.max_length)
    length1 = min(max_length, first.max_length)
    rows: Rows
    if isinstance(calibration, TagCalibration):
        rows = encode_sentences(calibration, tokenizer_text, labels, max_length=length1)  # whole for both tiers
    else:
        multi_label = first.problem_type == "multi_label_classification"
        rows = encode(calibration, tokenizer_text, labels, max_length=max_length, multi_label=multi_label)

    progress(STEPS[1])
    graphs = export_tier2(packed)
    reference = chain_logits(graphs, rows.batch, position_offset=packed.position_offset)
    stages = [_stage_file(i) for i in range(len(graphs.stages))]
    verified2 = check_tier2(
        graphs, model, rows.batch, rows.verified, reference, names=stages, position_offset=packed.position_offset
    )
    progress(STEPS[2])
    graph1 = export_tier1(first)
    reference1 = padded_logits(graph1, rows.batch, max_length=length1)
    expected1 = torch_tier1(first.model, rows.batch.select(rows.verified), max_length=length1)
    verified1 = check(TIER1_FP32, reference1[units(rows.batch, rows.verified)], expected1)

    progress(STEPS[3])
    quantised = quantise_tier2(
        graphs,
        rows.batch,
        reference,
        int8=options.int8,
        bar=options.agreement,
        position_offset=packed.position_offset,
        multi_label=rows.multi_label,
    )
    logits = chain_logits(quantised.graphs, rows.batch, position_offset=packed.position_offset)
    spec2 = _tier2_spec(packed, labels, max_length, quantised.precisions, [rows.temperature(x) for x in _exits(logits)])
    figures2 = [
        {
            "layer": stage.layer,
            "precision": stage.precision,
            "verified_within": float(f"{verified2[i]:.1e}"),
            **rows.figures(logits[:, i], reference[:, i]),
        }
        for i, stage in enumerate(spec2.stages)
    ]
    progress(STEPS[4])
    spec1, files1, logits1, smoothed1 = _finish_tier1(first, graph1, reference1, rows, length1, labels, options)
    figures1 = {"precision": spec1.precision, "verified_within": float(f"{verified1:.1e}")}
    figures1 |= rows.figures(logits1, reference1)

    progress(STEPS[5])
    manifest = Manifest(
        task=task,
        problem_type=first.problem_type,
        labels=labels,
        tier1=spec1,
        tier2=spec2,
        router=routing.to_json(options.router),
        exit_policy=exits.to_json(options.exit_policy or (TokenExit(0.05) if task == TAGGING else MaxProbability(0.9))),
        windows=windows.to_json(options.windows) if task == TAGGING else None,
        library_version=cascade.__version__,
        figures={
            "calibration": _described(calibration),
            "int8": options.int8.value,
            "smoothed": {"tier1": smoothed1, "tier2": quantised.smoothed},
            "tier1": figures1,
            "tier2": figures2,
        },
    )
    files = files1 | _tier2_files(quantised.graphs)
    files |= small_files(tier2, first, model, tokenizer_text, max_length)
    files["README.md"] = model_card(
        manifest,
        name=options.card.name or Path(output).resolve().name,
        license=options.card.license,
        data=options.card.data,
        sizes={path: len(content) for path, content in files.items()},
    ).encode()
    return write_bundle(output, files, manifest, overwrite=overwrite)


def _check_output(output: Path, *, overwrite: bool) -> None:
    """Minutes of work must not end in a refusal that could come first."""
    if output.is_file() or (output.is_dir() and any(output.iterdir()) and not overwrite):
        raise OptionError(f"the output must be a new or empty folder, was: {output}; choose another or overwrite")


def _fitting(calibration: Calibration | TagCalibration | None, task: str) -> Calibration | TagCalibration:
    wanted = TagCalibration if task == TAGGING else Calibration
    if calibration is None:
        return TagCalibration(split(SAMPLES)) if task == TAGGING else Calibration(SAMPLES)
    if not isinstance(calibration, wanted):
        raise OptionError(
            f"calibration for {task} must be a {wanted.__name__}, was: {type(calibration).__name__}; "
            f"give {'sentences as lists of words, with tags' if task == TAGGING else 'texts with labels'}"
        )
    return calibration


def _described(calibration: Calibration | TagCalibration) -> dict[str, Any]:
    if isinstance(calibration, Calibration):
        labelled = calibration.labels is not None
        return {
            "source": calibration.source,
            "sha256": calibration.sha256,
            "texts": len(calibration.texts),
            "labelled": labelled,
        }
    return {
        "source": calibration.source,
        "sha256": calibration.sha256,
        "texts": len(calibration.sentences),
        "words": sum(map(len, calibration.sentences)),
        "labelled": calibration.tags is not None,
    }


def _max_length(wanted: int | None, possible: int) -> int:
    if wanted is None:
        return min(possible, DEFAULT_MAX_LENGTH)
    if not 0 < wanted <= possible:
        raise OptionError(f"max_length must be in [1, {possible}], the positions of tier 2, was: {wanted}")
    return wanted


def _exits(logits: FloatArray) -> list[FloatArray]:
    return [logits[:, i] for i in range(logits.shape[1])]


def _tier2_spec(
    packed: PackedModel,
    labels: tuple[str, ...],
    max_length: int,
    precisions: Sequence[str],
    temperatures: Sequence[float],
) -> TierTwoSpec:
    stages = tuple(
        StageSpec(file=_stage_file(i), layer=layer, temperature=temperatures[i], precision=precisions[i])
        for i, layer in enumerate(packed.layers)
    )
    return TierTwoSpec(
        embed=EMBED,
        stages=stages,
        labels=labels,
        width=packed.width,
        heads=packed.heads,
        max_length=max_length,
        position_offset=packed.position_offset,
    )


def _finish_tier1(
    first: TierOne,
    graph: onnx.ModelProto,
    reference: FloatArray,
    rows: Rows,
    max_length: int,
    labels: tuple[str, ...],
    options: ExportOptions,
) -> tuple[TierOneSpec, dict[str, bytes], FloatArray, bool]:
    """Tier 1's manifest entry, its files, the logits of the one that the engine runs, whether it was smoothed."""
    files = {TIER1_FP32: graph.SerializeToString()}
    used, precision, logits, smoothed = TIER1_FP32, "fp32", reference, False
    if options.int8 is not Int8.NONE:
        small = quantise_tier1(
            graph,
            rows.batch,
            reference,
            int8=options.int8,
            bar=options.agreement,
            max_length=max_length,
            multi_label=rows.multi_label,
        )
        if small.accepted:
            files[TIER1_INT8] = small.model.SerializeToString()
            used, precision, logits, smoothed = TIER1_INT8, "int8", small.logits, small.smoothed
            if not options.fp32:
                del files[TIER1_FP32]
    spec = TierOneSpec(
        file=used,
        kind=first.kind,
        labels=labels,
        max_length=max_length,
        temperature=rows.temperature(logits),
        precision=precision,
    )
    return spec, files, logits, smoothed


def _stage_file(number: int) -> str:
    return f"tier2/stage_{number:02d}.onnx"


def _tier2_files(graphs: TierTwoGraphs) -> dict[str, bytes]:
    files = {EMBED: graphs.embed.SerializeToString()}
    return files | {_stage_file(i): stage.SerializeToString() for i, stage in enumerate(graphs.stages)}

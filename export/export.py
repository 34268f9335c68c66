"""Two checkpoints in, one bundle out: exported, quantised, verified, calibrated, and only then written.

A classifier or a tagger, as the second tier's `config.json` says.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cascade._version import __version__
from cascade.bundle.manifest import Manifest
from cascade.bundle.opening import Bundle
from cascade.bundle.tiers import MultiExitSpec, SingleExitSpec, StageSpec
from cascade.bundle.writing import write_bundle
from cascade.exceptions import OptionError
from cascade.policies.decoding import argmax
from cascade.policies.exits import never
from cascade.policies.settings import Policies
from cascade.policies.windows import Windows
from cascade.training.models import families
from cascade_export import checkpoints
from cascade_export.card import model_card
from cascade_export.int8.calibrate import quantise_tier1, quantise_tier2
from cascade_export.options import ExportOptions
from cascade_export.packed.chain import chain_logits, padded_logits
from cascade_export.packed.graphs import export_tier2
from cascade_export.packed.stages import pack
from cascade_export.texts import Calibration, encode
from cascade_export.tier1 import export_tier1
from cascade_export.verify import SAMPLES, check_tier1, check_tier2

STEPS = ("read the checkpoints", "export tier 2", "export tier 1", "quantise tier 2", "quantise tier 1", "write")
TIER1 = {"fp32": "onnx/model.onnx", "int8": "onnx/model_quantized.onnx"}
EMBED = "tier2/embed.onnx"
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
    task = checkpoints.task_of(tier2)
    calibration = calibration or Calibration([task.split(text) for text in SAMPLES])
    model, first = checkpoints.load_tier2(tier2, task=task), checkpoints.load_tier1(tier1, task=task)
    labels, problem_type = checkpoints.common_labels(model, first)
    tokenizer_text = checkpoints.common_tokenizer(tier2, tier1)
    packed = pack(model)
    max_length = _max_length(options.max_length, packed.max_length)
    length1 = min(max_length, families.max_length(first.config))
    sample = encode(
        calibration,
        task,
        tokenizer_text,
        labels,
        max_length=length1 if task.tags else max_length,  # of sentences both tiers read the same rows
        multi_label=problem_type == "multi_label_classification",
    )

    progress(STEPS[1])
    graphs = export_tier2(packed)
    reference2 = chain_logits(graphs, sample.units)
    stage_files = [f"tier2/stage_{number:02d}.onnx" for number in range(len(packed.layers))]
    verified2 = check_tier2(stage_files, model, graphs, sample, reference2)
    progress(STEPS[2])
    graph1 = export_tier1(first, task)
    reference1 = padded_logits(graph1, sample.units, max_length=length1)
    verified1 = check_tier1(TIER1["fp32"], first, sample, reference1, max_length=length1)

    progress(STEPS[3])
    second_tier = quantise_tier2(graphs, reference2, sample, options)
    progress(STEPS[4])
    first_tier = quantise_tier1(graph1, reference1, sample, options, max_length=length1)

    progress(STEPS[5])
    static = isinstance(first, task.static)
    (precision1,) = first_tier.precisions
    models = {TIER1["fp32"]: graph1} if options.fp32 else {}
    models |= {TIER1[precision1]: first_tier.graphs, EMBED: second_tier.graphs.embed}
    models |= dict(zip(stage_files, second_tier.graphs.stages, strict=True))
    by_exit = [(second_tier.logits[:, i], reference2[:, i]) for i in range(len(packed.layers))]
    manifest = Manifest(
        task=task.name,
        problem_type=problem_type,
        labels=labels,
        tiers=(
            SingleExitSpec(TIER1[precision1], length1, "static" if static else "transformer", precision1),
            MultiExitSpec(
                embed=EMBED,
                stages=tuple(map(StageSpec, stage_files, packed.layers, second_tier.precisions)),
                width=packed.width,
                heads=packed.heads,
                max_length=max_length,
                position_offset=packed.position_offset,
            ),
        ),
        policies=Policies(
            routers=(options.router,),
            exits=(never, options.exit_policy or task.exit_policy),
            temperatures=(
                (sample.temperature(first_tier.logits),),
                tuple(sample.temperature(logits) for logits, _ in by_exit),
            ),
            windows=Windows() if task.tags else None,
            decoding=argmax if task.tags else None,
        ),
        library_version=__version__,
        figures={
            "calibration": calibration.described(task),
            "int8": options.int8.value,
            "smoothed": {"tier1": first_tier.smoothed, "tier2": second_tier.smoothed},
            "tier1": _form(precision1, verified1) | sample.figures(first_tier.logits, reference1),
            "tier2": [
                {"layer": layer} | _form(precision, verified) | sample.figures(*logits)
                for layer, precision, verified, logits in zip(
                    packed.layers, second_tier.precisions, verified2, by_exit, strict=True
                )
            ],
        },
    )
    files = {path: graph.SerializeToString() for path, graph in models.items()}
    files |= checkpoints.small_files(tier2, model if static else first, tokenizer_text, max_length)
    files["README.md"] = model_card(
        manifest,
        name=options.card.name or Path(output).resolve().name,
        license=options.card.license,
        data=options.card.data,
        sizes={path: len(content) for path, content in files.items()},
    ).encode()
    return write_bundle(output, files, manifest, overwrite=overwrite)


def _form(precision: str, verified: float) -> dict[str, Any]:
    return {"precision": precision, "verified_within": float(f"{verified:.1e}")}


def _check_output(output: Path, *, overwrite: bool) -> None:
    """Minutes of work must not end in a refusal that could come first."""
    if output.is_file() or (output.is_dir() and any(output.iterdir()) and not overwrite):
        raise OptionError(f"the output must be a new or empty folder, got {output}; choose another or overwrite")


def _max_length(wanted: int | None, possible: int) -> int:
    if wanted is None:
        return min(possible, DEFAULT_MAX_LENGTH)
    if not 0 < wanted <= possible:
        raise OptionError(f"max_length must be in [1, {possible}], the positions of tier 2, got {wanted}")
    return wanted

"""The model card of a bundle: README.md with what was measured while exporting. Plain text from a manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cascade.bundle.manifest import TAGGING, Manifest

MANY_LABELS = 20


def model_card(
    manifest: Manifest,
    *,
    name: str,
    license: str | None,  # noqa: A002  # the card's own word
    data: str | None,
    sizes: Mapping[str, int],
) -> str:
    """Write the card of a bundle whose manifest is complete but for its files.

    `license` is an SPDX identifier, `data` what the model was trained on, `sizes` bytes of each file by path.
    """
    head = ["---", "library_name: cascade", f"pipeline_tag: {manifest.task}"]
    head += [f"license: {license.lower()}"] if license else []
    head += ["tags: [cascade, early-exit, onnx]", "---"]
    tier1, tier2, figures = manifest.tier1, manifest.tier2, manifest.figures
    shown = ", ".join(f"`{label}`" for label in manifest.labels[:MANY_LABELS])
    more = f" and {len(manifest.labels) - MANY_LABELS} more" if len(manifest.labels) > MANY_LABELS else ""
    layers = ", ".join(str(stage.layer) for stage in tier2.stages)
    tier2_size = sum(size for path, size in sizes.items() if path.startswith("tier2/"))
    tagging = manifest.task == TAGGING
    pipeline = "Tagger" if tagging else "Classifier"
    unit, whole = ("words", "sentences") if tagging else ("texts", "texts")
    body = [
        f"# {name}",
        "",
        "A bundle for the Python package `cascade-encoder`: a small first tier answers what it is sure of, a second",
        "tier with exits between its layers answers the rest. Runs on CPUs with ONNX Runtime.",
        "",
        "```python",
        f"from cascade import {pipeline}",
        "",
        f'{pipeline.lower()} = {pipeline}.from_pretrained("{name}")  # this folder, or its Hub id',
        'tagger.predict([["pre", "split", "words"]]).tags' if tagging else 'classifier(["a text", "another text"])',
        "```",
        "",
        f"- **Labels** ({len(manifest.labels)}): {shown}{more}",
        f"- **Tier 1**: {tier1.model}, {tier1.precision}, `{tier1.file}`, {_size(sizes[tier1.file])}",
        f"- **Tier 2**: exits after layers {layers} of width {tier2.width}, {_size(tier2_size)}",
        f"- **Longest row**: {tier2.max_length} tokens; longer {whole} are read in windows",
        f"- **Trained on**: {data or 'not stated'}",
        f"- **Licence of the weights**: {license or 'not stated'}",
        "",
        "## Figures",
        "",
        f"Measured while exporting on {figures['calibration'][unit]} {unit} ({figures['calibration']['source']}).",
        f"Agreement is the share of {unit} on which the shipped form answers as the fp32 checkpoint.",
        "",
        *_table(figures),
        "",
    ]
    return "\n".join([*head, "", *body])


def _table(figures: Mapping[str, Any]) -> list[str]:
    rows = [("tier 1", figures["tier1"])]
    rows += [(f"tier 2, exit after layer {exit_['layer']}", exit_) for exit_ in figures["tier2"]]
    columns = {"precision": "precision", "agreement": "agreement", "max_difference": "largest difference of a logit"}
    columns |= {"accuracy": "accuracy", "accuracy_fp32": "accuracy fp32", "f1": "F1 of entities", "f1_fp32": "F1 fp32"}
    columns = {key: title for key, title in columns.items() if key in figures["tier1"]}
    shown = {"precision": "{}", "max_difference": "{:.3f}"}
    lines = [f"| | {' | '.join(columns.values())} |", f"|---{'|---' * len(columns)}|"]
    for name, row in rows:
        lines.append(f"| {name} | {' | '.join(shown.get(key, '{:.1%}').format(row[key]) for key in columns)} |")
    return lines


def _size(size: int) -> str:
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{max(size // 1024, 1)} KiB"

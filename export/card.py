"""The model card of a bundle: README.md with what was measured while exporting. Plain text from a manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cascade.bundle.manifest import TAGGING, Manifest
from cascade.bundle.tiers import SingleExitSpec, TierSpec
from cascade.cli.show import size
from cascade.core.labels import listed

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
    figures = manifest.figures
    labels = listed([f"`{label}`" for label in manifest.labels], MANY_LABELS)
    tagging = manifest.task == TAGGING
    pipeline = "Tagger" if tagging else "Classifier"
    unit, whole = ("words", "sentences") if tagging else ("texts", "texts")
    long = "cut, as transformers cuts them" if manifest.truncation and not tagging else "read in windows"
    body = [
        f"# {name}",
        "",
        f"A bundle for the Python package `cascade-encoder`, of {len(manifest.tiers)} tier(s).",
        "Runs on CPUs with ONNX Runtime.",
        "",
        "```python",
        f"from cascade import {pipeline}",
        "",
        f'{pipeline.lower()} = {pipeline}.from_pretrained("{name}")  # this folder, or its Hub id',
        'tagger.predict([["pre", "split", "words"]]).tags' if tagging else 'classifier(["a text", "another text"])',
        "```",
        "",
        f"- **Labels** ({len(manifest.labels)}): {labels}",
        *(_tier(number, tier, sizes) for number, tier in enumerate(manifest.tiers, 1)),
        f"- **Longest row**: {manifest.tiers[-1].max_length} tokens; longer {whole} are {long}",
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


def parts_of(figures: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The figures of each tier, of a tier with exits of each exit, with what they are about."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    for number in range(1, 1 + sum(name.startswith("tier") for name in figures)):
        own = figures[f"tier{number}"]
        exits = own if isinstance(own, list) else [own]
        found += [(f"tier {number}" + (f", layer {row['layer']}" if "layer" in row else ""), row) for row in exits]
    return found


def _tier(number: int, tier: TierSpec, sizes: Mapping[str, int]) -> str:
    shown = size(sum(sizes[path] for path in tier.graphs))
    if isinstance(tier, SingleExitSpec):
        return f"- **Tier {number}**: {tier.model}, {tier.precision}, `{tier.file}`, {shown}"
    return f"- **Tier {number}**: exits after layers {', '.join(map(str, tier.layers))} of width {tier.width}, {shown}"


def _table(figures: Mapping[str, Any]) -> list[str]:
    rows = parts_of(figures)
    columns = {"precision": "precision", "agreement": "agreement", "max_difference": "largest difference of a logit"}
    columns |= {"accuracy": "accuracy", "accuracy_fp32": "accuracy fp32", "f1": "F1 of entities", "f1_fp32": "F1 fp32"}
    columns |= {"r2": "R squared", "r2_fp32": "R squared fp32"}
    columns = {key: title for key, title in columns.items() if all(key in row for _, row in rows)}
    shown = {"precision": "{}", "max_difference": "{:.3f}"}
    lines = [f"| | {' | '.join(columns.values())} |", f"|---{'|---' * len(columns)}|"]
    for name, row in rows:
        lines.append(f"| {name} | {' | '.join(shown.get(key, '{:.1%}').format(row[key]) for key in columns)} |")
    return lines

"""One or two checkpoints in, one bundle out: exported, quantised, verified, calibrated, and only then written.

A classifier or a tagger, as the last tier's `config.json` says. Tiers of a finished bundle may go in front of a tier
that is new: a cascade of any number, one export at a time. The model card tells what was measured on the way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import tokenizers

from cascade._version import __version__
from cascade.bundle.manifest import TAGGING, Manifest
from cascade.bundle.opening import Bundle, open_bundle
from cascade.bundle.tiers import TOKENIZER_FILE, SingleExitSpec, TierSpec
from cascade.bundle.writing import write_bundle
from cascade.cli.demo.command import sentences
from cascade.cli.show import size
from cascade.core.files import check_new_folder
from cascade.core.labels import listed
from cascade.exceptions import BundleError, OptionError
from cascade.policies.decoding import argmax
from cascade.policies.exits import never
from cascade.policies.registry import ModelInfo
from cascade.policies.routing import Router, Threshold, defer_all
from cascade.policies.settings import Policies
from cascade.policies.windows import Windows
from cascade.text.tokenizer import Tokenizer
from cascade.training.models import families
from cascade_export import ExportOptions, checkpoints
from cascade_export.texts import Calibration, encode
from cascade_export.tiers import make_tier

ALIKE = ("task", "problem_type", "labels", "truncation", "encode_special_tokens")


def behind(
    bundle: Bundle, manifest: Manifest, files: Mapping[str, bytes | Path], tokenizer: str, router: Router
) -> tuple[Manifest, dict[str, bytes | Path]]:
    """The tiers of a bundle, and behind them those of a manifest, with the files of both.

    Args:
        bundle: its tiers keep graphs, tokenizer, policies and figures.
        manifest: of the new tier, whose number, and so whose paths, come after the bundle's.
        files: of the new tier.
        tokenizer: text of its `tokenizer.json`, which the bundle's tiers share if it is theirs.
        router: what the bundle's last tier defers.

    A `BundleError`: they are not for the same task and labels, or read texts in another way.
    """
    for name in ALIKE:
        given, new = getattr(bundle.manifest, name), getattr(manifest, name)
        if given != new:
            told = f"the new one has {new}, {bundle.folder} has {given}; export both alike"
            raise BundleError(f"all tiers must have the same {name}, {told}")
    placed: dict[str, bytes | Path] = {}
    tiers = []
    for tier in bundle.manifest.tiers:
        placed |= {path: bundle.path(path) for path in tier.graphs}
        same = json.loads(bundle.read(tier.tokenizer)) == json.loads(tokenizer)
        where = TOKENIZER_FILE if same else f"before/{tier.tokenizer.removeprefix('before/')}"
        placed |= {} if same else {where: bundle.path(tier.tokenizer)}
        tiers.append(replace(tier, tokenizer=where))
    under, own = bundle.manifest.policies, manifest.policies
    policies = replace(
        own,
        routers=(*under.routers, router, *own.routers),
        exits=under.exits + own.exits,
        temperatures=under.temperatures + own.temperatures,
        blend=(*under.blend, 0.0, *own.blend),
    )
    figures = {name: row for name, row in bundle.manifest.figures.items() if name.startswith("tier")}
    merged = replace(
        manifest, tiers=(*tiers, *manifest.tiers), policies=policies, figures={**figures, **manifest.figures}
    )
    return merged, placed | dict(files)


DEFAULT_MAX_LENGTH = 512
WORDS = re.compile(r"\w+|[^\w\s]")
SAMPLED = 11  # one in so many sentences of the demo stands in for texts of the user's
FIRST_TIER = 0.98  # at most is asked of a first tier's int8, however much of the last: what it answers is certified


def export_bundle(
    tier2: str | Path,
    tier1: str | Path | None,
    output: str | Path,
    *,
    calibration: Calibration | None = None,
    options: ExportOptions | None = None,
    before: str | Path | None = None,
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda _step: None,
) -> Bundle:
    """Make a bundle of two checkpoints, or of one.

    Args:
        tier2: folder (or Hub id) of the model that decides last: a multi-exit one, as `cascade-train exits` writes it,
            or any fine-tuned classifier (token classifier) that transformers reads, which becomes a tier without exits.
        tier1: folder of a first tier, as `cascade-train first-tier` writes it, or of any classifier (for a tagger:
            any token classifier) that transformers reads, with the same labels and the same tokenizer. None: the bundle
            has one tier, `tier2`.
        output: folder of the bundle.
        calibration: texts, and labels where there are some; for a tagger sentences and tags. Without, ranges come from
            some of the demo's. Labels give tier 1 and all exits but the last temperatures, which are 1 without.
        options: see there.
        before: a bundle whose tiers go in front, with policies of their own and any tokenizer; with `tier1` None.
        overwrite: whether a bundle that is there is replaced.
        progress: called with the name of each step when it begins.

    Raises:
        OptionError: a checkpoint that cannot be read, an option that does not fit it, an output that is taken.
        BundleError: the tiers do not belong together, or a graph does not answer as its checkpoint.
        InputError, DataError: calibration texts or labels of another kind than the tiers'.
    """
    options = options or ExportOptions()
    lower = None if before is None else open_bundle(before)
    if lower is not None and tier1 is not None:
        raise OptionError(f"before must be left out with tier1, got {before} and {tier1}; put tier1 into that bundle")
    count = 1 if tier1 is None else 2
    progress("read the checkpoints")
    check_new_folder(Path(output), overwrite=overwrite)
    task = checkpoints.task_of(tier2)
    inputs = None if calibration is None or task.tags else calibration.inputs
    if calibration is None:
        own = [text for name in ("sentiment", "intents") for text in sentences(name)[0][::SAMPLED]]
        calibration = Calibration(list(map(WORDS.findall if task.tags else str, own)))
    model = checkpoints.load_tier(tier2, task)
    first = None if tier1 is None else checkpoints.load_tier(tier1, task, number=1)
    labels, problem_type = checkpoints.common_labels(model, first)
    tokenizer_text = checkpoints.common_tokenizer(tier2, tier1)
    exits = tuple(model.layers) if isinstance(model, task.model) else ()
    if exits and options.optimum:
        raise OptionError("exporter must be torch for a checkpoint with exits, got optimum; give a fine-tuned model")
    max_length = _max_length(options.max_length, families.max_length(model.config))
    length1 = max_length if first is None else min(max_length, families.max_length(first.config))
    several = problem_type == "multi_label_classification"
    tokenizer = Tokenizer(
        tokenizers.Tokenizer.from_str(tokenizer_text),
        max_length=length1 if task.tags else max_length,  # of sentences all tiers read the same rows
        encode_special_tokens=options.encode_special_tokens,
    )
    sample = encode(calibration, task, tokenizer.with_truncation(options.truncation), labels, multi_label=several)
    layers = [()] * (count - 1) + [exits]
    router = options.router or (defer_all if sample.regression else Threshold(0.9))
    early_exits = options.exit_policy or (never if sample.regression else task.exit_policy)
    policies = Policies(
        routers=(router,) * (count - 1),
        exits=tuple(early_exits if own else never for own in layers),
        temperatures=tuple((1.0,) * max(len(own), 1) for own in layers),
        windows=Windows() if task.tags else None,
        decoding=argmax if task.tags else None,
    )
    policies.check([ModelInfo(labels, own, task.tags, several) for own in layers])  # before minutes of work

    last_number = count if lower is None else 1 + len(lower.manifest.tiers)
    tiers = [make_tier(model, task, sample, options, number=last_number, max_length=max_length, progress=progress)]
    if first is not None:
        loose = replace(options, agreement=min(options.agreement, FIRST_TIER), by_sentence=False)
        tiers.insert(0, make_tier(first, task, sample, loose, number=1, max_length=length1, progress=progress))

    progress("write")
    numbered = [*enumerate(tiers, last_number - count + 1)]
    *others, (*early, last) = (tier.temperatures for tier in tiers)
    manifest = Manifest(
        task=task.model.task,
        problem_type=problem_type,
        labels=labels,
        tiers=tuple(tier.spec for tier in tiers),
        policies=replace(policies, temperatures=(*others, (*early, last if options.temper_full_depth else 1.0))),
        library_version=__version__,
        truncation=options.truncation,
        encode_special_tokens=options.encode_special_tokens,
        inputs=inputs,
        figures={
            "calibration": calibration.described(task),
            "int8": "static" if options.int8 else "none",
            "smoothed": {f"tier{number}": tier.smoothed for number, tier in numbered},
            **{f"tier{number}": tier.figures for number, tier in numbered},
        },
    )
    files: dict[str, bytes | Path] = {
        path: graph.SerializeToString() for tier in tiers for path, graph in tier.graphs.items()
    }
    known = model if first is None or isinstance(first, task.student.model) else first
    settings: dict[str, object] = {"model_max_length": max_length}
    settings |= {"split_special_tokens": True} if options.encode_special_tokens else {}
    files |= checkpoints.small_files(tier2, known, tokenizer_text, settings)
    if lower is not None:
        manifest, files = behind(lower, manifest, files, tokenizer_text, router)
    sizes = {path: len(own) if isinstance(own, bytes) else own.stat().st_size for path, own in files.items()}
    files["README.md"] = model_card(manifest, options, name=Path(output).resolve().name, sizes=sizes).encode()
    return write_bundle(output, files, manifest, overwrite=overwrite)


def _max_length(wanted: int | None, possible: int) -> int:
    if wanted is None:
        return min(possible, DEFAULT_MAX_LENGTH)
    if not 0 < wanted <= possible:
        raise OptionError(f"max_length must be in [1, {possible}], the positions of tier 2, got {wanted}")
    return wanted


MANY_LABELS = 20


def model_card(manifest: Manifest, options: ExportOptions, *, name: str, sizes: Mapping[str, int]) -> str:
    """Write the card of a bundle whose manifest is complete but for its files.

    `name`: its title, unless the options say another; `sizes`: bytes of each file by path.
    """
    name, head = options.name or name, ["---", "library_name: cascade", f"pipeline_tag: {manifest.task}"]
    head += [f"license: {options.license.lower()}"] if options.license else []
    head += ["tags: [cascade, early-exit, onnx]", "---"]
    figures = manifest.figures
    labels = listed([f"`{label}`" for label in manifest.labels], MANY_LABELS)
    tagging = manifest.task == TAGGING
    pipeline = "Tagger" if tagging else "Classifier"
    unit, whole = ("words", "sentences") if tagging else ("texts", "texts")
    tiers = f"{len(manifest.tiers)} tier{'s' * (len(manifest.tiers) > 1)}"
    long = "cut, as transformers cuts them" if manifest.truncation and not tagging else "read in windows"
    body = [
        f"# {name}",
        "",
        f"A bundle for the Python package `cascade-encoder`, of {tiers}.",
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
        f"- **Trained on**: {options.data or 'not stated'}",
        f"- **Licence of the weights**: {options.license or 'not stated'}",
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
    if isinstance(tier, SingleExitSpec):
        said = f"{tier.model}, {tier.precision}, `{tier.file}`"
    else:
        said = f"exits after layers {', '.join(map(str, tier.layers))} of width {tier.width}"
    return f"- **Tier {number}**: {said}, {size(sum(sizes[path] for path in tier.graphs))}"


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

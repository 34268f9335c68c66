"""`cascade inspect`: what a bundle says about itself, as a table or as JSON. No graph is loaded."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import click

from cascade.bundle.certificate import Certificate
from cascade.bundle.manifest import TAGGING, Manifest
from cascade.bundle.opening import Bundle, open_bundle
from cascade.bundle.tiers import SingleExitSpec
from cascade.cli.show import clipped, pairs, policy_rows, size
from cascade.core.console import table
from cascade.core.labels import listed
from cascade.exceptions import printable
from cascade.pipelines.parts import slow_form
from cascade.pipelines.tuning import Tuned
from cascade.runtime.kernels import in_words
from cascade.runtime.threads import check_threads

WIDTH = 100


@click.command(short_help="Show what a bundle holds: tiers, stages, policies, certificate, figures.")
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="The whole manifest, the total size, the certificate's doubts.")
def inspect(model: str, as_json: bool) -> None:
    """Show what a bundle holds: tiers, stages, policies, figures, and what is certified of it.

    Every file is checked against its hash first.

    MODEL is a folder or a Hub id.

    \b
    Example:
      cascade inspect models/sentiment
      cascade inspect models/sentiment --json | python -m json.tool
    """
    bundle = open_bundle(model)
    if as_json:
        more = {"total_bytes": total_bytes(bundle), "certificate_doubts": bundle.manifest.doubts()}
        click.echo(json.dumps({**json.loads(bundle.manifest.to_json()), **more}))
    else:
        click.echo(described(model, bundle))


def total_bytes(bundle: Bundle) -> int:
    """Size of all files that the manifest lists."""
    return sum(record.bytes for record in bundle.manifest.files.values())


def described(name: str, bundle: Bundle) -> str:
    """The bundle in words and tables. `name`: what the user called it."""
    manifest = bundle.manifest
    tagging = manifest.task == TAGGING
    info = manifest.infos[0]
    each = "a number" if info.regression else "several labels at once" if info.multi_label else "one label each"
    certified = "none" if manifest.certificate is None else "not about this bundle" if manifest.doubts() else "yes"
    facts = [
        ("task", f"{manifest.task}, {'a tag for each word' if tagging else each}"),
        ("labels", f"{len(manifest.labels)}: {listed(manifest.labels)}"),
        *policy_rows(manifest.policies),
        *_reading(manifest),
        *_tuned(bundle),
        *([("on this CPU", told)] if (told := slow_form(manifest)) else []),
        ("int8 layers", in_words()),
        ("certificate", certified),
        ("written by", f"cascade {manifest.library_version}, format {manifest.format_version}"),
        ("total size", f"{size(total_bytes(bundle))} in {len(manifest.files)} files, hashes verified"),
    ]
    parts = [click.style(name, bold=True), "", pairs(facts), "", _tiers(manifest)]
    if manifest.certificate is not None:
        parts += ["", click.style("certificate", bold=True), *_certificate(manifest, manifest.certificate)]
    if manifest.figures:
        figures = [(key, clipped(value, WIDTH)) for key, value in _flat(manifest.figures)]
        parts += ["", click.style("figures", bold=True), pairs(figures)]
    return "\n".join(parts)


def _certificate(manifest: Manifest, certificate: Certificate) -> list[str]:
    """A paragraph for each sentence, first of all what makes the rest void."""
    doubts = manifest.doubts()
    sentences = certificate.described()
    if doubts:
        void = "It is not about this bundle, so nothing is claimed of it; calibrate again. What differs: "
        sentences = [f"{void}{'; '.join(doubts)}.", "What it said of another:", *sentences]
    return [textwrap.fill(printable(sentence), WIDTH, subsequent_indent="  ") for sentence in sentences]


def _reading(manifest: Manifest) -> list[tuple[str, str]]:
    """What is said of texts, where something is."""
    kinds, profile = {"text": "single texts", "pair": "pairs of texts"}, manifest.profile
    return [
        *([("trained on", kinds[manifest.inputs])] if manifest.inputs else []),
        *([("long texts", "cut, as transformers cuts them")] * manifest.truncation),
        *([("special tokens", "of a text are read as characters")] * manifest.encode_special_tokens),
        *([("profile", f"of {profile.texts} texts, for a monitor")] if profile else []),
    ]


def _tuned(bundle: Bundle) -> list[tuple[str, str]]:
    threads = check_threads(None)
    found = Tuned.read(bundle, threads=threads)
    told = "" if found is None else " and ".join(map(str, found.max_tokens))
    return [("batches", f"of {told} tokens, tuned on this host for {threads} threads")] if told else []


def _tiers(manifest: Manifest) -> str:
    rows, limits = [], []
    for number, (tier, temperatures) in enumerate(
        zip(manifest.tiers, manifest.policies.temperatures, strict=True), start=1
    ):
        limits.append(f"{tier.max_length} tokens in tier {number}")
        if isinstance(tier, SingleExitSpec):
            rows.append(_row(manifest, f"tier {number}", tier.model, tier.precision, temperatures[0], tier.file))
            continue
        rows.append(_row(manifest, f"tier {number}", "embed", "", None, tier.embed))
        before = 0
        for stage, temperature in zip(tier.stages, temperatures, strict=True):
            layers = f"layer {stage.layer}" if stage.layer == before + 1 else f"layers {before + 1}-{stage.layer}"
            rows.append(_row(manifest, "", layers, stage.precision, temperature, stage.file))
            before = stage.layer
    head = ["tier", "part", "precision", "temperature", "size", "file"]
    return table(head, rows, right=(3, 4)) + f"\ntexts of up to {', '.join(limits)}"


def _row(manifest: Manifest, tier: str, part: str, precision: str, temperature: float | None, file: str) -> list[str]:
    shown = "" if temperature is None else f"{temperature:.3f}"
    return [tier, *map(printable, (part, precision)), shown, size(manifest.files[file].bytes), file]


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Nested figures as `outer.inner` and a value in words."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        elif isinstance(value, float):
            yield f"{above}{key}", f"{value:.4g}"
        elif isinstance(value, list | tuple):
            yield f"{above}{key}", ", ".join(f"{item:.4g}" if isinstance(item, float) else str(item) for item in value)
        else:
            yield f"{above}{key}", str(value)

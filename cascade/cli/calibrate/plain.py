"""`cascade calibrate` without a guarantee: the cheapest thresholds within a drop. Needs the extra."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from cascade.bundle.certificate import Certificate
from cascade.calibration.certify.written import machine
from cascade.calibration.observing import observe_texts
from cascade.calibration.runs import Stages
from cascade.calibration.thresholds.choosing import choose_tagger, choose_texts
from cascade.calibration.thresholds.words import WordGrid
from cascade.cli.calibrate.data import Examples
from cascade.cli.calibrate.options import CalibrateOptions
from cascade.cli.show import pairs, policy_rows
from cascade.core.files import write
from cascade.core.rounding import percent
from cascade.exceptions import OptionError
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.profiling import profile_of
from cascade.pipelines.tagger import Tagger
from cascade.policies.settings import Policies

BLENDS = (0.3, 0.6)


def choose_plainly(
    options: CalibrateOptions, pipeline: Classifier | Tagger, examples: Examples, progress: Stages
) -> int:
    """Choose, write, show. Returns the command's status."""
    items, metric = examples.items, "entity F1" if options.f1 else "accuracy"
    if not items:
        raise OptionError(f"--data must hold an example at least, got none in {options.file}; give more")
    if isinstance(pipeline, Tagger):
        grid = WordGrid().fitted(pipeline.router, pipeline.exit_policy)
        how = "measured"
        point = choose_tagger(
            pipeline, items, examples.truth, max_drop=options.bound, f1=options.f1, grid=grid, progress=progress
        )
    else:
        with progress("all tiers", len(pipeline.tiers) * len(items)) as ahead:
            answers = observe_texts(pipeline, items, examples.truth, progress=ahead)
        point = choose_texts(answers, max_drop=options.bound, blends=BLENDS, like=pipeline.policies)
        how = "predicted, by costs per token measured here"
    # The bundle first: whatever a report stumbles over, the work is kept. Its figures say what the choice was made on.
    numbers = {name: value for name, value in vars(point).items() if isinstance(value, float) and not math.isnan(value)}
    note = {"guarantee": False, "policies": point.policies.to_json(), "metric": metric, "point": numbers}
    note |= {"data": options.file.name, "asked": f"{options.by} {options.bound:g}"}
    done = saved(options, pipeline, point.policies, items, note=note)
    kind = "no guarantee: all of them choose, and nothing is promised about others"
    click.echo(f"{options.model}, {len(items):,} examples of {options.file.name}, {kind}\n")
    score, full = 100 * point.accuracy, 100 * (point.accuracy + point.drop)
    lost = f"drop {100 * point.drop:.2f} points, allowed {100 * options.bound:g}"
    rows = [
        (metric, f"{score:.2f} %, full tier {len(pipeline.tiers)} {full:.2f} %; {lost}"),
        ("deferred", percent(point.deferred)),
        *([("mean exit", f"layer {point.mean_layer:.2f}, of the deferred")] if point.mean_layer > 0 else []),
        ("speed-up", f"{point.predicted_speed_up:.2f}, {how}"),
    ]
    click.echo(f"{pairs([*rows, *policy_rows(point.policies)])}\n{done}")
    if options.json_file is not None:
        made = {"command": options.command, "model": options.model, **machine(threads=pipeline.threads)}
        write(options.json_file, json.dumps({**note, "made": made}, indent=2, ensure_ascii=False) + "\n")
    return 0


def saved(
    options: CalibrateOptions,
    pipeline: Classifier | Tagger,
    policies: Policies,
    items: Sequence[Any],
    *,
    certificate: Certificate | None = None,
    note: Any = None,
) -> str:
    """Write the bundle with what was chosen, where the options say so; what was written, in words.

    `items`: of the calibration, of which the bundle gets a profile; `note`: for its figures.
    """
    if not options.write and options.output is None:
        return "Nothing was written: --write makes this the default of MODEL, --output FOLDER of a copy."
    folder = Path(options.model).expanduser() if options.output is None else options.output
    chosen, manifest = pipeline.with_policies(policies), pipeline.bundle.manifest
    figures = manifest.figures if note is None else {**manifest.figures, "operating_point": note}
    profile = profile_of(chosen, items, seed=options.seed)
    manifest = replace(manifest, policies=policies, profile=profile, figures=figures)
    chosen = replace(chosen, bundle=replace(chosen.bundle, manifest=manifest))
    chosen.save_pretrained(folder, certificate=certificate, overwrite=options.write)
    kind = "without a certificate" if certificate is None else "with the certificate (see cascade inspect)"
    return f"Written to {folder}, {kind}."

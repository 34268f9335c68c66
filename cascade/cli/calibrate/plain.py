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
from cascade.calibration.thresholds.points import Point
from cascade.calibration.thresholds.tagger import choose_tagger
from cascade.calibration.thresholds.texts import choose
from cascade.calibration.thresholds.words import WordGrid
from cascade.cli.calibrate.data import Examples
from cascade.cli.calibrate.options import CalibrateOptions
from cascade.cli.calibrate.show import never_asked, settings
from cascade.cli.show import duration
from cascade.core.console import table
from cascade.core.files import write
from cascade.exceptions import OptionError
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.profiling import profile_of
from cascade.pipelines.tagger import Tagger
from cascade.policies.settings import Policies

DROPS = (0.0, 0.0025, 0.005, 0.01, 0.02)  # shown beside the one that was asked for
BLENDS = (0.3, 0.6)
HEAD = ("", "allowed", "accuracy", "drop", "deferred", "mean layer", "speed-up", "blend", "router", "exit policy")


def choose_plainly(
    options: CalibrateOptions, pipeline: Classifier | Tagger, examples: Examples, progress: Stages
) -> int:
    """Choose, write, show. Returns the command's status."""
    items = examples.items
    if not items:
        raise OptionError(f"--data must hold an example at least, got none in {options.file}; give more")
    kind = "no guarantee: all of them choose, and nothing is promised about others"
    lines = [f"{options.model}, {len(items):,} examples of {options.file.name}, {kind}", ""]
    if isinstance(pipeline, Tagger):
        policies, figures, more = _tagger(options, pipeline, examples, progress)
    else:
        policies, figures, more = _texts(options, pipeline, examples, progress)
    # The bundle first: whatever a report stumbles over, the work is kept. Its figures say what the choice was made on.
    note = {"guarantee": False, "policies": policies.to_json(), **figures}
    note |= {"data": options.file.name, "asked": f"{options.by} {options.bound:g}"}
    manifest = pipeline.bundle.manifest
    noted = replace(manifest, figures={**manifest.figures, "operating_point": note})
    chosen = replace(pipeline.with_policies(policies), bundle=replace(pipeline.bundle, manifest=noted))
    done = saved(options, chosen, items)
    click.echo("\n".join([*lines, *more, done]))
    if options.json_file is not None:
        made = {"command": options.command, "model": options.model, **machine(threads=pipeline.threads)}
        write(options.json_file, json.dumps({**note, "made": made}, indent=2, ensure_ascii=False) + "\n")
    return 0


def _texts(
    options: CalibrateOptions, pipeline: Classifier, examples: Examples, progress: Stages
) -> tuple[Policies, dict[str, Any], list[str]]:
    with progress("all tiers", len(pipeline.tiers) * len(examples.items)) as ahead:
        answers = observe_texts(pipeline, examples.items, examples.truth, progress=ahead)
    rows, last = [], len(answers.tiers)
    for drop in sorted({*DROPS, options.bound}):
        found = choose(answers, max_drop=drop, blends=BLENDS, like=pipeline.policies)
        if drop == options.bound:
            best = found
        rows.append(_row(found, f"{100 * drop:.2f}", chosen=drop == options.bound))
    right = f"{100 * (best.accuracy + best.drop):.2f} %"
    full = [f"Full tier {last}: {right}. Speed-ups are predicted by costs measured here.", *never_asked(best.policies)]
    return best.policies, {"point": _figures(best)}, [table(HEAD, rows, right=range(1, 8)), "", *full]


def _tagger(
    options: CalibrateOptions, pipeline: Tagger, examples: Examples, progress: Stages
) -> tuple[Policies, dict[str, Any], list[str]]:
    grid = WordGrid().fitted(pipeline.router, pipeline.exit_policy)
    found = choose_tagger(
        pipeline, examples.items, examples.truth, max_drop=options.bound, f1=options.f1, grid=grid, progress=progress
    )
    best, metric = found.best, "entity F1" if options.f1 else "accuracy"
    rows = []
    for one in (*found.tried, *([best] if best not in found.tried else [])):
        run = replace(one.point, accuracy=one.score, drop=found.full - one.score, cost=one.seconds / found.full_seconds)
        row = _row(run, "kept" if one.within else "lost", chosen=one is best)
        rows.append([*row, repr(run.policies.windows)])
    head = [*HEAD, "windows"]
    head[1:3] = "bound", metric
    full = f"Full tier 2: {metric} {100 * found.full:.2f} %, {duration(found.full_seconds)}. Speed-ups are measured."
    figures = {"metric": metric, "score": best.score, "drop": found.full - best.score, "point": _figures(best.point)}
    return best.point.policies, figures, [table(head, rows, right=range(2, 8)), "", full]


def _row(point: Point, name: str, *, chosen: bool) -> list[str]:
    routers, exits, blend = settings(point.policies)
    return [
        "->" if chosen else "",
        name,
        f"{100 * point.accuracy:.2f} %",
        f"{100 * point.drop:.2f}",
        f"{100 * point.deferred:.1f} %",
        f"{point.mean_layer:.2f}" if point.deferred else "",
        f"{point.predicted_speed_up:.2f}",
        blend,
        routers,
        exits,
    ]


def _figures(point: Point) -> dict[str, Any]:
    names = ("accuracy", "drop", "deferred", "mean_layer", "cost")
    return {name: None if math.isnan(value := getattr(point, name)) else value for name in names}


def saved(
    options: CalibrateOptions,
    chosen: Classifier | Tagger,
    items: Sequence[Any],
    certificate: Certificate | None = None,
) -> str:
    """Write the bundle of what was chosen, where the options say so; what was written, in words.

    `items`: of the calibration, of which the bundle gets a profile.
    """
    if not options.write and options.output is None:
        return "Nothing was written: --write makes this the default of MODEL, --output FOLDER of a copy."
    folder = Path(options.model).expanduser() if options.output is None else options.output
    profile = profile_of(chosen, items, seed=options.seed)
    manifest = replace(chosen.bundle.manifest, policies=chosen.policies, profile=profile)
    chosen = replace(chosen, bundle=replace(chosen.bundle, manifest=manifest))
    chosen.save_pretrained(folder, certificate=certificate, overwrite=options.write)
    kind = "without a certificate" if certificate is None else "with the certificate (see cascade inspect)"
    return f"Written to {folder}, {kind}."

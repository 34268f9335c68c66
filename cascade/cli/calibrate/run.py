"""The work of `cascade calibrate`: load, read, calibrate, write, show. Needs the extra `calibrate`."""

from __future__ import annotations

import contextlib
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from cascade.bundle.certificate import Certificate
from cascade.calibration.certify.claims import Agreement, Claim, MaxDrop, RiskTarget, Unit
from cascade.calibration.certify.ledger import Ledger
from cascade.calibration.certify.outcomes import Certified
from cascade.calibration.certify.whole import calibrate
from cascade.calibration.certify.word_paths import WordGrid
from cascade.calibration.certify.written import data_of, issue, machine, outcome_json
from cascade.calibration.chain import EXIT, ROUTER
from cascade.calibration.choosing import choose_tagger, choose_texts
from cascade.calibration.observing import observe_texts
from cascade.calibration.runs import Stages
from cascade.cli.calibrate.data import examples_of, known_files, of_another_kind
from cascade.cli.calibrate.show import shown
from cascade.cli.show import pairs, policy_rows
from cascade.core.files import sha256_of, write
from cascade.core.rounding import percent
from cascade.exceptions import CertificateWarning, DataError, OptionError
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.loading import load
from cascade.pipelines.profiling import profile_of
from cascade.pipelines.tagger import Tagger
from cascade.policies.registry import Tunable, tunable
from cascade.policies.settings import Policies
from cascade.text.sources import regular

REFUSED = 1
BLENDS = (0.3, 0.6)


def run(options: Any) -> int:
    """Calibrate a bundle. The command's status: 1 if nothing could be certified.

    `options`: those of the command by name; `by`: the one that names what is bounded, `bound` its value; `command`: all
    of it, as it can be given again.
    """

    @contextlib.contextmanager
    def bars(name: str, total: int) -> Iterator[Callable[[int], object]]:
        with tqdm(total=total, desc=name, file=sys.stderr, disable=not options.progress, leave=False) as bar:
            yield bar.update

    begin = time.perf_counter()
    pipeline = load(options.model, threads=options.threads)
    _check_task(options, tagger=isinstance(pipeline, Tagger))
    with regular(options.file) as file:
        options.file = file
        items, truth = _read(options, pipeline)
        if options.guarantee:
            status = _certify(options, pipeline, items, truth, bars)
        else:
            status = _choose(options, pipeline, items, truth, bars)
    click.echo(f"{time.perf_counter() - begin:.1f} s", err=True)
    return status


def _check_task(options: Any, *, tagger: bool) -> None:
    """Raise an `OptionError` for options that are not for bundles of this task."""
    fit, got = ("classifiers", "a tagger") if tagger else ("taggers", "a classifier")
    given = {"--per-class": options.per_class}
    if not tagger:
        given = {"--tokens-column": options.columns.tokens_column != "tokens", "--f1": options.f1}
    for option in (option for option, on in given.items() if on):
        raise OptionError(f"{option} must be used with {fit}, but {options.model} is {got}; leave it out")


def _read(options: Any, pipeline: Classifier | Tagger) -> tuple[list[Any], Any]:
    words, columns = isinstance(pipeline, Tagger), options.columns
    own: Any = {"labels": pipeline.labels, "multi_label": pipeline.multi_label}
    items, truth = examples_of(options.file, columns, words=words, **own)
    if options.by == "--max-drop" and truth is None:
        raise DataError(
            f"--max-drop needs {'tags' if words else 'labels'}, but {options.file} has none in the column "
            f"{columns.label(words=words)!r}; name another with --label-column, or ask for --agreement"
        )
    return items, truth


def _certify(options: Any, pipeline: Classifier | Tagger, items: list[Any], truth: Any, bars: Stages) -> int:
    ask: RiskTarget = Agreement(options.bound, per_class=options.per_class)
    if options.by == "--max-drop":
        ask = MaxDrop(options.bound, per_class=options.per_class)
    unit = Unit.SENTENCE if isinstance(pipeline, Tagger) else Unit.TEXT
    claim = Claim(ask, confidence=options.confidence, unit=unit)
    manifest, sha256 = pipeline.bundle.manifest, sha256_of(options.file)
    ledger = Ledger(manifest.models())
    # What a path is made of: thresholds are chosen, so they make no other question.
    policies, exits = pipeline.policies, list[Tunable]()
    if isinstance(pipeline, Tagger):
        exits += WordGrid().kinds(policies)
    else:
        exits += [tunable(own, EXIT) for own, tier in zip(policies.exits, pipeline.infos, strict=True) if tier.layers]
    routers = [tunable(own, ROUTER) for own in policies.routers]
    made_of = repr([*(one.at(0.5) for one in (*routers, *exits)), policies.decoding])
    question, lost = ledger.ask(items, [claim.to_json(), options.seed, sha256, made_of])
    counted = question.number > 1 or question in ledger
    with warnings.catch_warnings():  # they are told with the outcome
        warnings.simplefilter("ignore", CertificateWarning)
        asked = replace(claim, question=question.number)
        outcome, answers = calibrate(pipeline, items, truth, asked, seed=options.seed, progress=bars)
    data = data_of(options.file.name, sha256, outcome)
    doubts = known_files(manifest, name=data.name, sha256=sha256, counted=counted)
    if not outcome.tested:
        ledger.withdraw(question)
    unlike = of_another_kind(pipeline, items)
    outcome = replace(outcome, warnings=(*outcome.warnings, *unlike, *doubts, *lost))
    certificate = issue(pipeline, outcome, data) if isinstance(outcome, Certified) else None
    # The bundle first: whatever a report stumbles over, the work is kept.
    done = "Nothing was written."
    if isinstance(outcome, Certified):
        done = _saved(options, pipeline, outcome.policies, items, certificate=certificate)
    click.echo(shown(outcome, model=options.model, data=data.name))
    click.echo(done)
    if options.json_file is not None:
        made = {"command": options.command, "model": options.model, **machine(threads=pipeline.threads)}
        written = outcome_json(outcome, certificate=certificate, costs=answers.costs, labels=pipeline.labels, made=made)
        write(options.json_file, json.dumps(written, indent=2, ensure_ascii=False) + "\n")
    return REFUSED if certificate is None else 0


def _choose(options: Any, pipeline: Classifier | Tagger, items: list[Any], truth: Any, progress: Stages) -> int:
    """Choose, write, show. Returns the command's status."""
    metric = "entity F1" if options.f1 else "accuracy"
    if not items:
        raise OptionError(f"--data must hold an example at least, got none in {options.file}; give more")
    if isinstance(pipeline, Tagger):
        point = choose_tagger(pipeline, items, truth, max_drop=options.bound, f1=options.f1, progress=progress)
    else:
        with progress("all tiers", len(pipeline.tiers) * len(items)) as ahead:
            answers = observe_texts(pipeline, items, truth, progress=ahead)
        point = choose_texts(answers, max_drop=options.bound, blends=BLENDS, like=pipeline.policies)
    # The bundle first: whatever a report stumbles over, the work is kept. Its figures say what the choice was made on.
    numbers = {name: value for name, value in vars(point).items() if isinstance(value, float)}
    note = {"guarantee": False, "policies": point.policies.to_json(), "metric": metric, "point": numbers}
    note |= {"data": options.file.name, "asked": f"{options.by} {options.bound:g}"}
    done = _saved(options, pipeline, point.policies, items, note=note)
    kind = "no guarantee: all of them choose, and nothing is promised about others"
    click.echo(f"{options.model}, {len(items):,} examples of {options.file.name}, {kind}\n")
    score, full = 100 * point.accuracy, 100 * (point.accuracy + point.drop)
    lost = f"drop {100 * point.drop:.2f} points, allowed {100 * options.bound:g}"
    rows = [
        (metric, f"{score:.2f} %, full tier {len(pipeline.tiers)} {full:.2f} %; {lost}"),
        ("deferred", percent(point.deferred)),
        *([("mean exit", f"layer {point.mean_layer:.2f}, of the deferred")] if point.mean_layer > 0 else []),
        ("speed-up", f"{1 / point.cost:.2f}, predicted by costs per token measured here"),
    ]
    click.echo(f"{pairs([*rows, *policy_rows(point.policies)])}\n{done}")
    if options.json_file is not None:
        made = {"command": options.command, "model": options.model, **machine(threads=pipeline.threads)}
        write(options.json_file, json.dumps({**note, "made": made}, indent=2, ensure_ascii=False) + "\n")
    return 0


def _saved(
    options: Any,
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

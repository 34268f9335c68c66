"""The work of `cascade calibrate`: load, read, calibrate, write, show. Needs the extra `calibrate`."""

from __future__ import annotations

import contextlib
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace

import click
from tqdm import tqdm

from cascade.calibration.certify.claims import Agreement, Claim, MaxDrop, RiskTarget, Unit
from cascade.calibration.certify.ledger import Ledger
from cascade.calibration.certify.outcomes import Certified
from cascade.calibration.certify.whole import calibrate
from cascade.calibration.certify.word_paths import GRID
from cascade.calibration.certify.written import data_of, issue, machine, outcome_json
from cascade.calibration.chain import EXIT, ROUTER, tunable
from cascade.calibration.runs import Stages
from cascade.cli.calibrate.data import Examples, known_files, labelled_texts, of_another_kind, tagged_sentences
from cascade.cli.calibrate.options import CalibrateOptions
from cascade.cli.calibrate.plain import choose_plainly, saved
from cascade.cli.calibrate.show import shown
from cascade.core.files import sha256_of, write
from cascade.exceptions import CertificateWarning, DataError
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.loading import load
from cascade.pipelines.tagger import Tagger
from cascade.policies.registry import Tunable
from cascade.text.reading import read_examples
from cascade.text.sources import regular

REFUSED = 1


def run(options: CalibrateOptions) -> int:
    """Calibrate a bundle. The command's status: 1 if nothing could be certified."""
    begin = time.perf_counter()
    pipeline = load(options.model, threads=options.threads)
    options.check_task(tagger=isinstance(pipeline, Tagger))
    bars = _bars(options.progress)
    with regular(options.file) as file:
        options = replace(options, file=file)
        examples = _read(options, pipeline)
        if options.guarantee:
            status = _certify(options, pipeline, examples, bars)
        else:
            status = choose_plainly(options, pipeline, examples, bars)
    click.echo(f"{time.perf_counter() - begin:.1f} s", err=True)
    return status


def _bars(shown: bool) -> Stages:
    """Progress on standard error, if it is shown."""

    @contextlib.contextmanager
    def stage(name: str, total: int) -> Iterator[Callable[[int], object]]:
        with tqdm(total=total, desc=name, file=sys.stderr, disable=not shown, leave=False) as bar:
            yield bar.update

    return stage


def _read(options: CalibrateOptions, pipeline: Classifier | Tagger) -> Examples:
    tagger = isinstance(pipeline, Tagger)
    column = options.label_column or ("tags" if tagger else "label")
    examples = read_examples(
        str(options.file),
        text_column=options.text_column,
        pair_column=options.pair_column,
        tokens_column=(options.tokens_column or "tokens") if tagger else None,
        label_column=column,
        label_separator=options.label_separator,
    )
    lines = tqdm(examples, desc="reading", unit=" rows", file=sys.stderr, disable=not options.progress, leave=False)
    if isinstance(pipeline, Tagger):
        read = tagged_sentences(lines, options.file)
    else:
        read = labelled_texts(lines, options.file, pipeline.labels, multi_label=pipeline.multi_label)
    if options.by == "--max-drop" and read.truth is None:
        what = "tags" if tagger else "labels"
        raise DataError(
            f"--max-drop needs {what}, but {options.file} has none in the column {column!r}; name another with "
            "--label-column, or ask for --agreement, which needs none"
        )
    return read


def _certify(options: CalibrateOptions, pipeline: Classifier | Tagger, examples: Examples, bars: Stages) -> int:
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
        exits += GRID.fitted(pipeline.router, pipeline.exit_policy).exits
    else:
        exits += [tunable(own, EXIT) for own, tier in zip(policies.exits, pipeline.infos, strict=True) if tier.layers]
    routers = [tunable(own, ROUTER) for own in policies.routers]
    made_of = repr([*(one.at(0.5) for one in (*routers, *exits)), policies.decoding])
    question, lost = ledger.ask(examples.items, [claim.to_json(), options.seed, sha256, made_of])
    counted = question.number > 1 or question in ledger
    with warnings.catch_warnings():  # they are told with the outcome
        warnings.simplefilter("ignore", CertificateWarning)
        asked = replace(claim, question=question.number)
        outcome, answers = calibrate(pipeline, examples.items, examples.truth, asked, seed=options.seed, progress=bars)
    data = data_of(options.file.name, sha256, outcome)
    doubts = known_files(manifest, name=data.name, sha256=sha256, counted=counted)
    if not outcome.tested:
        ledger.withdraw(question)
    unlike = of_another_kind(pipeline, examples.items)
    outcome = replace(outcome, warnings=(*outcome.warnings, *unlike, *doubts, *lost))
    certificate = issue(pipeline, outcome, data) if isinstance(outcome, Certified) else None
    # The bundle first: whatever a report stumbles over, the work is kept.
    done = "Nothing was written."
    if isinstance(outcome, Certified):
        done = saved(options, pipeline, outcome.policies, examples.items, certificate=certificate)
    click.echo(shown(outcome, model=options.model, data=data.name))
    click.echo(done)
    if options.json_file is not None:
        made = {"command": options.command, "model": options.model, **machine(threads=pipeline.threads)}
        written = outcome_json(outcome, certificate=certificate, costs=answers.costs, labels=pipeline.labels, made=made)
        write(options.json_file, json.dumps(written, indent=2, ensure_ascii=False) + "\n")
    return REFUSED if certificate is None else 0

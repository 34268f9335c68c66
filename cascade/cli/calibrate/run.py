"""The work of `cascade calibrate`: load, read, calibrate, write, show. Needs the extra `calibrate`."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from cascade.bundle.certificate import Certificate
from cascade.calibration.certify.claims import Agreement, Claim, MaxDrop, Unit
from cascade.calibration.certify.issuing import data_of, issue
from cascade.calibration.certify.outcomes import Certified, Refused
from cascade.calibration.certify.sentences import calibrate_sentences
from cascade.calibration.certify.texts import calibrate_texts
from cascade.calibration.certify.word_paths import GRID
from cascade.calibration.costs import Costs
from cascade.calibration.ranked import Tuned
from cascade.calibration.report.written import machine, outcome_json
from cascade.calibration.thresholds.words import word_exits
from cascade.cli.calibrate.data import Sentences, Texts, known_files
from cascade.cli.calibrate.options import CalibrateOptions
from cascade.cli.calibrate.plain import choose_plainly
from cascade.cli.calibrate.show import shown
from cascade.core.files import write
from cascade.exceptions import DataError, OptionError
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.loading import load
from cascade.pipelines.tagger import Tagger
from cascade.policies.exits import never
from cascade.text.reading import Example

REFUSED = 1


def run(options: CalibrateOptions) -> int:
    """Calibrate a bundle.

    Returns:
        The command's status: 1 if nothing could be certified.
    """
    begin = time.perf_counter()
    pipeline = load(options.model, threads=options.threads)
    _check(options, pipeline)
    bars, examples = _Bars(options.progress), _read(options, pipeline)
    if options.guarantee:
        status = _certify(options, pipeline, examples, bars)
    else:
        status = choose_plainly(options, pipeline, examples, bars)
    click.echo(f"{time.perf_counter() - begin:.1f} s", err=True)
    return status


class _Bars:
    """Progress on standard error. `on`: whether any is shown."""

    def __init__(self, on: bool) -> None:
        self.on = on

    @contextlib.contextmanager
    def __call__(self, name: str, total: int) -> Iterator[Callable[[int], object]]:
        """Of a stage of the work with so much in it; what it gives is told how much was done."""
        with tqdm(total=total, desc=name, file=sys.stderr, disable=not self.on, leave=False) as bar:
            yield bar.update


def _check(options: CalibrateOptions, pipeline: Classifier | Tagger) -> None:
    tagger = isinstance(pipeline, Tagger)
    for option, on, fits in (
        ("--tokens-column", options.tokens_column is not None, tagger),
        ("--f1", options.f1, tagger),
        ("--per-exit", options.per_exit, not tagger),
        ("--per-class", options.per_class, not tagger),
    ):
        if on and not fits:
            kinds = ("classifiers", "a tagger") if tagger else ("taggers", "a classifier")
            raise OptionError(f"{option} must be used with {kinds[0]}, but {options.model} is {kinds[1]}; leave it out")


def _read(options: CalibrateOptions, pipeline: Classifier | Tagger) -> Texts | Sentences:
    def lines(examples: Iterator[Example]) -> Iterator[Example]:
        return iter(
            tqdm(examples, desc="reading", unit=" rows", file=sys.stderr, disable=not options.progress, leave=False)
        )

    labelled = options.by not in {"--budget", "--latency"}
    read: Texts | Sentences
    if isinstance(pipeline, Tagger):
        column = options.label_column or "tags"
        read = Sentences.read(
            options.file,
            tokens_column=options.tokens_column or "tokens",
            tags_column=column if labelled else None,
            progress=lines,
        )
    else:
        column = options.label_column or "label"
        read = Texts.read(
            options.file,
            pipeline.labels,
            multi_label=pipeline.multi_label,
            text_column=options.text_column,
            pair_column=options.pair_column,
            label_column=column if labelled else None,
            progress=lines,
        )
    if options.by == "--max-drop" and read.truth is None:
        what = "tags" if isinstance(read, Sentences) else "labels"
        raise DataError(
            f"--max-drop needs {what}, but {options.file} has none in the column {column!r}; name another with "
            "--label-column, or ask for --agreement, which needs none"
        )
    return read


def _certify(options: CalibrateOptions, pipeline: Classifier | Tagger, examples: Texts | Sentences, bars: _Bars) -> int:
    bound, per_class = options.bound, options.per_class
    ask = MaxDrop(bound, two_sided=options.two_sided, per_class=per_class)
    unit = Unit.SENTENCE if isinstance(examples, Sentences) else Unit.TEXT
    claim = Claim(
        ask if options.by == "--max-drop" else Agreement(bound, per_class=per_class),
        confidence=options.confidence,
        unit=unit,
    )
    outcome, costs = _outcome(options, pipeline, examples, claim, bars)
    data = data_of(options.file, outcome)
    doubts = known_files(pipeline.bundle.manifest, name=data.name, sha256=data.sha256)
    outcome = replace(outcome, warnings=(*outcome.warnings, *doubts))
    certificate = issue(pipeline, outcome, data) if isinstance(outcome, Certified) else None
    # The bundle first: whatever a report stumbles over, the work is kept.
    done = _write_bundle(options, pipeline, outcome, certificate)
    click.echo(shown(outcome, model=options.model, data=data.name))
    click.echo(done)
    if options.json_file is not None:
        made = {"command": options.command, "model": options.model, **machine(threads=pipeline.threads)}
        written = outcome_json(outcome, certificate=certificate, costs=costs, labels=pipeline.labels, made=made)
        write(options.json_file, json.dumps(written, indent=2, ensure_ascii=False) + "\n")
    if options.png_file is not None:
        from cascade.calibration.report.figure import save_png  # matplotlib takes a second to import

        save_png(outcome, options.png_file, title=f"{options.model}, {data.name}\n{claim.describe()}")
    return REFUSED if certificate is None else 0


def _outcome(
    options: CalibrateOptions, pipeline: Classifier | Tagger, examples: Texts | Sentences, claim: Claim, bars: Any
) -> tuple[Certified | Refused, Costs | None]:
    if isinstance(pipeline, Tagger) and isinstance(examples, Sentences):
        grid = replace(GRID, exits=word_exits(pipeline.exit_policy), router=Tuned.of(pipeline.router, never).router)
        found = calibrate_sentences(
            pipeline, examples.words, examples.truth, claim, seed=options.seed, grid=grid, progress=bars
        )
        return found, None
    assert isinstance(pipeline, Classifier)  # noqa: S101  # texts are a classifier's
    assert isinstance(examples, Texts)  # noqa: S101
    outcome, answers = calibrate_texts(
        pipeline,
        examples.texts,
        examples.truth,
        claim,
        seed=options.seed,
        tuned=Tuned.of(pipeline.router, pipeline.exit_policy),
        progress=bars,
    )
    return outcome, answers.costs


def _write_bundle(
    options: CalibrateOptions,
    pipeline: Classifier | Tagger,
    outcome: Certified | Refused,
    certificate: Certificate | None,
) -> str:
    """What was written, in words."""
    if certificate is None or not isinstance(outcome, Certified):
        return "Nothing was written."
    if not options.write and options.output is None:
        return "Nothing was written: --write makes this the default of MODEL, --output FOLDER of a copy."
    folder = Path(options.model).expanduser() if options.output is None else options.output
    certified = pipeline.with_policies(outcome.policies)
    certified.save_pretrained(folder, certificate=certificate, overwrite=options.write)
    return f"Written to {folder}, with the certificate (see cascade inspect)."

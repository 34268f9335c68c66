"""The work of `cascade calibrate`: load, read, calibrate, issue, write. Needs the extra `calibrate`."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import click
from tqdm import tqdm

from cascade.bundle.certificate import Certificate
from cascade.calibration.answers import Answers, observe
from cascade.calibration.certify import Certified, Refused, certify
from cascade.calibration.claims import Agreement, Ask, Claim, MaxDeferred, MaxDrop, MeanCost, Unit
from cascade.calibration.examples import Costs
from cascade.calibration.issuing import data_of, issue
from cascade.calibration.paths import Grid
from cascade.calibration.reporting import outcome_json, report_of
from cascade.calibration.word_calibrating import calibrate_words
from cascade.cli.calibrate_data import Sentences, Texts, known_files
from cascade.cli.calibrate_show import shown
from cascade.cli.calibrate_wanted import Wanted
from cascade.core.files import write
from cascade.exceptions import DataError, OptionError, TaskError
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger
from cascade.text.reading import Example

__all__ = ["run"]

REFUSED = 1


@dataclass(frozen=True, eq=False)
class _Found:
    """What came of it.

    Attributes:
        outcome: certified or refused.
        doubts: about the examples.
        observed: what the tiers said and cost; not of taggers.
    """

    outcome: Certified | Refused
    doubts: tuple[str, ...] = ()
    observed: tuple[Answers, Costs] | None = None


def run(wanted: Wanted) -> int:
    """Calibrate a bundle.

    Returns:
        The command's status: 1 if nothing could be certified.
    """
    begin = time.perf_counter()
    face: Classifier | Tagger
    try:
        face = Classifier.from_pretrained(wanted.model, threads=wanted.threads)
    except TaskError:
        face = Tagger.from_pretrained(wanted.model, threads=wanted.threads)
    bars = _Bars(wanted.progress)
    found = _sentences(face, wanted, bars) if isinstance(face, Tagger) else _texts(face, wanted, bars)
    data = data_of(wanted.file, found.outcome)
    doubts = (*found.doubts, *known_files(face.bundle.manifest, name=data.name, sha256=data.sha256))
    certificate = None
    if isinstance(found.outcome, Certified):
        certificate = issue(face, found.outcome, data, warnings=doubts)
    outcome = replace(found.outcome, warnings=(*found.outcome.warnings, *doubts))
    _write_reports(wanted, face, replace(found, outcome=outcome), certificate)
    click.echo(shown(outcome, model=wanted.model, data=data.name))
    click.echo(_write_bundle(wanted, face, certificate))
    click.echo(f"{time.perf_counter() - begin:.1f} s", err=True)
    return REFUSED if certificate is None else 0


class _Bars:
    """Progress on standard error. `on`: whether any is shown."""

    def __init__(self, on: bool) -> None:
        self.on = on

    def lines(self, examples: Iterator[Example]) -> Iterator[Example]:
        """Of lines that are read."""
        return iter(tqdm(examples, desc="reading", unit=" rows", file=sys.stderr, disable=not self.on, leave=False))

    @contextlib.contextmanager
    def __call__(self, name: str, total: int) -> Iterator[Callable[[int], object]]:
        """Of a stage of the work with so much in it; what it gives is told how much was done."""
        with tqdm(total=total, desc=name, file=sys.stderr, disable=not self.on, leave=False) as bar:
            yield bar.update


def _ask(wanted: Wanted) -> Ask:
    if wanted.by == "--agreement":
        return Agreement(wanted.bound, per_class=wanted.per_class)
    if wanted.by == "--budget":
        return MaxDeferred(wanted.bound)
    if wanted.by == "--latency":
        return MeanCost(wanted.bound)
    return MaxDrop(wanted.bound, two_sided=wanted.two_sided, per_class=wanted.per_class)


def _texts(face: Classifier, wanted: Wanted, bars: _Bars) -> _Found:
    mine = {"--unit": wanted.unit, "--tokens-column": wanted.tokens_column}
    wrong = [option for option, value in mine.items() if value is not None]
    if wrong:
        raise OptionError(
            f"{' and '.join(wrong)} must be used with taggers, but {wanted.model} is a classifier; "
            f"leave {'them' if wrong[1:] else 'it'} out"
        )
    claim, column = Claim(_ask(wanted), confidence=wanted.confidence), wanted.label_column or "label"
    texts = Texts.read(
        wanted.file,
        face.labels,
        multi_label=face.multi_label,
        text_column=wanted.text_column,
        pair_column=wanted.pair_column,
        label_column=column,
        progress=bars.lines,
    )
    _check_labels(wanted, claim, labelled=texts.truth is not None, column=column)
    begin = time.perf_counter()
    encoded = face.tokenizer.encode(texts.texts)
    seconds = time.perf_counter() - begin
    with bars("both tiers", 2 * len(encoded.units.rows)) as ahead:
        answers, costs = observe(face.tier1, face.tier2, encoded, texts.truth, tokenize_seconds=seconds, progress=ahead)
    with bars("testing the path", Grid().steps) as ahead:
        outcome = certify(answers, costs, claim, labels=face.labels, seed=wanted.seed, progress=ahead)
    return _Found(outcome, texts.doubts, (answers, costs))


def _sentences(face: Tagger, wanted: Wanted, bars: _Bars) -> _Found:
    claim = Claim(_ask(wanted), confidence=wanted.confidence, unit=Unit(wanted.unit or "sentence"))
    column = wanted.label_column or "tags"
    read = Sentences.read(
        wanted.file, tokens_column=wanted.tokens_column or "tokens", tags_column=column, progress=bars.lines
    )
    _check_labels(wanted, claim, labelled=read.tags is not None, column=column)
    return _Found(calibrate_words(face, read.words, read.tags, claim, seed=wanted.seed, progress=bars))


def _check_labels(wanted: Wanted, claim: Claim, *, labelled: bool, column: str) -> None:
    what = "labels" if claim.unit is Unit.TEXT else "tags"
    if claim.ask.needs_labels and not labelled:
        raise DataError(
            f"--max-drop needs {what}, but {wanted.file} has none in the column {column!r}; name another with "
            "--label-column, or ask for --agreement, which needs none"
        )


def _write_reports(wanted: Wanted, face: Classifier | Tagger, found: _Found, certificate: Certificate | None) -> None:
    if wanted.json_file is not None:
        costs = None if found.observed is None else found.observed[1]
        written = outcome_json(found.outcome, certificate=certificate, costs=costs)
        write(wanted.json_file, json.dumps(written, indent=2, ensure_ascii=False) + "\n")
    if wanted.png_file is None and wanted.html_file is None:
        return
    report = report_of(
        found.outcome,
        model=wanted.model,
        data=str(wanted.file),
        labels=face.labels,
        threads=face.tier1.threads,
        command=wanted.command,
        certificate=certificate,
        observed=found.observed,
    )
    # matplotlib and jinja2 take a second to import.
    if wanted.png_file is not None:
        from cascade.calibration.plots import save_png

        save_png(report, wanted.png_file)
    if wanted.html_file is not None:
        from cascade.calibration.page import save_html

        save_html(report, wanted.html_file)


def _write_bundle(wanted: Wanted, face: Classifier | Tagger, certificate: Certificate | None) -> str:
    """What was written, in words."""
    if certificate is None:
        return "Nothing was written."
    if not wanted.write and wanted.output is None:
        return "Nothing was written: --write makes this the default of MODEL, --output FOLDER of a copy."
    folder = Path(wanted.model).expanduser() if wanted.output is None else wanted.output
    certified = face.with_settings(certificate.policies)
    certified.save_pretrained(folder, certificate=certificate, overwrite=wanted.write)
    return f"Written to {folder}, with the certificate (see cascade inspect)."

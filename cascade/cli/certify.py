"""`cascade certify`: thresholds with a certificate for anybody's scores, read from a file."""

from __future__ import annotations

import json
import shlex
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from cascade.core.files import check_output, sha256_of, write
from cascade.exceptions import CertificateWarning, DataError, OptionError
from cascade.text.reading import read_examples
from cascade.text.sources import regular


@click.command(short_help="Certify thresholds for scores of any models: a judge, rules, an API.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--max-drop", type=float, metavar="SHARE", help="Lose at most this accuracy.  [default: 0.01]")
@click.option("--agreement", type=float, metavar="SHARE", help="Differ from the reference at most so often.")
@click.option("--confidence", type=float, default=0.95, show_default=True, metavar="P", help="Of the guarantee.")
@click.option("--per-class", is_flag=True, help="For every label separately.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="N", help="Of the split.")
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="All figures, as JSON.")
@click.pass_obj
def certify(
    arguments: Sequence[str], /, *, file: Path, max_drop: float | None, agreement: float | None,
    confidence: float, per_class: bool, seed: int, output: Path | None,
) -> int:  # fmt: skip
    """Choose above which score an answer is taken and below which the reference is asked, with a certificate.

    FILE holds a row per example: jsonl, csv or parquet. Of two tiers: label, score in [0, 1] (or probabilities, numbers
    by label), reference (what the dear model says), gold (what is right), or both, and price, of the reference. Of any
    number: label_1, score_1, price_1, label_2, ..., the last being the reference. Columns id or text tell copies.

    A fifth of the rows chooses thresholds, the others test them, as cascade calibrate does; questions about the same
    rows share one error. Status 1 says that nothing could be certified.

    \b
    Example:
      cascade certify judged.jsonl --max-drop 0.01 --output certificate.json
        2 tiers, 2,000 examples of judged.jsonl: 400 chose the path, 1,600 tested it
        accuracy is at most 1 point below that of the reference, with a confidence of 95 %
    """
    if max_drop is not None and agreement is not None:
        raise OptionError("--max-drop and --agreement exclude each other; ask for one of them")
    check_output("--output", output, file)
    from cascade.calibration.certify.claims import Agreement, Claim, MaxDrop  # needs the extra
    from cascade.calibration.certify.ledger import Ledger
    from cascade.calibration.certify.outcomes import Certified
    from cascade.calibration.certify.scores import THAN, Scores
    from cascade.calibration.certify.written import outcome_json
    from cascade.cli.calibrate.show import shown

    bound = 0.01 if max_drop is None else max_drop
    ask = MaxDrop(bound, per_class=per_class) if agreement is None else Agreement(agreement, per_class=per_class)
    claim = Claim(ask, confidence=confidence, than=THAN)
    with regular(file) as path:
        read = read_examples(path, text_column="", label_column=None, all_columns=True)
        sha256 = sha256_of(path)
        rows = [(example.line, example.record) for example in read]
    scores = Scores.of(rows)
    if agreement is None and scores.answers.truth is None:
        raise DataError(f"--max-drop needs the column 'gold', but {file} has none; add it, or ask for --agreement")
    ledger = Ledger({"certify": "scores"})
    items = [json.dumps(row, sort_keys=True, default=str) for _, row in rows]
    question, lost = ledger.ask(items, [claim.to_json(), seed, sha256])
    with warnings.catch_warnings():  # they are told with the outcome
        warnings.simplefilter("ignore", CertificateWarning)
        outcome = scores.certified(replace(claim, question=question.number), seed=seed)
    if not outcome.tested:
        ledger.withdraw(question)
    outcome = replace(outcome, warnings=(*outcome.warnings, *lost))
    click.echo(shown(outcome, model=f"{len(scores.answers.tiers)} tiers", data=file.name, priced=True))
    if output is not None:
        made = {"command": shlex.join(["cascade", *arguments]), "file": file.name, "sha256": sha256}
        written = outcome_json(outcome, costs=scores.answers.costs, labels=scores.labels, made=made)
        write(output, json.dumps(written, indent=2, ensure_ascii=False) + "\n")
    return 0 if isinstance(outcome, Certified) else 1

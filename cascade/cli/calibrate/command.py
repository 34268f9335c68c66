"""`cascade calibrate`: settings within an accuracy that is agreed to be lost, with a guarantee or without."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click

from cascade.core.checks import check_inside
from cascade.core.files import check_output
from cascade.core.options import options_of, value_of
from cascade.exceptions import DataError, OptionError
from cascade.text.labelled import Columns


@click.command(short_help="Choose settings within an accuracy that you agree to lose, with a guarantee or without.")
@click.argument("model")
@click.option("--data", "file", required=True, type=click.Path(path_type=Path), metavar="FILE", help="The examples.")
@click.option("--max-drop", type=float, metavar="SHARE", help="Lose at most this accuracy.  [default: 0.01]")
@click.option("--agreement", type=float, metavar="SHARE", help="Differ from full tier 2 at most so often; no labels.")
@click.option("--guarantee/--no-guarantee", default=True, help="Certify the choice.  [default: guarantee]")
@click.option("--confidence", type=float, default=0.95, show_default=True, metavar="P", help="Of the guarantee.")
@click.option("--per-class", is_flag=True, help="With --max-drop, --agreement: for every label separately.")
@click.option("--f1", is_flag=True, help="With --no-guarantee, taggers: bound the loss of entity F1, not of accuracy.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="N",
              help="Of the share of the examples that chooses.")  # fmt: skip
@click.option("--write", is_flag=True, help="Make the chosen settings the defaults of MODEL, with the certificate.")
@click.option("--output", type=click.Path(path_type=Path), metavar="FOLDER", help="Write a copy of MODEL with both.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="All figures.")
@options_of(Columns)
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="Of all tiers.  [default: the CPUs allowed]")
@click.option("--progress/--no-progress", default=None, help="Bars on standard error.  [default: on a terminal]")
@click.pass_obj
def calibrate(arguments: Sequence[str], /, **options: Any) -> int:
    """Choose how much a cascade defers and how early it exits tier 2.

    MODEL is a folder or a Hub id. FILE holds examples that the models have not seen and that come as those in use will:
    jsonl, csv or parquet, with labels for --max-drop. Both tiers run over them once; a share chooses a path of
    settings, the others test it, and what passes is certified: the bound holds with the confidence that you ask for.
    Questions about the same examples are counted on this host: with another seed or bound, or with examples added after
    a refusal, each is tested at a smaller level. Copies count once. Status 1 says that nothing could be certified.

    With --no-guarantee all examples choose, and nothing is promised about others: measure the choice on examples that
    did not choose it. Nothing is written without --write or --output.

    \b
    Example:
      cascade calibrate models/sentiment --data reviews.jsonl --max-drop 0.01 --output runs/certified
        models/sentiment, 1,500 examples of reviews.jsonl: 300 chose the path, 1,200 tested it
        accuracy is at most 1 point below that of tier 2 at full depth, with a confidence of 95 %
    \b
        certified     yes: setting 92 of 117, after 91 safer ones
        harm          6 of 1,200 (0.5 %), bound 1 %
        cost          1.1 ms, full tier 2 3.0 ms: predicted speed-up 2.64, by costs per token measured here
        ...
      cascade inspect runs/certified
      cascade calibrate models/sentiment --data unlabelled.txt --agreement 0.02 --json test.json
      cascade calibrate models/sentiment --data reviews.jsonl --no-guarantee --max-drop 0.005 --write
      cascade calibrate models/pos --data tagged.jsonl --max-drop 0.05
    """
    asked = SimpleNamespace(**options, command=shlex.join(["cascade", *arguments]), columns=value_of(Columns, options))
    if asked.max_drop is not None and asked.agreement is not None:
        raise OptionError("--max-drop and --agreement exclude each other; ask for one of them")
    asked.by = "--max-drop" if asked.agreement is None else "--agreement"
    asked.bound = next((bound for bound in (asked.max_drop, asked.agreement) if bound is not None), 0.01)
    asked.progress = sys.stderr.isatty() if asked.progress is None else asked.progress
    _check(asked)
    from cascade.cli.calibrate.run import run  # needs the extra

    return run(asked)


def _check(asked: Any) -> None:
    """Raise an `OptionError` for what does not go together, a `DataError` if there is no file of examples."""
    plain, output = not asked.guarantee, asked.output
    for option, on, fits, rule in (
        ("--no-guarantee", plain and asked.by == "--agreement", False, "used with --max-drop"),
        ("--per-class", asked.per_class, not plain, "used with a guarantee"),
        ("--f1", asked.f1, asked.by == "--max-drop" and plain, "used with --no-guarantee --max-drop"),
    ):
        if on and not fits:
            got = f"{asked.by}{' without a guarantee' * plain}"
            raise OptionError(f"{option} must be {rule}, got {got}; leave it out")
    check_inside(asked.by, asked.bound, "0.01 is one in a hundred")
    check_inside("--confidence", asked.confidence, "0.95 is usual")
    if asked.write and output is not None:
        raise OptionError("--write and --output exclude each other, both were given; leave one out")
    if asked.write and not Path(asked.model).expanduser().is_dir():
        raise OptionError(f"--write needs a bundle in a folder, got {asked.model}; give --output FOLDER instead")
    if output is not None and (output.is_file() or (output.is_dir() and any(output.iterdir()))):
        raise OptionError(f"--output must not be there yet, got {output}; choose another folder")
    check_output("--json", asked.json_file, asked.file)
    if asked.file.is_dir() or not asked.file.exists():
        raise DataError(f"--data must be a file of examples, got {asked.file}; check the path")

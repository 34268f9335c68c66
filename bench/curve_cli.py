"""`cascade-bench curve`: reading its options, and what is checked before minutes of work."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from cascade.bundle.manifest import TAGGING
from cascade.bundle.opening import open_bundle
from cascade.core.files import write
from cascade.exceptions import OptionError
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.tagger import Tagger
from cascade.policies.batching import BatchingPolicy, FixedSize, SortedByLength, TokenBudget
from cascade.runtime.threads import check_threads
from cascade_bench import curve_report, machine
from cascade_bench.compare import read_samples
from cascade_bench.console import bar, check_output
from cascade_bench.curve import curve as measure_curve
from cascade_bench.curve_data import read_for_curve
from cascade_bench.data import Columns
from cascade_bench.options import data_options, json_option, model_argument, threads_option
from cascade_bench.plane import Axes
from cascade_bench.report_json import write_json
from cascade_bench.tag_data import TagColumns

__all__ = ["batching_policy", "curve"]

BATCHING: dict[str, Callable[[int], BatchingPolicy]] = {
    "tokens": TokenBudget,
    "sorted": SortedByLength,
    "fixed": FixedSize,
}
DEFERRALS, TAG_DEFERRALS = 24, 6  # a tagger's tier 2 has to run for each of them

_output = click.Path(path_type=Path)


@click.command(short_help="Accuracy over speed: the front timed, every other setting estimated, bounds beside.")
@model_argument
@data_options
@click.option(
    "--deferrals", type=click.IntRange(min=1), metavar="N", help="Thresholds of tier 1. [default: 24; taggers 6]"
)
@click.option(
    "--exits", type=click.IntRange(min=1), default=12, show_default=True, metavar="N", help="Of tier 2's exits."
)
@click.option("--caps/--no-caps", default=True, help="Sweep caps on depth too.  [default: caps]")
@click.option(
    "--batching",
    "batching",
    multiple=True,
    metavar="P",
    help="Sweep batching too: tokens:1024, sorted:32, fixed:32; give it again for each.",
)
@click.option(
    "--points", type=click.IntRange(min=1), default=6, show_default=True, metavar="N", help="Of the front, timed."
)
@click.option("--repeats", type=click.IntRange(min=1), default=7, show_default=True, metavar="N", help="Turns of each.")
@click.option("--like", "like_file", type=_output, metavar="FILE", help="Time the settings that this JSON has timed.")
@threads_option
@json_option
@click.option("--png", "png_file", type=_output, metavar="FILE", help="Draw it here (extra: bench).")
@click.option("--html", "html_file", type=_output, metavar="FILE", help="One self-contained page (extra: bench).")
def curve(
    model: str,
    file: str,
    text_column: str,
    pair_column: str,
    label_column: str,
    tokens_column: str,
    tags_column: str,
    deferrals: int | None,
    exits: int,
    caps: bool,
    batching: tuple[str, ...],
    points: int,
    repeats: int,
    like_file: Path | None,
    threads: int | None,
    json_file: Path | None,
    png_file: Path | None,
    html_file: Path | None,
) -> None:
    """Sweep deferral and exit thresholds: where every setting lies, and how fast the best of them really are.

    MODEL is a folder or a Hub id, of a classifier or a tagger. Scores are computed once and replayed to place the
    settings, with seconds estimated from measured costs. Some points of the front, tier 2 whole and cut after each exit
    and tier 1 alone are then timed in turns. Without labels agreement with tier 2 at full depth takes the place of
    accuracy.

    \b
    Example:
      cascade-bench curve models/sentiment --data dev.jsonl --threads 2
      cascade-bench curve models/sentiment --data dev.jsonl --json curve.json --png curve.png --html curve.html
      cascade-bench curve models/sentiment --data dev.jsonl --like curve.json --json again.json
      cascade-bench curve models/sentiment --data dev.jsonl --batching tokens:1024 --batching fixed:32
    """
    command = command_line(click.get_current_context())
    _check_outputs(json_file, png_file, html_file)
    policies: tuple[BatchingPolicy | None, ...] = tuple(dict.fromkeys(map(batching_policy, batching))) or (None,)
    like = None if like_file is None else set(read_samples(like_file))
    count = check_threads(threads)
    tagging = open_bundle(model).manifest.task == TAGGING
    made = (Tagger if tagging else Classifier).from_pretrained(model, threads=count)
    before = machine.facts(threads=count)
    given = read_for_curve(
        file,
        made,
        columns=Columns(text_column, pair_column, label_column),
        tag_columns=TagColumns(tokens_column, tags_column),
    )
    axes = Axes(deferrals or (TAG_DEFERRALS if tagging else DEFERRALS), exits, caps, policies)
    with bar() as step:
        found = measure_curve(made, given, axes=axes, count=points, repeats=repeats, like=like, progress=step)
    missing = sorted((like or set()) - {one.row.key for one in found.timed})
    if missing:
        click.echo(f"Not timed, for this sweep does not have them: {'; '.join(missing)}.\n")
    click.echo(curve_report.as_text(found, before))
    details: dict[str, Any] = {"command": command, "model": model, "data": Path(file).name, "repeats": repeats}
    if json_file is not None:
        write_json(json_file, curve_report.as_json(found, before, details))
    if png_file is not None:
        from cascade_bench.plot import write_png

        write_png(found, png_file)
    if html_file is not None:
        from cascade_bench import page

        write(html_file, page.render(found, before, model=model, data=Path(file).name, command=command))


def batching_policy(said: str) -> BatchingPolicy:
    """What `--batching` says.

    Raises:
        OptionError: an unknown name, or no number.
    """
    name, _, number = said.partition(":")
    if name not in BATCHING or not number.isascii() or not number.isdigit():
        known = ", ".join(f"{one}:N" for one in BATCHING)
        raise OptionError(f"--batching must be one of {known}, was: {said}; tokens:1024 is the engine's own")
    return BATCHING[name](int(number))


def command_line(context: click.Context) -> str:
    """The command that a user would type to get the same."""
    words = ["cascade-bench", context.info_name or ""]
    for parameter in context.command.params:
        name = parameter.name or ""
        if context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value = context.params[name]
        if isinstance(parameter, click.Argument):
            words.append(str(value))
        elif isinstance(value, bool):
            words.append((parameter.opts if value else parameter.secondary_opts)[0])
        else:
            for one in value if isinstance(value, tuple) else (value,):
                words += [parameter.opts[0], str(one)]
    return shlex.join(words)


def _check_outputs(json_file: Path | None, png_file: Path | None, html_file: Path | None) -> None:
    """Before anything runs for minutes: whether files can be written, and by what.

    Raises:
        DataError: a file that is a folder, or in none.
        MissingExtraError: no package to draw with.
    """
    for name, file in (("--json", json_file), ("--png", png_file), ("--html", html_file)):
        check_output(name, file)
    if png_file is not None:
        import cascade_bench.plot
    if html_file is not None:
        import cascade_bench.page  # noqa: F401  # it guards its own door, and that of the picture

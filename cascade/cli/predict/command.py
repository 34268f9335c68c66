"""The command `cascade predict`: its options, the pipeline that they ask for, and what is said of shadow sampling."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click
from tqdm import tqdm

from cascade.cli.predict import tables
from cascade.cli.predict.lines import Lines, entities, labels, summary, tags, write
from cascade.core.files import refuse_same_file, text_stream
from cascade.core.rounding import percent_up
from cascade.exceptions import OptionError
from cascade.monitoring.monitor import Monitor
from cascade.monitoring.shift import MEANING
from cascade.monitoring.state import MonitorState
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.loading import load
from cascade.pipelines.tagger import Tagger
from cascade.policies.exits import MaxProbability
from cascade.policies.routing import Budget, Threshold
from cascade.text.entities import AggregationStrategy
from cascade.text.reading import ON_EMPTY, OnError, read_examples
from cascade.text.records import MAX_LINE, FileFormat
from cascade.text.sources import TABLE_FORMS, format_of

STDIN = 0
ON_ALARM: Final = ("warn", "safer")
WITH_LISTS = ("jsonl", "parquet", "arrow")  # formats in which a column can hold lists


@click.command(short_help="Label the texts, or tag the words, of files or of standard input.")
@click.argument("model")
@click.argument("files", metavar="[INPUT]...", nargs=-1)
@click.option("--routes", is_flag=True, help="Add tier, exit (0 in tier 1) and confidence; of a tagger, per word.")
@click.option("--top-k", type=click.IntRange(min=1), metavar="K", help="Add the K likeliest labels to each line.")
@click.option("--aggregation-strategy", "strategy",
              type=click.Choice([strategy.value for strategy in AggregationStrategy]),
              help="Of a tagger: each text's entities, as transformers' pipeline gives them.")  # fmt: skip
@click.option("--threshold", type=float, metavar="P", help="Defer what tier 1 is less sure of than P, in [0, 1].")
@click.option("--budget", type=float, metavar="SHARE", help="Defer at most this share of the rows of each buffer.")
@click.option("--exit-threshold", type=float, metavar="P", help="Leave tier 2 at the first exit that is as sure as P.")
@click.option("--truncation/--no-truncation", default=None,
              help="Cut texts that are too long, as transformers does; no windows.  [default: as MODEL]")  # fmt: skip
@click.option("--text-column", "text", show_default="text", metavar="NAME", help="The texts.")
@click.option("--pair-column", "pair", show_default="text_pair, where there is one", metavar="NAME",
              help="Second texts.")  # fmt: skip
@click.option("--tokens-column", "tokens", show_default="tokens; with --text-column, none", metavar="NAME",
              help="Of a tagger, in jsonl and parquet: the lists of words.")  # fmt: skip
@click.option("--format", "input_form", type=click.Choice([form.value for form in FileFormat]),
              help="Of INPUT.  [default: by its suffix; text for standard input and pipes]")  # fmt: skip
@click.option("--max-line", type=click.FloatRange(0, 1e6, min_open=True), default=MAX_LINE / 1e6, show_default=True,
              metavar="MB", callback=lambda _context, _option, megabytes: max(int(megabytes * 1e6), 1),
              help="A line, or a row of a csv over several, that is longer cannot be read.")  # fmt: skip
@click.option("--on-error", type=click.Choice([way.value for way in OnError]), default="stop", show_default=True,
              help="What a line that cannot be read does: stop all, nothing, or get null for an answer.")  # fmt: skip
@click.option("--on-empty", type=click.Choice(ON_EMPTY), default="answer", show_default=True,
              help='What a blank text gets: an answer, null, an error. Its line says "empty": true.')  # fmt: skip
@click.option("--shadow", type=float, metavar="SHARE", help="Compare this share with tier 2 at full depth, and watch.")
@click.option("--max-disagreement", type=float, metavar="SHARE",
              help="With --shadow: the alarm, when more of all answers differ.  [default: as certified]")  # fmt: skip
@click.option("--on-alarm", type=click.Choice(ON_ALARM),
              help="With --shadow, what else the alarm does: safer: the next safer setting answers.")  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE|FOLDER", help="A file is written whole.")
@click.option("--keep", multiple=True, metavar="NAMES", help="Columns of INPUT that go along: a,b or all.")
@click.option("--prefix", metavar="TEXT", help="Before the names of the columns of answers, as in gold and my_label.")
@click.option("--output-format", "form", type=click.Choice(TABLE_FORMS),
              help="Of a folder's parts.  [default: parquet; of a file its suffix]")  # fmt: skip
@click.option("--part-rows", type=click.IntRange(min=1), metavar="N", help="Rows of a part.  [default: 65536]")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Processes that share the --threads.")
@click.option("--ray", is_flag=True, help="The workers are tasks on the cluster of RAY_ADDRESS. Needs an extra.")
@click.option("--fresh", is_flag=True, help="Clear what a job left in --output, and begin anew.")
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="Of all tiers.  [default: the CPUs allowed]")
@click.option("--progress/--no-progress", default=None, help="A bar on standard error.  [default: on a terminal]")
def predict(model: str, files: tuple[str, ...], output: Path | None, progress: bool | None, **given: Any) -> None:
    """Label the texts, or tag the words, of files or of standard input; one line of JSON or row per row, in order.

    MODEL is a folder or a Hub id. INPUT holds a text per line, or is jsonl, csv, tsv or parquet, or one of these packed
    as .gz or .zst; - or nothing is standard input. When input pauses, what came is answered: tail -f serves too. A
    summary goes to standard error.

    \b
    Example:
      echo "a gripping film" | cascade predict models/sentiment
        {"line": 1, "label": "positive", "score": 0.9981}
      cascade predict models/sentiment reviews.csv --text-column review --routes --output labels.jsonl

    A tagger splits texts into words and says where in the text they are; of jsonl and parquet it reads lists of words,
    unless --text-column names a column of texts.

    \b
    Example:
      echo "A gripping film." | cascade predict models/pos
        {"line": 1, "tokens": ["A", "gripping", "film", "."], "tags": ["DET", "ADJ", "NOUN", "PUNCT"],
         "spans": [[0, 1], [2, 10], [11, 15], [15, 16]]}
      echo '{"tokens": ["A", "film"]}' | cascade predict models/pos --format jsonl --routes
        {"line": 1, "tokens": ["A", "film"], "tags": ["DET", "NOUN"], "tier": [1, 2], "exit": [0, 2],
         "confidence": [0.999, 0.981]}
      echo "Ann lives in Oslo" | cascade predict models/ner --aggregation-strategy simple
        {"line": 1, "text": "Ann lives in Oslo", "entities": [{"entity_group": "PER", "score": 0.998,
         "word": "ann", "start": 0, "end": 3}, ...]}

    Several files, folders and patterns, .arrow files, and an --output that is a folder, .parquet or .csv make a job:
    its parts are written one by one, and the same command again goes on where it was. Jobs have options from --keep on.

    \b
    Example:
      cascade predict models/sentiment data/*.parquet --text-column review --keep id --output labels --workers 2

    With --shadow a sample of the answers is compared with those of tier 2 at full depth. The summary tells how many
    differ; a warning says when it is shown that more do than the certificate allows. Answers stay what they are.

    \b
    Example:
      cascade predict models/sentiment reviews.txt --shadow 0.01 --max-disagreement 0.05
    """
    strategy, file = given["strategy"], files[0] if files else "-"
    job = tables.is_job(files, output, given)
    if output is not None:
        refuse_same_file(output, [STDIN if file == "-" else file, *Path(model).rglob("*")])
    form = given["input_form"] and FileFormat(given["input_form"])
    pipeline = _loaded(model, given)
    if isinstance(pipeline, Tagger):
        of_texts = {"--top-k": given["top_k"], "--pair-column": given["pair"]}
        _refuse(of_texts, f"classifiers, but {model} is a tagger")
        found = form or format_of(Path(file))
        if job:
            from cascade.jobs.inputs import find
        given["tokens"] = _words_column(find(files, form)[0][1] if job else found and found.value, given)
    else:
        of_taggers = {"--tokens-column": given["tokens"], "--aggregation-strategy": strategy}
        _refuse(of_taggers, f"taggers, but {model} is a classifier")
    if progress is None:
        progress = sys.stderr.isatty() and (output is not None or not sys.stdout.isatty())
    if job and output is not None:
        click.echo(tables.predict(pipeline, files, output, form, progress, given), err=True)
        return
    monitor: Monitor[Any] | None = watch(pipeline, given)
    lines: Lines
    if not isinstance(pipeline, Tagger):
        lines = labels(pipeline, routes=given["routes"], top_k=given["top_k"], monitor=monitor)
    elif strategy is not None:
        lines = entities(pipeline, AggregationStrategy(strategy), routes=given["routes"])
    else:
        lines = tags(pipeline, words=given["tokens"] is not None, routes=given["routes"], monitor=monitor)
    examples = read_examples(
        file,
        format=form,
        text_column=given["text"] or "text",
        pair_column=given["pair"] or "text_pair",
        tokens_column=given["tokens"],
        label_column=None,
        max_line=given["max_line"],
        on_error=OnError(given["on_error"]),
        report=lambda error: tqdm.write(f"Warning: {error}", file=sys.stderr),
    )
    begin = time.perf_counter()
    with contextlib.nullcontext(sys.stdout) if output is None else text_stream(output) as out:
        bar = tqdm(examples, unit=" rows", file=sys.stderr, disable=not progress, leave=False)
        counts = write(bar, out, lines, on_empty=given["on_empty"])
    click.echo(summary(counts, lines.unit, time.perf_counter() - begin), err=True)
    if monitor is not None:
        click.echo(in_words(monitor.report()), err=True)


def _loaded(model: str, given: Mapping[str, Any]) -> Classifier | Tagger:
    """The pipeline, with the policies that are asked for."""
    threshold, budget = given["threshold"], given["budget"]
    if threshold is not None and budget is not None:
        raise OptionError("--threshold and --budget exclude each other, both were given; leave one out")
    pipeline = load(model, threads=tables.threads(given), truncation=given["truncation"])
    if threshold is not None:
        pipeline = pipeline.with_router(Threshold(threshold))
    if budget is not None:
        pipeline = pipeline.with_router(Budget(budget))
    if given["exit_threshold"] is not None:
        pipeline = pipeline.with_exit_policy(MaxProbability(given["exit_threshold"]))
    return pipeline


def _words_column(form: str | None, given: Mapping[str, Any]) -> str | None:
    """The column of lists of words; `None` where a tagger reads texts, as it must where entities are asked for."""
    texts = {"--text-column": given["text"], "--aggregation-strategy": given["strategy"]}
    names, tokens = [name for name, value in texts.items() if value is not None], given["tokens"]
    if tokens is None:
        return "tokens" if form in WITH_LISTS and not names else None
    if names:
        raise OptionError(f"--tokens-column and {names[0]} exclude each other, both were given; leave one out")
    return str(tokens)


def _refuse(options: Mapping[str, object], whose: str) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise OptionError(f"{' and '.join(given)} must be used with {whose}; leave {'them' if given[1:] else 'it'} out")


def watch(pipeline: Classifier | Tagger, given: Mapping[str, Any]) -> Monitor[Any] | None:
    """The monitor that `--shadow`, `--max-disagreement` and `--on-alarm` ask for; it warns once there is an alarm.

    Options that need or exclude each other (`--aggregation-strategy` too) are an `OptionError`.
    """
    share, bound, on_alarm = (given[name] for name in ("shadow", "max_disagreement", "on_alarm"))
    if share is None:
        for name, other in (("--max-disagreement", bound), ("--on-alarm", on_alarm)):
            if other is not None:
                raise OptionError(f"{name} must be used with --shadow; add --shadow 0.01 or leave it out")
        return None
    if given["strategy"] is not None:
        raise OptionError("--shadow and --aggregation-strategy exclude each other; words are compared, not entities")

    def warn(monitor: Monitor[Any]) -> None:
        report = monitor.report()
        said = (
            f"alarm at answer {report.alarm_at}: more than {percent_up(report.bound or 0)} of all answers differ from "
            f"tier 2 at full depth ({report.disagreements} of the {report.shadowed} shadowed)"
        )
        if on_alarm == "safer":
            said += "; a safer setting answers from here on" if monitor.safer() else "; nothing is safer"
        tqdm.write(f"Warning: {said}", file=sys.stderr)

    def say(monitor: Monitor[Any]) -> None:
        report = monitor.report()
        tqdm.write(
            f"Warning: from answer {report.shifted_at} on it is shown that texts are of another kind than those of the "
            f"bundle's profile, most of all by {MEANING[str(report.shift and report.shift.feature)]}; what was "
            "certified is about texts like those",
            file=sys.stderr,
        )

    monitor = Monitor(pipeline, share=share, bound=bound, on_alarm=warn, on_shift=say)
    if on_alarm is not None and monitor.report().bound is None:
        raise OptionError("--on-alarm must have a bound, but there is no certificate; give --max-disagreement")
    return monitor


def in_words(report: MonitorState) -> str:
    """What a monitor knows, in one line."""
    found = "shadowed nothing"
    if report.shadowed:
        lower, upper = report.interval
        found = (
            f"shadowed {report.shadowed}, {report.disagreements} "
            f"{'differs' if report.disagreements == 1 else 'differ'} from tier 2 at full depth; of all answers "
            f"{lower:.2%} to {upper:.2%} do"
        )
    if report.raised:
        found += f", since the setting was made safer {'once' if report.raised == 1 else f'{report.raised} times'}"
    if report.bound is None:
        return f"{found}; there is no bound to watch"
    alarm = "no alarm" if report.alarm_at is None else f"alarm at answer {report.alarm_at}"
    return f"{found}; {alarm} (bound {percent_up(report.bound)})"

"""The command `cascade predict`: its options, and the pipeline that they ask for."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from cascade.cli.predict.lines import Lines, OnEmpty, Writer, entities, labels, tags, without_empty
from cascade.cli.predict.shadowing import ON_ALARM, in_words, watch
from cascade.core.files import refuse_same_file, text_stream
from cascade.exceptions import OptionError
from cascade.monitoring.monitor import Monitor
from cascade.pipelines.loading import load
from cascade.pipelines.tagger import Tagger
from cascade.policies.exits import MaxProbability
from cascade.policies.routing import Budget, Threshold
from cascade.text.entities import AggregationStrategy
from cascade.text.reading import OnError, read_examples
from cascade.text.records import MAX_LINE, FileFormat
from cascade.text.sources import format_of

STDIN = 0
WITH_LISTS = (FileFormat.JSONL, FileFormat.PARQUET)  # formats in which a column can hold lists


@click.command(short_help="Label the texts, or tag the words, of a file or of standard input.")
@click.argument("model")
@click.argument("file", default="-")
@click.option("--routes", is_flag=True, help="Add tier, exit (0 in tier 1) and confidence; of a tagger, per word.")
@click.option("--top-k", type=click.IntRange(min=1), metavar="K", help="Add the K likeliest labels to each line.")
@click.option(
    "--aggregation-strategy",
    "strategy",
    type=click.Choice([strategy.value for strategy in AggregationStrategy]),
    help="Of a tagger: give each text's entities as transformers' pipeline does, not its words.",
)
@click.option("--threshold", type=float, metavar="P", help="Defer what tier 1 is less sure of than P, in [0, 1].")
@click.option("--budget", type=float, metavar="SHARE", help="Defer at most this share of the rows of each buffer.")
@click.option("--exit-threshold", type=float, metavar="P", help="Leave tier 2 at the first exit that is as sure as P.")
@click.option(
    "--truncation/--no-truncation",
    default=None,
    help="Cut texts that are too long, as transformers does, or read them in windows.  [default: as MODEL says]",
)
@click.option("--text-column", show_default="text", metavar="NAME", help="The texts.")
@click.option("--pair-column", show_default="text_pair, where there is one", metavar="NAME", help="Second texts.")
@click.option(
    "--tokens-column",
    show_default="tokens; with --text-column, none",
    metavar="NAME",
    help="Of a tagger, in jsonl and parquet: the lists of words.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice([form.value for form in FileFormat]),
    help="Of FILE.  [default: by its suffix; text for standard input and pipes]",
)
@click.option(
    "--max-line",
    type=click.FloatRange(0, 1e6, min_open=True),
    default=MAX_LINE / 1e6,
    show_default=True,
    metavar="MB",
    help="A line, or a row of a csv over several, that is longer cannot be read.",
)
@click.option(
    "--on-error",
    type=click.Choice([way.value for way in OnError]),
    default="stop",
    show_default=True,
    help="What a line that cannot be read does: stop the command, nothing, or get a line with null for an answer.",
)
@click.option(
    "--on-empty",
    type=click.Choice([way.value for way in OnEmpty]),
    default="answer",
    show_default=True,
    help='What an empty or blank text gets: an answer, null, or an error. Its line says "empty": true.',
)
@click.option("--shadow", type=float, metavar="SHARE", help="Compare this share with tier 2 at full depth, and watch.")
@click.option(
    "--max-disagreement",
    type=float,
    metavar="SHARE",
    help="With --shadow: raise the alarm when more of all answers differ.  [default: as the certificate has it]",
)
@click.option(
    "--on-alarm",
    type=click.Choice(ON_ALARM),
    help="With --shadow: what the alarm does beside a warning; safer: the next safer setting answers.  [default: warn]",
)
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="Written whole or not at all.")
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="Of all tiers.  [default: the CPUs allowed]")
@click.option("--progress/--no-progress", default=None, help="A bar on standard error.  [default: on a terminal]")
def predict(
    model: str,
    file: str,
    routes: bool,
    top_k: int | None,
    strategy: str | None,
    threshold: float | None,
    budget: float | None,
    exit_threshold: float | None,
    truncation: bool | None,
    text_column: str | None,
    pair_column: str | None,
    tokens_column: str | None,
    form: str | None,
    max_line: float,
    on_error: str,
    on_empty: str,
    shadow: float | None,
    max_disagreement: float | None,
    on_alarm: str | None,
    output: Path | None,
    threads: int | None,
    progress: bool | None,
) -> None:
    """Label the texts, or tag the words, of a file or of standard input; one line of JSON per row, in order.

    MODEL is a folder or a Hub id. FILE holds a text per line, or is jsonl, csv, tsv or parquet, or one of these packed
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

    With --shadow a sample of the answers is compared with those of tier 2 at full depth. The summary tells how many
    differ; a warning says when it is shown that more do than the certificate allows. Answers stay what they are.

    \b
    Example:
      cascade predict models/sentiment reviews.txt --shadow 0.01 --max-disagreement 0.05
    """
    if threshold is not None and budget is not None:
        raise OptionError("--threshold and --budget exclude each other, both were given; leave one out")
    if output is not None:
        refuse_same_file(output, [STDIN if file == "-" else file, *Path(model).rglob("*")])
    pipeline = load(model, threads=threads, truncation=truncation)
    if threshold is not None:
        pipeline = pipeline.with_router(Threshold(threshold))
    if budget is not None:
        pipeline = pipeline.with_router(Budget(budget))
    if exit_threshold is not None:
        pipeline = pipeline.with_exit_policy(MaxProbability(exit_threshold))
    if isinstance(pipeline, Tagger):
        _refuse({"--top-k": top_k, "--pair-column": pair_column}, f"classifiers, but {model} is a tagger")
        tokens_column = _words_column(file, form, text=text_column, tokens=tokens_column, strategy=strategy)
    else:
        of_taggers = {"--tokens-column": tokens_column, "--aggregation-strategy": strategy}
        _refuse(of_taggers, f"taggers, but {model} is a classifier")
    monitor: Monitor[Any] | None = watch(pipeline, shadow, bound=max_disagreement, on_alarm=on_alarm, strategy=strategy)
    lines: Lines
    if not isinstance(pipeline, Tagger):
        lines = labels(pipeline, routes=routes, top_k=top_k, monitor=monitor)
    elif strategy is not None:
        lines = entities(pipeline, AggregationStrategy(strategy), routes=routes)
    else:
        lines = tags(pipeline, words=tokens_column is not None, routes=routes, monitor=monitor)
    examples = read_examples(
        file,
        format=None if form is None else FileFormat(form),
        text_column=text_column or "text",
        pair_column=pair_column or "text_pair",
        tokens_column=tokens_column,
        label_column=None,
        max_line=max(int(max_line * 1e6), 1),
        on_error=OnError(on_error),
        report=lambda error: tqdm.write(f"Warning: {error}", file=sys.stderr),
    )
    if progress is None:
        progress = sys.stderr.isatty() and (output is not None or not sys.stdout.isatty())
    begin = time.perf_counter()
    with contextlib.nullcontext(sys.stdout) if output is None else text_stream(output) as out:
        writer = Writer(out=out, lines=lines)
        examples = without_empty(examples, OnEmpty(on_empty))
        writer.write(tqdm(examples, unit=" rows", file=sys.stderr, disable=not progress, leave=False))
        out.flush()
    click.echo(writer.summary(time.perf_counter() - begin), err=True)
    if monitor is not None:
        click.echo(in_words(monitor.report()), err=True)


def _words_column(
    file: str, form: str | None, *, text: str | None, tokens: str | None, strategy: str | None
) -> str | None:
    """The column of lists of words; `None` where a tagger reads texts, as it must where entities are asked for."""
    if tokens is None:
        found = format_of(Path(file)) if form is None else FileFormat(form)
        return "tokens" if found in WITH_LISTS and text is None and strategy is None else None
    for name, other in (("--text-column", text), ("--aggregation-strategy", strategy)):
        if other is not None:
            raise OptionError(f"--tokens-column and {name} exclude each other, both were given; leave one out")
    return tokens


def _refuse(options: Mapping[str, object], whose: str) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise OptionError(f"{' and '.join(given)} must be used with {whose}; leave {'them' if given[1:] else 'it'} out")

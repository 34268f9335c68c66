"""`cascade tune`: which batches are fastest on this host, on the user's texts."""

from __future__ import annotations

import sys
from itertools import islice
from typing import Any

import click

from cascade.cli.show import duration
from cascade.core.console import table
from cascade.core.statistics import shown
from cascade.exceptions import OptionError
from cascade.pipelines import tuning
from cascade.pipelines.loading import load
from cascade.runtime.threads import check_threads
from cascade.text.reading import read_examples


@click.command(short_help="Time batches on your texts and this host; keep what is faster.")
@click.argument("model")
@click.option("--texts", "file", required=True, metavar="FILE", help="Texts like those to come; - is standard input.")
@click.option("--limit", type=click.IntRange(min=1), default=1000, show_default=True, metavar="N", help="Read so many.")
@click.option("--text-column", default="text", show_default=True, metavar="NAME", help="The texts.")
@click.option("--tokens-column", metavar="NAME", help="Of a tagger: lists of words, read instead of texts.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), default=2.0, show_default=True, metavar="TIME",
              help="Take about so long at most; texts that do not fit are left out.")  # fmt: skip
@click.option("--repeats", type=click.IntRange(min=5), default=5, show_default=True, metavar="N", help="Turns.")
@click.option("--write", is_flag=True, help="Keep the result for MODEL, this host and N threads; loading uses it.")
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="Of all tiers.  [default: the CPUs allowed]")
@click.option("--progress/--no-progress", default=None, help="A bar on standard error.  [default: on a terminal]")
def tune(model: str, file: str, limit: int, write: bool, progress: bool | None, **given: Any) -> None:
    """Time token budgets on your texts and this host. No answer changes.

    MODEL is a folder or a Hub id. FILE holds a text per line, or is jsonl, csv, tsv or parquet; give as many texts as a
    usual call has, and more minutes where 2 are not enough for all of them. A budget is kept if it is faster beyond
    noise. With --write, whoever loads MODEL on this host gets it, but for tuned=False. Whether tiers and exits pay,
    cascade-bench table tells.

    \b
    Example:
      cascade tune models/sentiment --texts reviews.txt --write
    """
    minutes, repeats = given["minutes"], given["repeats"]
    threads = check_threads(given["threads"])
    pipeline = load(model, threads=threads, tuned=False)
    names = {name: given[name] for name in ("text_column", "tokens_column")}
    examples = read_examples(file, **names, label_column=None)
    texts = [one.item for one in islice(examples, limit)]
    show = sys.stderr.isatty() if progress is None else progress
    found = tuning.tune(pipeline, texts, minutes=minutes, repeats=repeats, show_progress=show)
    cut = f"{found.texts} of " if found.texts < len(texts) else ""
    fitting = f" (as many as {minutes:g} minutes allow)" if cut else ""
    click.echo(f"{model}, {cut}{len(texts)} texts{fitting}, {repeats} turns, {threads} threads\n")
    rows = [[one.name, duration(one.seconds), shown(one.speed_up)] for one in found.budgets]
    click.echo(table(["tokens by tier", "time", "times as fast as now"], rows, right=(1, 2)))
    pairs = enumerate(zip(pipeline.max_tokens, found.max_tokens, strict=True), 1)
    kept = [f"{new} in tier {tier}, {'as before' if new == old else f'not {old}'}" for tier, (old, new) in pairs]
    click.echo(f"\nKept: {'; '.join(kept)}.")
    if write:
        try:
            click.echo(f"\nWritten to {found.write(pipeline.bundle, threads=threads)}")
        except OptionError as error:
            click.echo(f"Warning: nothing is kept: {error}", err=True)

"""Options that commands share: the bundle, the labelled file, threads, a file for everything."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cascade.runtime.threads import check_threads
from cascade_bench.systems.local import Model, load
from cascade_bench.table.data import Columns, Data, read_data
from cascade_bench.timing import machine

Command = Callable[..., None]


def count_option(name: str, default: int, text: str, *, least: int = 1) -> Callable[[Command], Command]:
    """An option that takes a whole number of at least `least`."""
    kind = click.IntRange(min=least)
    return click.option(name, type=kind, default=default, show_default=True, metavar="N", help=text)


def file_option(name: str, parameter: str, text: str) -> Callable[[Command], Command]:
    """An option that takes a path."""
    return click.option(name, parameter, type=click.Path(path_type=Path), metavar="FILE", help=text)


model_argument = click.argument("model")
threads_option = click.option("--threads", type=click.IntRange(min=1), metavar="N", help="[default: the CPUs allowed]")
json_option = file_option("--json", "json_file", "Write all of it here.")
markdown_option = click.option("--markdown", is_flag=True, help="Print the table for a README.")
repeats_option = count_option("--repeats", 7, "Turns of each.")
_DATA = (
    click.option("--data", "file", required=True, metavar="FILE", help="Texts, labelled or not: jsonl, csv, parquet."),
    click.option("--text-column", default="text", show_default=True, metavar="NAME", help="The texts."),
    click.option("--pair-column", default="text_pair", show_default=True, metavar="NAME", help="The second texts."),
    click.option("--label-column", default="label", show_default=True, metavar="NAME", help="The labels."),
    click.option("--tokens-column", default="tokens", show_default=True, metavar="NAME", help="A tagger's words."),
    click.option("--tags-column", default="tags", show_default=True, metavar="NAME", help="And their tags."),
)


def opened(model: str, file: str, columns: Columns, threads: int | None) -> tuple[Model, Data, dict[str, Any], int]:
    """What a command measures: the bundle, the file, facts about the machine, and the threads of all."""
    count = check_threads(threads)
    pipeline = load(model, threads=count)
    return pipeline, read_data(file, pipeline, columns=columns), machine.facts(threads=count), count


def data_options(command: Command) -> Command:
    """Options that name a file and its columns; the command is given `file` and `columns`."""

    @functools.wraps(command)
    def collected(
        *, text_column: str, pair_column: str, label_column: str, tokens_column: str, tags_column: str, **others: object
    ) -> None:
        columns = Columns(text_column, pair_column, label_column, tokens_column, tags_column)
        command(columns=columns, **others)

    for option in reversed(_DATA):
        collected = option(collected)
    return collected

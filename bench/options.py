"""Options that commands share: the bundle, the labelled file, threads, a file for everything."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import click

from cascade_bench.table.data import Columns

Command = Callable[..., None]

model_argument = click.argument("model")
threads_option = click.option("--threads", type=click.IntRange(min=1), metavar="N", help="[default: the CPUs allowed]")
json_option = click.option(
    "--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Write all of it here."
)
markdown_option = click.option("--markdown", is_flag=True, help="Print the table for a README.")
repeats_option = click.option(
    "--repeats", type=click.IntRange(min=1), default=7, show_default=True, metavar="N", help="Turns of each."
)
_DATA = (
    click.option("--data", "file", required=True, metavar="FILE", help="Texts, labelled or not: jsonl, csv, parquet."),
    click.option("--text-column", default="text", show_default=True, metavar="NAME", help="The texts."),
    click.option("--pair-column", default="text_pair", show_default=True, metavar="NAME", help="The second texts."),
    click.option("--label-column", default="label", show_default=True, metavar="NAME", help="The labels."),
    click.option("--tokens-column", default="tokens", show_default=True, metavar="NAME", help="A tagger's words."),
    click.option("--tags-column", default="tags", show_default=True, metavar="NAME", help="And their tags."),
)


def data_options(command: Command) -> Command:
    """Options that name a file and its columns; the command is given `file` and `columns`."""

    @functools.wraps(command)
    def collected(
        *,
        text_column: str,
        pair_column: str,
        label_column: str,
        tokens_column: str,
        tags_column: str,
        **others: object,
    ) -> None:
        columns = Columns(text_column, pair_column, label_column, tokens_column, tags_column)
        command(columns=columns, **others)

    for option in reversed(_DATA):
        collected = option(collected)
    return collected

"""What the commands share: the bundle, the labelled file, threads, a file for everything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

__all__ = ["data_options", "json_option", "model_argument", "text_options", "threads_option", "together"]

Command = Callable[..., None]


def together(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


model_argument = click.argument("model")
threads_option = click.option("--threads", type=click.IntRange(min=1), metavar="N", help="[default: the CPUs allowed]")
json_option = click.option(
    "--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Write all of it here."
)
text_options = together(
    click.option(
        "--data", "file", required=True, metavar="FILE", help="Texts, labelled or not: txt, jsonl, csv, parquet."
    ),
    click.option("--text-column", default="text", show_default=True, metavar="NAME", help="The texts."),
    click.option("--pair-column", default="text_pair", show_default=True, metavar="NAME", help="The second texts."),
)
data_options = together(
    click.option("--data", "file", required=True, metavar="FILE", help="Labelled jsonl, csv or parquet."),
    click.option("--text-column", default="text", show_default=True, metavar="NAME", help="The texts."),
    click.option("--pair-column", default="text_pair", show_default=True, metavar="NAME", help="The second texts."),
    click.option("--label-column", default="label", show_default=True, metavar="NAME", help="The labels."),
    click.option("--tokens-column", default="tokens", show_default=True, metavar="NAME", help="A tagger's words."),
    click.option("--tags-column", default="tags", show_default=True, metavar="NAME", help="And their tags."),
)

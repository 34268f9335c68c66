"""Options that commands share: the bundle, the labelled file, turns, threads, a file for everything."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from cascade.core.files import check_output
from cascade.pipelines.loading import load
from cascade.runtime.threads import check_threads
from cascade_bench.systems.local import Model, check_tiers
from cascade_bench.table.data import Data, read_data
from cascade_bench.timing import machine

Command = Callable[..., None]

COLUMNS = {
    "text-column": "The texts.  [default: text]",
    "pair-column": "The second texts.  [default: text_pair]",
    "label-column": "The labels.  [default: label; of a tagger: tags]",
    "tokens-column": "Of a tagger: the words.  [default: tokens]",
    "label-separator": "Between several labels in one string, as in a csv: a|c.",
}
"""By option; the names that `read_examples` has for them are alike."""


def count_option(name: str, default: int, text: str, *, least: int = 1) -> Callable[[Command], Command]:
    """An option that takes a whole number of at least `least`."""
    kind = click.IntRange(min=least)
    return click.option(name, type=kind, default=default, show_default=True, metavar="N", help=text)


model_argument = click.argument("model")
threads_option = click.option("--threads", type=click.IntRange(min=1), metavar="N", help="[default: the CPUs allowed]")
FILE = click.Path(path_type=Path)
json_option = click.option("--json", "json_file", type=FILE, metavar="FILE", help="Write all of it here.")
markdown_option = click.option("--markdown", is_flag=True, help="Print the table for a README.")


@dataclass(frozen=True)
class Asked:
    """What a command measures and how: a bundle on a labelled file, in turns; where all of it is written."""

    model: str
    file: str
    columns: dict[str, str | None]
    repeats: int
    threads: int | None
    json_file: Path | None

    def open(self, *, tiers: int = 2) -> tuple[Model, Data, dict[str, Any], int]:
        """The bundle, the file, facts about the machine, and the threads of all; the output is checked first.

        `tiers`: that the bundle must have, at least.
        """
        check_output("--json", self.json_file, self.file)
        count = check_threads(self.threads)
        pipeline = load(self.model, threads=count)
        check_tiers(pipeline, tiers)
        return pipeline, read_data(self.file, pipeline, columns=self.columns), machine.facts(threads=count), count

    @property
    def details(self) -> dict[str, Any]:
        """For JSON files."""
        return {"model": self.model, "data": Path(self.file).name, "repeats": self.repeats}


def labelled_file_options(command: Command) -> Command:
    """The argument and the options of an `Asked`, which the command is given in their place."""

    @functools.wraps(command)
    def collected(
        *, model: str, file: str, repeats: int, threads: int | None, json_file: Path | None, **others: Any
    ) -> None:
        columns = {name: others.pop(name) for name in (option.replace("-", "_") for option in COLUMNS)}
        columns = {name: value for name, value in columns.items() if value is not None}
        command(Asked(model, file, columns, repeats, threads, json_file), **others)

    options: list[Callable[[Command], Command]] = [
        model_argument,
        click.option(
            "--data", "file", required=True, metavar="FILE", help="Texts, labelled or not: jsonl, csv, parquet."
        ),
        *(click.option(f"--{name}", metavar="TEXT", help=text) for name, text in COLUMNS.items()),
        count_option("--repeats", 7, "Turns of each."),
        threads_option,
        json_option,
    ]
    made: Command = collected
    for option in reversed(options):
        made = option(made)
    return made

"""Options that commands share: the bundle, the labelled file, turns, threads, a file for everything."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click

from cascade.core.files import check_output
from cascade.core.options import options_of, value_of
from cascade.exceptions import OptionError
from cascade.pipelines.loading import load
from cascade.runtime.threads import check_threads
from cascade.text.labelled import Columns
from cascade_bench.systems.local import Model
from cascade_bench.table.data import Data, read_data
from cascade_bench.timing import machine

Command = Callable[..., None]


def count_option(name: str, default: int, text: str, *, least: int = 1) -> Callable[[Command], Command]:
    """An option that takes a whole number of at least `least`."""
    kind = click.IntRange(min=least)
    return click.option(name, type=kind, default=default, show_default=True, metavar="N", help=text)


model_argument = click.argument("model")
data_option = click.option("--data", "file", required=True, metavar="FILE",
                           help="Texts, labelled or not: jsonl, csv, parquet.")  # fmt: skip
threads_option = click.option("--threads", type=click.IntRange(min=1), metavar="N", help="[default: the CPUs allowed]")
FILE = click.Path(path_type=Path)
json_option = click.option("--json", "json_file", type=FILE, metavar="FILE", help="Write all of it here.")
markdown_option = click.option("--markdown", is_flag=True, help="Print the table for a README.")


@dataclass(frozen=True)
class Asked:
    """What a command measures and how: a bundle on a labelled file, in turns; where all of it is written."""

    model: str
    file: str
    columns: Columns
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
        if len(pipeline.tiers) < tiers:
            told = f"got {len(pipeline.tiers)} in {pipeline.bundle.folder}; cascade-bench peers takes any bundle"
            raise OptionError(f"a cascade must have {tiers} tiers, {told}")
        return pipeline, read_data(self.file, pipeline, columns=self.columns), machine.facts(threads=count), count

    @property
    def details(self) -> dict[str, Any]:
        """For JSON files."""
        return {"model": self.model, "data": Path(self.file).name, "repeats": self.repeats}


def labelled_file_options(command: Command) -> Command:
    """The argument and the options of an `Asked`, which the command is given in their place."""

    @model_argument
    @data_option
    @options_of(Columns)
    @count_option("--repeats", 7, "Turns of each.")
    @threads_option
    @json_option
    @functools.wraps(command)
    def collected(**given: Any) -> None:
        own = [field.name for kind in (Asked, Columns) for field in fields(kind)]
        others = {name: value for name, value in given.items() if name not in own}
        command(value_of(Asked, given | {"columns": value_of(Columns, given)}), **others)

    return collected

"""Options that several commands of `cascade-train` share, and what they are turned into."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from cascade.text.reading import Columns, TagColumns
from cascade.training.run import Run
from cascade.training.task import CLASSIFICATION, TASKS, Task

Command = Callable[..., None]


def shared(command: Command) -> Command:
    """Options of every kind of training."""
    return _with(
        command,
        click.option("--train", multiple=True, required=True, metavar="FILE", help="Labelled rows; may be repeated."),
        click.option("--eval", "evaluation", metavar="FILE", help="Labelled rows; choose the best epoch."),
        click.option("--output", required=True, type=click.Path(path_type=Path), help="Folder for the trained model."),
        click.option("--overwrite", is_flag=True, help="Write into a folder that is not empty."),
        click.option("--resume", is_flag=True, help="Go on from the last whole checkpoint in --output."),
        click.option("--batch-size", default=32, show_default=True, help="Rows per step."),
        click.option("--warmup", default=0.06, show_default=True, help="Share of the steps with a rising rate."),
        click.option("--weight-decay", default=0.01, show_default=True, help="AdamW's."),
        click.option(
            "--average", default=0.0, show_default=True, help="Decay per step of a moving average of the weights."
        ),
        click.option("--max-length", default=128, show_default=True, help="Tokens per row, in training."),
        click.option("--seed", default=1, show_default=True, help="Of weights, order and dropout."),
        click.option("--tokens-column", default="tokens", show_default=True, help="Lists of words, for tagging."),
        click.option("--tags-column", default="tags", show_default=True, help="A tag per word, for tagging."),
    )


def text_columns(command: Command) -> Command:
    """The columns of labelled texts."""
    return _with(
        command,
        click.option("--text-column", default="text", show_default=True),
        click.option("--pair-column", default="text_pair", show_default=True),
        click.option("--label-column", default="label", show_default=True),
    )


def layer_weights(command: Command) -> Command:
    """Weights of the exits' losses."""
    shown = "Weight of each exit's loss; rising 1,2,3,... by default."
    return click.option("--layer-weights", "weights", callback=numbers(float), metavar="W,W,...", help=shown)(command)


def task_option(command: Command) -> Command:
    """`--task`, as a `Task`."""
    return click.option(
        "--task",
        type=click.Choice(sorted(TASKS)),
        default="classification",
        show_default=True,
        callback=lambda _context, _parameter, name: TASKS[name],
        help="A label per text, or a tag per word.",
    )(command)


def run_of(source: str, given: dict[str, Any], task: Task) -> Run:
    """What every recipe takes beside its options."""
    columns: Columns | TagColumns = TagColumns(tokens=given["tokens_column"], tags=given["tags_column"])
    if task is CLASSIFICATION:
        columns = Columns(text=given["text_column"], pair=given["pair_column"], label=given["label_column"])
    return Run(
        source=source,
        train=given["train"],
        evaluation=given["evaluation"],
        output=given["output"],
        task=task,
        columns=columns,
        overwrite=given["overwrite"],
    )


def chosen(kind: type[Any], given: dict[str, Any]) -> dict[str, Any]:
    """Those of the options that fields of a dataclass are called by."""
    return {field.name: given[field.name] for field in fields(kind) if field.name in given}


def numbers(kind: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """The callback of an option of numbers between commas, which become a tuple; None stays None."""

    def convert(_context: click.Context, _parameter: click.Parameter, text: str | None) -> tuple[Any, ...] | None:
        try:
            return None if text is None else tuple(kind(part) for part in text.split(","))
        except ValueError:
            raise click.BadParameter(f"must be numbers separated by commas, got {text}") from None

    return convert


def report(made: dict[str, Any], output: Path) -> None:
    """One line about what was trained."""
    scores = ", ".join(f"{name.replace('_', ' ')} {value * 100:.2f}" for name, value in made["scores"].items())
    click.echo(f"wrote {output} in {made['seconds']:.0f} s{': ' + scores if scores else ''}")


def _with(command: Command, *options: Callable[[Command], Command]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command

"""Options that several commands of `cascade-train` share, and what they are turned into."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from cascade.text.reading import Columns, TagColumns
from cascade.training.run import Run
from cascade.training.task import TAGGING, TASKS, Task

Command = Callable[..., None]
Value = TypeVar("Value")


def shared(*, epochs: float, learning_rate: float) -> Callable[[Command], Command]:
    """Options of every kind of training, with these defaults."""
    return _options(
        click.option("--train", multiple=True, required=True, metavar="FILE", help="Rows to learn from; repeatable."),
        click.option("--eval", "evaluation", metavar="FILE", help="Rows that choose the best epoch."),
        click.option("--output", required=True, type=click.Path(path_type=Path), help="Folder for the trained model."),
        click.option("--overwrite", is_flag=True, help="Write into a folder that is not empty."),
        click.option("--resume", is_flag=True, help="Go on from the last whole checkpoint in --output."),
        click.option("--epochs", default=epochs, show_default=True, help="Passes over the training rows."),
        click.option("--learning-rate", default=learning_rate, show_default=True, help="Of all but the exits' heads."),
        click.option("--batch-size", default=32, show_default=True, help="Rows per step."),
        click.option("--warmup", default=0.06, show_default=True, help="Share of the steps with a rising rate."),
        click.option("--weight-decay", default=0.01, show_default=True, help="AdamW's."),
        click.option(
            "--average", default=0.0, show_default=True, help="Decay per step of a moving average of the weights."
        ),
        click.option("--bf16", is_flag=True, help="Multiply in bfloat16: twice as fast and more on CPUs with AMX."),
        click.option("--max-length", default=128, show_default=True, help="Tokens per row, in training."),
        click.option("--seed", default=1, show_default=True, help="Of weights, order and dropout."),
        tag_columns,
    )


def numbers(kind: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """The callback of an option of numbers between commas, which become a tuple; None stays None."""

    def convert(_context: click.Context, _parameter: click.Parameter, text: str | None) -> tuple[Any, ...] | None:
        try:
            return None if text is None else tuple(kind(part) for part in text.split(","))
        except ValueError:
            raise click.BadParameter(f"must be numbers separated by commas, got {text}") from None

    return convert


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    return lambda command: reduce(lambda taken, option: option(taken), reversed(options), command)


tag_columns = _options(
    click.option("--tokens-column", default="tokens", show_default=True, help="Lists of words, for tagging."),
    click.option("--tags-column", default="tags", show_default=True, help="A tag per word, for tagging."),
)
text_columns = _options(
    click.option("--text-column", default="text", show_default=True),
    click.option("--pair-column", default="text_pair", show_default=True),
    click.option("--label-column", default="label", show_default=True),
    click.option("--label-separator", metavar="TEXT", help="Between several labels in one string, as in a csv: a|c."),
)
answering = _options(
    click.option(
        "--answers",
        metavar="BUNDLE",
        help="Learn what this bundle answers, through the engine: any size, other pieces.",
    ),
    click.option("--imitation", default=0.7, show_default=True, help="Share of the loss from the teacher's answers."),
    click.option("--extra-text", multiple=True, metavar="FILE", help="More text; labels are not read."),
    click.option("--shared", type=click.Path(path_type=Path), help="Folder where runs share what teachers answered."),
)
exit_heads = _options(
    click.option("--head-factor", default=10.0, show_default=True, help="Heads learn this many times faster."),
    click.option(
        "--layer-weights",
        "weights",
        callback=numbers(float),
        metavar="W,W,...",
        help="Weight of each exit's loss; rising 1,2,3,... by default.",
    ),
)
task_option = click.option(
    "--task",
    type=click.Choice(sorted(TASKS)),
    default="classification",
    show_default=True,
    callback=lambda _context, _parameter, name: TASKS[name],
    help="A label per text, or a tag per word.",
)


def columns_of(given: dict[str, Any], *, tags: bool) -> Columns | TagColumns:
    """What `text_columns` or `tag_columns` are."""
    if tags:
        return TagColumns(tokens=given["tokens_column"], tags=given["tags_column"])
    names = {name: given[f"{name}_column"] for name in ("text", "pair", "label")}
    return Columns(**names, separator=given["label_separator"])


def run_of(source: str, given: dict[str, Any], task: Task) -> Run:
    """What every recipe takes beside its options."""
    columns = columns_of(given, tags=task is TAGGING)
    return value_of(Run, given | {"source": source, "task": task, "columns": columns})


def value_of(kind: type[Value], given: dict[str, Any]) -> Value:
    """A dataclass from those of the options that its fields are called by."""
    return kind(**{field.name: given[field.name] for field in fields(cast("Any", kind)) if field.name in given})


def report(trained: dict[str, Any], output: Path) -> None:
    """One line about what was trained."""
    scores = ", ".join(f"{name.replace('_', ' ')} {value * 100:.2f}" for name, value in trained["scores"].items())
    click.echo(f"wrote {output} in {trained['seconds']:.0f} s{': ' + scores if scores else ''}")

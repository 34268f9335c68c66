"""Options that several commands of `cascade-train` share, and what they are turned into."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from cascade.exceptions import OptionError
from cascade.training.data import Columns
from cascade.training.loop import LoopOptions
from cascade.training.tag_data import TagColumns

__all__ = ["columns", "loop", "not_for_tagging", "numbers", "say", "shared", "tag_columns", "task"]


def shared(command: Callable[..., None]) -> Callable[..., None]:
    """Options of every kind of training."""
    for option in reversed(
        [
            click.option(
                "--train", "train", multiple=True, required=True, metavar="FILE", help="Labelled rows; may be repeated."
            ),
            click.option("--eval", "evaluation", metavar="FILE", help="Labelled rows; choose the best epoch."),
            click.option(
                "--output", required=True, type=click.Path(path_type=Path), help="Folder for the trained model."
            ),
            click.option("--overwrite", is_flag=True, help="Write into a folder that is not empty."),
            click.option("--resume", is_flag=True, help="Go on from the last checkpoint in --output."),
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
        ]
    ):
        command = option(command)
    return command


def task(command: Callable[..., None]) -> Callable[..., None]:
    """Options of what trains for either task."""
    for option in reversed(
        [
            click.option("--text-column", default="text", show_default=True),
            click.option("--pair-column", default="text_pair", show_default=True),
            click.option("--label-column", default="label", show_default=True),
            click.option(
                "--task",
                type=click.Choice(["classification", "tagging"]),
                default="classification",
                show_default=True,
                help="A label per text, or a tag per word.",
            ),
        ]
    ):
        command = option(command)
    return command


def columns(given: dict[str, Any]) -> Columns:
    """The columns of labelled texts."""
    return Columns(text=given["text_column"], pair=given["pair_column"], label=given["label_column"])


def tag_columns(given: dict[str, Any]) -> TagColumns:
    """The columns of tagged sentences."""
    return TagColumns(tokens=given["tokens_column"], tags=given["tags_column"])


def not_for_tagging(given: dict[str, Any], names: Sequence[str]) -> None:
    """Refuse options that only classification has."""
    for name in names:
        if given[name]:
            raise OptionError(
                f"--{name.replace('_', '-')} must be left out of --task tagging, was: {given[name]}; a word has one "
                "tag, read at its first piece"
            )


def loop(given: dict[str, Any], *, head_factor: float) -> LoopOptions:
    """Rates, epochs, seed."""
    return LoopOptions(
        epochs=given["epochs"],
        batch_size=given["batch_size"],
        learning_rate=given["learning_rate"],
        head_factor=head_factor,
        weight_decay=given["weight_decay"],
        warmup=given["warmup"],
        average=given["average"],
        seed=given["seed"],
        resume=given["resume"],
    )


def numbers(text: str | None, kind: Callable[[str], Any], option: str) -> tuple[Any, ...] | None:
    """Numbers between commas; None stays None."""
    if text is None:
        return None
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{option} must be numbers separated by commas, was: {text}") from None


def say(report: dict[str, Any], output: Path) -> None:
    """One line about what was trained."""
    scores = ", ".join(f"{name.replace('_', ' ')} {value * 100:.2f}" for name, value in report["scores"].items())
    click.echo(f"wrote {output} in {report['seconds']:.0f} s{': ' + scores if scores else ''}")

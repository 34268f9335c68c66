"""Options that several commands of `cascade-train` share, and what they are turned into."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from functools import reduce
from inspect import cleandoc
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

import click

from cascade.text.reading import Columns, TagColumns
from cascade.training.run import Run
from cascade.training.task import TAGGING, TASKS, Task

Command = Callable[..., None]
FLAGS = {"evaluation": "eval", "layers": "exits", "weights": "layer-weights", "smoothing": "label-smoothing"}
RUN = "train evaluation output overwrite"
LOOP = "epochs learning_rate batch_size warmup weight_decay average bf16 seed resume"
ANSWERS = "extra_text answers shared"
Value = TypeVar("Value")


def options_of(kind: type, names: str, **defaults: Any) -> Callable[[Command], Command]:
    """An option for each of these fields of a dataclass, whose docstring is the help; `defaults` instead of its own."""
    text = cleandoc(kind.__doc__ or "")  # which Python 3.13 keeps without its indentation
    said = re.findall(r"^ {4}(\w+): (.*?)(?=\n {4}\w|\n\s*\n|\s*\Z)", text, re.DOTALL | re.MULTILINE)
    told, hints = {name: " ".join(text.replace("`", "").split()) for name, text in said}, get_type_hints(kind)
    made = []
    for field in fields(kind):
        if field.name in names.split():
            default = defaults.get(field.name, field.default)
            flag, text = FLAGS.get(field.name, field.name.replace("_", "-")), told.get(field.name, "")
            more = _reading(hints[field.name], None if default is MISSING else default, required=default is MISSING)
            made.append(click.option(f"--{flag}", field.name, help=text[:1].upper() + text[1:], **more))
    return _options(*made)


def _reading(hint: Any, default: Any, *, required: bool) -> dict[str, Any]:
    """How an option of a type is read."""
    kind = get_args(hint)[0] if type(None) in get_args(hint) else hint
    if kind is bool:
        return {"is_flag": True}
    if get_origin(hint) is Sequence:
        return {"multiple": True, "required": required, "metavar": "FILE"}
    if get_origin(kind) is tuple:
        shown = None if default is None else ",".join(map(str, default))
        return {"callback": numbers(get_args(kind)[0]), "default": shown, "show_default": True, "metavar": "N,N,..."}
    read = click.Path(path_type=Path) if kind is Path else kind
    return {"type": read, "default": default, "required": required, "show_default": default is not None}


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

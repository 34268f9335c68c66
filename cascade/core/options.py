"""Options of commands that are fields of dataclasses: a class says each once, for its callers and for `--help`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from inspect import cleandoc
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

import click

Command = TypeVar("Command", bound=Callable[..., Any])
Value = TypeVar("Value")


def options_of(kind: type, names: str | None = None, **defaults: Any) -> Callable[[Command], Command]:
    """An option for each of these fields of a dataclass, whose docstring is the help; `defaults` instead of its own.

    `names`: with blanks between them, all if left out; `evaluation:eval` for an option of another name.
    """
    text = cleandoc(kind.__doc__ or "")  # which Python 3.13 keeps without its indentation
    said = re.findall(r"^ {4}(\w+): (.*?)(?=\n {4}\w|\n\s*\n|\s*\Z)", text, re.DOTALL | re.MULTILINE)
    told, hints = {name: " ".join(text.replace("`", "").split()) for name, text in said}, get_type_hints(kind)
    asked = (one.partition(":") for one in (names or " ".join(field.name for field in fields(kind))).split())
    flags, made = {name: flag or name.replace("_", "-") for name, _, flag in asked}, []
    for field in fields(kind):
        if field.name in flags:
            default, text = defaults.get(field.name, field.default), told.get(field.name, "")
            more = _reading(hints[field.name], None if default is MISSING else default, required=default is MISSING)
            flag = f"--{flags[field.name]}" + f"/--no-{flags[field.name]}" * (default is True)
            made.append(click.option(flag, field.name, help=text[:1].upper() + text[1:], **more))

    def decorated(command: Command) -> Command:
        for option in reversed(made):
            command = option(command)
        return command

    return decorated


def _reading(hint: Any, default: Any, *, required: bool) -> dict[str, Any]:
    """How an option of a type is read."""
    kind = get_args(hint)[0] if type(None) in get_args(hint) else hint
    if kind is bool:
        return {"is_flag": True, "default": default, "show_default": default}
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


def value_of(kind: type[Value], given: dict[str, Any]) -> Value:
    """A dataclass from those of the options that its fields are called by."""
    return kind(**{field.name: given[field.name] for field in fields(cast("Any", kind)) if field.name in given})

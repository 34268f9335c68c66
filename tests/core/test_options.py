"""Options of commands that are fields of a dataclass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from cascade.core.options import options_of, value_of


@dataclass(frozen=True)
class Asked:
    """What is asked.

    Attributes:
        files: of rows; repeatable.
        layers: after which exits lie; all of
            them by default.
        share: of `something`.
        output: a folder.
        kept: what is there stays.
        quiet: says nothing.
        unseen: no option.
    """

    files: Sequence[str]
    layers: tuple[int, ...] | None = None
    share: float = 0.5
    output: Path | None = None
    kept: bool = True
    quiet: bool = False
    unseen: int = 3


def run(*arguments: str) -> tuple[Result, dict[str, Any]]:
    """How a command ends, and what it was given."""
    found: dict[str, Any] = {}

    @click.command()
    @options_of(Asked, "files layers:exits share output kept quiet", share=0.7)
    def command(**given: Any) -> None:
        found.update(given)

    return CliRunner().invoke(command, arguments), found


def test_fields_are_options_by_their_types() -> None:
    _, found = run("--files", "a")
    assert value_of(Asked, found) == Asked(("a",), share=0.7)
    _, found = run(
        "--files", "a", "--files", "b", "--exits", "1,3", "--share", "0", "--no-kept", "--quiet", "--output", "c"
    )
    assert value_of(Asked, found) == Asked(("a", "b"), (1, 3), 0.0, Path("c"), kept=False, quiet=True)
    assert asdict(value_of(Asked, found | {"other": 1}))["unseen"] == 3


def test_the_docstring_is_the_help() -> None:
    told = " ".join(run("--help")[0].output.split())
    assert "After which exits lie; all of them by default." in told
    assert "Of something. [default: 0.7]" in told
    assert "--kept / --no-kept" in told
    assert "unseen" not in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Missing option '--files'"),
        (("--files", "a", "--exits", "1,x"), "must be numbers separated by commas, got 1,x"),
    ],
)
def test_bad_use(arguments: tuple[str, ...], message: str) -> None:
    done, _ = run(*arguments)
    assert done.exit_code == 2
    assert message in done.output

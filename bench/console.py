"""What commands share on a terminal: a bar that names what runs, a check before minutes of work."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from cascade.exceptions import DataError

__all__ = ["bar", "check_json", "check_output"]


def check_json(file: Path | None) -> None:
    """`check_output` of --json."""
    check_output("--json", file)


def check_output(option: str, file: Path | None) -> None:
    """Before anything runs for minutes: whether the file can be written.

    Raises:
        DataError: it is a folder, or in none.
    """
    if file is not None and (file.is_dir() or not file.absolute().parent.is_dir()):
        raise DataError(f"{option} must be a file in a folder that is there, was: {file}; make the folder first")


@contextmanager
def bar(total: int | None = None) -> Iterator[Callable[[str], object]]:
    """A bar on a terminal that names what runs."""
    with tqdm(total=total, unit="run", disable=not sys.stderr.isatty(), leave=False) as shown:

        def step(name: str) -> None:
            shown.set_description(name)
            shown.update()

        yield step

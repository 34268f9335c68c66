"""What commands share on a terminal: tables, a bar that names what runs, a check before minutes of work."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from cascade.core.console import table
from cascade.core.files import refuse_same_file
from cascade.exceptions import DataError
from cascade_bench.timing.interleaving import Progress


def grid(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1, markdown: bool = False) -> str:
    """A table for terminals, or in Markdown. `left`: columns at the beginning that hold words, not numbers."""
    if not markdown:
        return table(head, rows, right=range(left, len(head)))
    lines = [f"| {' | '.join(head)} |", f"{'|---' * left}{'|--:' * (len(head) - left)}|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def check_output(option: str, file: Path | None, *inputs: str | Path) -> None:
    """Before anything runs for minutes: whether the file can be written. `inputs`: files that it must not replace.

    Raises:
        DataError: it is a folder, or its folder is missing.
        OptionError: it is one of the inputs.
    """
    if file is None:
        return
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise DataError(f"{option} must be a file in a folder that is there, got {file}; make the folder first")
    refuse_same_file(file, inputs)


@contextmanager
def bar(total: int | None = None) -> Iterator[Progress]:
    """A bar on a terminal that names what runs."""
    with tqdm(total=total, unit="run", disable=not sys.stderr.isatty(), leave=False) as shown:

        def step(name: str) -> None:
            shown.set_description(name)
            shown.update()

        yield step

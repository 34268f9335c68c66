"""What commands share on a terminal: tables, and a bar that names what runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tqdm import tqdm

from cascade.core.console import table
from cascade_bench.timing.interleaving import Progress


def grid(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1, markdown: bool = False) -> str:
    """A table for terminals, or in Markdown. `left`: columns at the beginning that hold words, not numbers."""
    if not markdown:
        return table(head, rows, right=range(left, len(head)))
    lines = [f"| {' | '.join(head)} |", f"{'|---' * left}{'|--:' * (len(head) - left)}|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


@contextmanager
def bar(total: int | None = None) -> Iterator[Progress]:
    """A bar on a terminal that names what runs."""
    with tqdm(total=total, unit="run", disable=not sys.stderr.isatty(), leave=False) as shown:

        def step(name: str) -> None:
            shown.set_description(name)
            shown.update()

        yield step

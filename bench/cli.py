"""`cascade-bench`: the group. Wrong use is told in one line, with status 2."""

from __future__ import annotations

from collections.abc import Sequence

import click

from cascade import __version__
from cascade.core.console import finish
from cascade_bench.compare import compare
from cascade_bench.curve import curve
from cascade_bench.peers.cli import peers
from cascade_bench.serve.cli import serve
from cascade_bench.table.cli import table


@click.group(name="cascade-bench", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="cascade-bench", message="%(prog)s %(version)s")
def bench() -> None:
    """Measure a bundle in seconds on this machine.

    \b
    Example:
      cascade-bench table models/sentiment --data dev.jsonl --checkpoint runs/tier2 --threads 2
      cascade-bench curve models/sentiment --data dev.jsonl
      cascade-bench compare ../before . --model models/sentiment --data dev.jsonl
    """


for _command in (table, curve, peers, serve, compare):
    bench.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `cascade-bench` and leave the process with its status. `arguments`: those of the process if left out."""
    finish(bench, arguments)

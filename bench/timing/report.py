"""JSON files of measurements in pytest-benchmark's shape, medians and raw samples; tables; a bar."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tqdm import tqdm

import cascade
from cascade.core.console import table
from cascade.core.files import write
from cascade_bench.timing.interleaving import Progress


def benchmark(name: str, seconds: Sequence[float], info: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """One entry: seconds of one pass by round. `name`: unique in the file, same in every run; `info`: more facts."""
    stats = {"median": statistics.median(seconds), "data": list(seconds)}
    return {"name": name, "extra_info": dict(info or {}), "stats": stats}


def write_json(
    file: Path | None, machine: Mapping[str, Any], benchmarks: Sequence[Mapping[str, Any]], **more: Any
) -> None:
    """Write a file, whole or not at all; nothing if there is none to write. `more`: of the whole run."""
    if file is not None:
        found = {"version": cascade.__version__, "datetime": datetime.now(timezone.utc).isoformat()}
        made = {**found, "machine_info": machine, **more, "benchmarks": benchmarks}
        write(file, json.dumps(made, indent=2, ensure_ascii=False, default=asdict) + "\n")


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

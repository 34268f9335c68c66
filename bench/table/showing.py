"""A table for terminals, for README and for programs: of one set of columns those that it can fill."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from cascade.core.statistics import shown
from cascade_bench.table.measuring import Row, Table
from cascade_bench.timing.report import benchmark, grid


def _columns(table: Table) -> dict[str, Callable[[Row], str]]:
    """What to show of a line, by heading."""
    unit, several = table.data.unit, any(len(row.by_tier or ()) > 2 for row in table.rows)
    return {
        "system": lambda row: row.name,
        "texts": lambda row: row.order,
        "batch": lambda row: _said(row.batch, "{}"),
        table.data.metric: lambda row: _said(row.accuracy, "{:.2%}"),
        "points": lambda row: "" if row.against_full is None else f"{100 * row.against_full:+.2f}",
        "entity F1": lambda row: _said(row.f1, "{:.2%}"),
        "as full tier 2": lambda row: _said(row.agreement, "{:.2%}"),
        "unlike pipeline": lambda row: _said(row.unlike, "{:.2%}"),
        "by tier, %": lambda row: " / ".join(f"{100 * share:.1f}" for share in (row.by_tier or ()) if several),
        "deferred": lambda row: _said(None if several else row.deferred, "{:.1%}"),
        "mean layer": lambda row: _said(row.mean_layer, "{:.2f}"),
        f"{unit}/s": lambda row: f"{row.count / row.median_seconds:,.0f}",
        "over full depth": lambda row: shown(row.over_full),
        "over pipeline": lambda row: shown(row.over_pipeline),
        "p50 / p95 / p99 ms": lambda row: " / ".join(f"{one:.2f}" for one in row.percentiles or ()),
        "peak MiB": lambda row: _said(row.peak_mib, "{:,.0f}"),
    }


def _said(value: Any, form: str) -> str:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else form.format(value)


def cells(table: Table) -> tuple[list[str], list[list[str]]]:
    """Head and lines; only the first column, and the texts' order behind it, hold words."""
    every = {head: [cell(row) for row in table.rows] for head, cell in _columns(table).items()}
    found = {head: own for head, own in every.items() if any(own) or head in ("system", table.data.metric)}
    return list(found), [list(line) for line in zip(*found.values(), strict=True)]


def entries(table: Table) -> list[dict[str, Any]]:
    """Its lines as benchmarks of a JSON file."""
    made = []
    for row in table.rows:
        known = {name: value for name, value in vars(row).items() if _said(value, "{}")}
        info = {name: value for name, value in known.items() if name not in ("key", "seconds")}
        made.append(benchmark(row.key, row.seconds, info))
    return made


def as_text(table: Table, notes: Sequence[str], method: Sequence[str], *, markdown: bool = False) -> str:
    """For terminals, or for README. `notes`: beside those of the data; `method`: how it was measured, and on what."""
    head, rows = cells(table)
    notes = [*table.data.notes, *notes]
    said = ["", *notes, *method] if not markdown else ["", " ".join(notes), "", " ".join(method)]
    return "\n".join([grid(head, rows, left=1 + ("texts" in head), markdown=markdown), *said])

"""A measured table as text for terminals, as Markdown for README, and its lines as entries of a JSON file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cascade.core.statistics import shown
from cascade_bench.table.conclusions import conclusion
from cascade_bench.table.measuring import Row, Table
from cascade_bench.timing.console import grid
from cascade_bench.timing.machine import in_words
from cascade_bench.timing.report_json import benchmark


def as_text(table: Table, machine: Mapping[str, Any], *, markdown: bool = False) -> str:
    """For terminals, or for README."""
    cells = columns(table)
    made = grid(list(cells), [[cell(row) for cell in cells.values()] for row in table.rows], markdown=markdown)
    said = [*table.data.notes, conclusion(table), _method(table), in_words(machine)]
    if not markdown:
        return "\n".join([made, "", *said])
    return "\n".join([made, "", " ".join(said[:-2]), "", " ".join(said[-2:])])


def entries(table: Table) -> list[dict[str, Any]]:
    """Its lines as benchmarks of a JSON file."""
    kept = ("key", "seconds")
    return [
        benchmark(row.key, row.seconds, {name: value for name, value in vars(row).items() if name not in kept})
        for row in table.rows
    ]


def columns(table: Table) -> dict[str, Callable[[Row], str]]:
    """What to show of a line, by heading."""
    data, found = table.data, dict[str, Callable[[Row], str]]()
    found["system"] = lambda row: row.name
    found[data.metric] = lambda row: f"{row.accuracy:.2%}"
    found["points"] = lambda row: f"{row.against_full * 100:+.2f}"
    if any(row.f1 is not None for row in table.rows):
        found["entity F1"] = lambda row: "" if row.f1 is None else f"{row.f1:.2%}"
    found["deferred"] = lambda row: "" if row.deferred is None else f"{row.deferred:.1%}"
    found["mean layer"] = lambda row: "" if row.mean_layer is None else f"{row.mean_layer:.2f}"
    found[f"{data.unit}/s"] = lambda row: f"{len(data) / row.median_seconds:,.0f}"
    found["over full tier 2"] = lambda row: shown(row.over_full)
    if any(row.over_pipeline is not None for row in table.rows):
        found["over pipeline"] = lambda row: shown(row.over_pipeline)
    return found


def _method(table: Table) -> str:
    repeats = len(table.turns.orders)
    least = min(len(plan.repeats) for plan in table.turns.plans.values())
    fewer = "" if least == repeats else f" (slow systems: {least})"
    return (
        f"{len(table.data)} {table.data.unit}, tokenisation included, {repeats} interleaved repeats{fewer}; ratios are "
        "medians of those within a repeat, in brackets their 95 % intervals (another coverage is named). Points: "
        f"{table.data.metric} against full tier 2. Mean layer: over the {table.data.unit} that tier 2 answered."
    )

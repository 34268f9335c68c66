"""A measured table as text for terminals, as Markdown for README, and as JSON with every raw sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cascade.core.statistics import shown
from cascade_bench.table.conclusions import conclusion
from cascade_bench.table.measuring import Row, Table
from cascade_bench.timing.console import grid
from cascade_bench.timing.machine import in_words
from cascade_bench.timing.report_json import benchmark, document


def as_text(table: Table, machine: Mapping[str, Any], *, markdown: bool = False) -> str:
    """For terminals, or for README."""
    cells = columns(table)
    made = grid(list(cells), [[cell(row) for cell in cells.values()] for row in table.rows], markdown=markdown)
    said = [*table.data.notes, conclusion(table), _method(table), in_words(machine)]
    if not markdown:
        return "\n".join([made, "", *said])
    return "\n".join([made, "", " ".join(said[:-2]), "", " ".join(said[-2:])])


def as_json(table: Table, machine: Mapping[str, Any], details: Mapping[str, Any]) -> dict[str, Any]:
    """Everything. `details`: what was run, such as model, data and batch sizes tried."""
    return document(
        machine,
        [as_entry(row, table, "table", model=details.get("model")) for row in table.rows],
        details=dict(details),
        **table.data.facts,
        orders=table.turns.orders,
        conclusion=conclusion(table),
    )


def as_entry(row: Row, table: Table, group: str, **more: Any) -> dict[str, Any]:
    """A line as a benchmark of a JSON file. `more`: goes into `extra_info`."""
    info = {
        "name": row.name,
        table.data.unit: len(table.data),
        "cut_after_layer": row.cut,
        table.data.metric: row.accuracy,
        "points_against_full": row.against_full * 100,
        "entity_f1": row.f1,
        "deferred": row.deferred,
        "mean_layer": row.mean_layer,
        "speed_up_over_full": row.over_full,
        "speed_up_over_pipeline": row.over_pipeline,
        **more,
    }
    return benchmark(group, row.key, row.seconds, iterations=table.turns.plans[row.key].passes, info=info)


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

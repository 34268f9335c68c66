"""A measured table as text for terminals, as Markdown for README, and as JSON with every raw sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cascade.core.console import table as aligned
from cascade_bench.machine import in_words
from cascade_bench.report_json import document, of_row, write_json
from cascade_bench.statistics import Interval
from cascade_bench.table import Row, Table
from cascade_bench.verdicts import verdicts

__all__ = ["as_json", "as_markdown", "as_text", "ratio", "write_json"]


def as_text(table: Table, machine: Mapping[str, Any]) -> str:
    """For terminals."""
    head, rows = _cells(table)
    shown = aligned(head, rows, right=tuple(range(1, len(head))))
    return "\n".join([shown, "", *verdicts(table), _method(table), in_words(dict(machine))])


def as_markdown(table: Table, machine: Mapping[str, Any]) -> str:
    """For README."""
    head, rows = _cells(table)
    lines = [f"| {' | '.join(head)} |", f"|---{'|--:' * (len(head) - 1)}|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, "", " ".join(verdicts(table)), "", f"{_method(table)} {in_words(dict(machine))}"])


def as_json(table: Table, machine: Mapping[str, Any], details: Mapping[str, Any]) -> dict[str, Any]:
    """Everything. `details`: what was run, such as model, data and batch sizes tried."""
    return document(
        machine,
        [of_row(row, table, "table", model=details.get("model")) for row in table.rows],
        details=dict(details),
        orders=table.turns.orders,
        verdict=" ".join(verdicts(table)),
    )


def _cells(table: Table) -> tuple[list[str], list[list[str]]]:
    piped = any(row.over_pipeline is not None for row in table.rows)
    entities = any(row.f1 is not None for row in table.rows)
    words = table.unit == "words"
    columns: dict[str, Callable[[Row], str]] = {
        "contender": lambda row: row.name,
        "accuracy": lambda row: f"{row.accuracy:.2%}",
        "points": lambda row: f"{row.against_full * 100:+.2f}",
        **({"entity F1": lambda row: "" if row.f1 is None else f"{row.f1:.2%}"} if entities else {}),
        "by tier 1" if words else "deferred": lambda row: (
            "" if row.deferred is None else f"{1 - row.deferred if words else row.deferred:.1%}"
        ),
        "mean layer": lambda row: "" if row.mean_layer is None else f"{row.mean_layer:.2f}",
        f"{table.unit}/s": lambda row: f"{table.count / row.median_seconds:,.0f}",
        "over full tier 2": lambda row: ratio(row.over_full),
        **({"over pipeline": lambda row: ratio(row.over_pipeline)} if piped else {}),
    }
    return list(columns), [[shown(row) for shown in columns.values()] for row in table.rows]


def ratio(interval: Interval | None) -> str:
    """An interval in words; one of exactly 1 is that of the base itself."""
    if interval is None:
        return ""
    if interval.low == interval.high == 1:
        return "1"
    covered = "" if interval.coverage >= 0.95 else f" ({interval.coverage:.0%})"
    return f"{interval.median:.2f} [{interval.low:.2f}, {interval.high:.2f}]{covered}"


def _method(table: Table) -> str:
    repeats = len(table.turns.orders)
    least = min(len(plan.repeats) for plan in table.turns.plans.values())
    fewer = "" if least == repeats else f" (slow contenders: {least})"
    return (
        f"{table.count} {table.unit}, tokenisation included, {repeats} interleaved repeats{fewer}; ratios are medians "
        "of those within a repeat, in brackets their 95 % intervals (another coverage is named). Points: accuracy "
        f"against full tier 2. Mean layer: over {'the words' if table.unit == 'words' else 'what'} tier 2 answered."
    )

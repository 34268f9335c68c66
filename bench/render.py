"""A measured table as text for terminals, as Markdown for README, and as JSON with every raw sample.

The JSON has the fields of pytest-benchmark's files (`machine_info`, `commit_info`, `benchmarks` with `stats` and their
`data`), and beside them what only this table knows. It leaves to others: measuring (`table`).
"""

from __future__ import annotations

import json
import statistics
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cascade
from cascade.cli.show import table as aligned
from cascade_bench.machine import in_words
from cascade_bench.statistics import Interval
from cascade_bench.table import Row, Table
from cascade_bench.verdicts import verdicts

__all__ = ["as_json", "as_markdown", "as_text", "write_json"]


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
    return {
        "version": cascade.__version__,
        "datetime": datetime.now(timezone.utc).isoformat(),
        "machine_info": dict(machine),
        "commit_info": {"id": machine.get("git")},
        "benchmarks": [_benchmark(row, table, details) for row in table.rows],
        "details": dict(details),
        "orders": table.turns.orders,
        "verdict": " ".join(verdicts(table)),
    }


def write_json(file: Path, made: Mapping[str, Any]) -> None:
    """Write a file, whole or not at all."""
    partial = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        partial.write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


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
        "over full tier 2": lambda row: _ratio(row.over_full),
        **({"over pipeline": lambda row: _ratio(row.over_pipeline)} if piped else {}),
    }
    return list(columns), [[shown(row) for shown in columns.values()] for row in table.rows]


def _ratio(interval: Interval | None) -> str:
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


def _benchmark(row: Row, table: Table, details: Mapping[str, Any]) -> dict[str, Any]:
    data = [value for value in row.seconds if value is not None]
    quarters = statistics.quantiles(data, n=4) if len(data) > 1 else [data[0]] * 3
    plan = table.turns.plans[row.key]
    return {
        "group": "table",
        "name": row.key,
        "fullname": f"table/{row.key}",
        "params": None,
        "extra_info": {
            "name": row.name,
            table.unit: table.count,
            "cut_after_layer": row.cut,
            "accuracy": row.accuracy,
            "points_against_full": row.against_full * 100,
            "entity_f1": row.f1,
            "deferred": row.deferred,
            "mean_layer": row.mean_layer,
            "seconds_by_repeat": list(row.seconds),
            "passes_per_turn": plan.passes,
            "speed_up_over_full": asdict(row.over_full),
            "speed_up_over_pipeline": None if row.over_pipeline is None else asdict(row.over_pipeline),
            "model": details.get("model"),
        },
        "stats": {
            "min": min(data),
            "max": max(data),
            "mean": statistics.fmean(data),
            "stddev": _stddev(data),
            "rounds": len(data),
            "iterations": plan.passes,
            "median": statistics.median(data),
            "q1": quarters[0],
            "q3": quarters[2],
            "iqr": quarters[2] - quarters[0],
            "ops": 1 / statistics.fmean(data),
            "total": sum(data),
            **_outliers(data, quarters[0], quarters[2]),
            "data": data,
        },
    }


def _outliers(data: Sequence[float], first: float, third: float) -> dict[str, Any]:
    """pytest-benchmark's: beyond a standard deviation of the mean; beyond 1.5 times the middle half's width."""
    mean, spread, reach = statistics.fmean(data), _stddev(data), 1.5 * (third - first)
    inside = [value for value in data if first - reach <= value <= third + reach]
    beyond, outside = sum(abs(value - mean) > spread for value in data), len(data) - len(inside)
    return {
        "ld15iqr": min(inside, default=min(data)),
        "hd15iqr": max(inside, default=max(data)),
        "stddev_outliers": beyond,
        "iqr_outliers": outside,
        "outliers": f"{beyond};{outside}",
    }


def _stddev(data: Sequence[float]) -> float:
    return statistics.stdev(data) if len(data) > 1 else 0.0

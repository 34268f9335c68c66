"""JSON files of measurements in pytest-benchmark's shape: machine, commit, benchmarks with statistics and raw samples.

What only one kind of report knows comes beside these fields.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cascade
from cascade.core.files import write
from cascade_bench.table import Row, Table

__all__ = ["benchmark", "document", "of_row", "stats", "write_json"]


def document(machine: Mapping[str, Any], benchmarks: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    """A whole file. `more`: fields that only this kind of report has."""
    return {
        "version": cascade.__version__,
        "datetime": datetime.now(timezone.utc).isoformat(),
        "machine_info": dict(machine),
        "commit_info": {"id": machine.get("git")},
        "benchmarks": list(benchmarks),
        **more,
    }


def of_row(row: Row, table: Table, group: str, **more: Any) -> dict[str, Any]:
    """A line of a measured table as a benchmark. `more`: goes into `extra_info`."""
    plan = table.turns.plans[row.key]
    info = {
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
        **more,
    }
    data = [value for value in row.seconds if value is not None]
    return benchmark(group, row.key, data, iterations=plan.passes, info=info)


def benchmark(
    group: str, name: str, data: Sequence[float], *, iterations: int = 1, info: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """One entry.

    Args:
        group: the command.
        name: unique in the file, and the same in files that are to be compared.
        data: seconds of each round.
        iterations: in a round, by which its seconds are divided already.
        info: whatever else.
    """
    return {
        "group": group,
        "name": name,
        "fullname": f"{group}/{name}",
        "params": None,
        "extra_info": dict(info or {}),
        "stats": stats(data, iterations=iterations),
    }


def stats(data: Sequence[float], *, iterations: int = 1) -> dict[str, Any]:
    """pytest-benchmark's statistics of at least one sample, with the samples."""
    first, _, third = statistics.quantiles(data, n=4) if len(data) > 1 else [data[0]] * 3
    return {
        "min": min(data),
        "max": max(data),
        "mean": statistics.fmean(data),
        "stddev": _stddev(data),
        "rounds": len(data),
        "iterations": iterations,
        "median": statistics.median(data),
        "q1": first,
        "q3": third,
        "iqr": third - first,
        "ops": 1 / statistics.fmean(data),
        "total": sum(data),
        **_outliers(data, first, third),
        "data": list(data),
    }


def write_json(file: Path, made: Mapping[str, Any]) -> None:
    """Write a file, whole or not at all."""
    write(file, json.dumps(made, indent=2, ensure_ascii=False) + "\n")


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

"""JSON files of measurements in pytest-benchmark's shape: machine, commit, benchmarks with statistics and raw samples.

Fields that only one kind of report has stand beside these.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cascade
from cascade.core.files import write


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


def benchmark(
    group: str,
    name: str,
    seconds: Sequence[float | None],
    *,
    iterations: int = 1,
    info: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One entry.

    Args:
        group: the command.
        name: unique in the file, and the same in files that are to be compared.
        seconds: of each round; `None` where there was none.
        iterations: passes in a round, by which its seconds are divided already.
        info: whatever else.
    """
    there = [value for value in seconds if value is not None]
    turns = {} if len(there) == len(seconds) else {"seconds_by_repeat": list(seconds)}
    return {
        "group": group,
        "name": name,
        "fullname": f"{group}/{name}",
        "params": None,
        "extra_info": {**(info or {}), **turns},
        "stats": stats(there, iterations=iterations),
    }


def stats(data: Sequence[float], *, iterations: int = 1) -> dict[str, Any]:
    """pytest-benchmark's statistics of at least one sample, with the samples."""
    first, _, third = statistics.quantiles(data, n=4) if len(data) > 1 else [data[0]] * 3
    mean, reach = statistics.fmean(data), 1.5 * (third - first)
    spread = statistics.stdev(data) if len(data) > 1 else 0.0
    inside = [value for value in data if first - reach <= value <= third + reach]
    beyond, outside = sum(abs(value - mean) > spread for value in data), len(data) - len(inside)
    return {
        "min": min(data),
        "max": max(data),
        "mean": mean,
        "stddev": spread,
        "rounds": len(data),
        "iterations": iterations,
        "median": statistics.median(data),
        "q1": first,
        "q3": third,
        "iqr": third - first,
        "ops": 1 / mean,
        "total": sum(data),
        "ld15iqr": min(inside, default=min(data)),
        "hd15iqr": max(inside, default=max(data)),
        "stddev_outliers": beyond,
        "iqr_outliers": outside,
        "outliers": f"{beyond};{outside}",
        "data": list(data),
    }


def write_json(file: Path, made: Mapping[str, Any]) -> None:
    """Write a file, whole or not at all."""
    write(file, json.dumps(made, indent=2, ensure_ascii=False) + "\n")

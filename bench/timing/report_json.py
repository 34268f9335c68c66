"""JSON files of measurements in pytest-benchmark's shape: machine, commit, benchmarks with statistics and raw samples.

Fields that only one kind of report has stand beside these.
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
from cascade.core.statistics import Interval


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
    """One entry: seconds of each round, `None` where there was none, divided already by `iterations`, its passes.

    `name` is unique in the file, and the same in files that are to be compared. `info`: more facts.
    """
    there = [value for value in seconds if value is not None]
    more = {key: asdict(value) if isinstance(value, Interval) else value for key, value in (info or {}).items()}
    if len(there) < len(seconds):
        more["seconds_by_repeat"] = list(seconds)
    return {
        "group": group,
        "name": name,
        "fullname": f"{group}/{name}",
        "params": None,
        "extra_info": more,
        "stats": stats(there, iterations=iterations),
    }


def stats(data: Sequence[float], *, iterations: int = 1) -> dict[str, Any]:
    """Statistics of at least one sample, under pytest-benchmark's names; the samples give those that it has beside."""
    return {
        "min": min(data),
        "max": max(data),
        "mean": statistics.fmean(data),
        "stddev": statistics.stdev(data) if len(data) > 1 else 0.0,
        "median": statistics.median(data),
        "rounds": len(data),
        "iterations": iterations,
        "data": list(data),
    }


def write_json(file: Path | None, made: Mapping[str, Any]) -> None:
    """Write a file, whole or not at all; nothing if there is none to write."""
    if file is not None:
        write(file, json.dumps(made, indent=2, ensure_ascii=False) + "\n")

"""Two JSON files of measurements side by side: per benchmark the ratio of seconds, paired by repeat, with its interval.

Any file in pytest-benchmark's shape will do, as long as it holds raw samples. The files are of two runs, so what the
machine did differently between them is in the ratio; a note says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from cascade.core.statistics import Interval, Samples, speed_up
from cascade.exceptions import DataError


@dataclass(frozen=True)
class Compared:
    """One benchmark in both: medians of its seconds in A and in B, and how many times as fast B is as A."""

    name: str
    before: float
    after: float
    ratio: Interval


@dataclass(frozen=True)
class Comparison:
    """A and B: benchmarks in the order of A, and what readers have to know."""

    rows: tuple[Compared, ...]
    notes: tuple[str, ...]

    def slower(self, at_least: float) -> list[Compared]:
        """Benchmarks that are less than so many times as fast in B."""
        return [row for row in self.rows if row.ratio.median < at_least]


def compare_files(first: Path, second: Path) -> Comparison:
    """Read and compare; files of another shape, or without a benchmark that is in both, are a `DataError`."""
    one, two = _read(first), _read(second)
    before, after = _samples(one, first), _samples(two, second)
    if not before.keys() & after.keys():
        raise DataError(
            f"{first} and {second} must share the name of a benchmark, but they share none; compare runs alike"
        )
    notes = ["The files are of two runs: what the machine did differently between them is in the ratios."]
    for name, mine, others in (("A", before, after), ("B", after, before)):
        if missing := [key for key in mine if key not in others]:
            notes.append(f"Only in {name}: {', '.join(missing)}.")
    for name in ("cpu", "threads", "python_version", "versions"):
        a, b = ((made.get("machine_info") or {}).get(name) for made in (one, two))
        if a != b:
            notes.append(f"They differ in {name.replace('_', ' ')}: {_plain(a)} and {_plain(b)}.")
    rows = [paired(name, before[name], after[name]) for name in before if name in after]
    return Comparison(tuple(rows), tuple(notes))


def paired(name: str, before: Samples, after: Samples) -> Compared:
    """One benchmark, paired by repeat as far as both have samples; without any such repeat a `DataError`."""
    count = min(len(before), len(after))
    ratio = speed_up(before[:count], after[:count])
    if ratio is None:
        raise DataError(f"{name} must have samples of the same repeats in A and B, but it has none; run more repeats")
    middle = [median(value for value in seconds if value is not None) for seconds in (before, after)]
    return Compared(name, middle[0], middle[1], ratio)


def _read(file: Path) -> Mapping[str, Any]:
    try:
        made = json.loads(file.read_text(encoding="utf-8"))
    except OSError as fault:
        raise DataError(f"{file} must be a readable JSON file, but: {fault.strerror}; check the path") from None
    except ValueError as fault:
        raise DataError(f"{file} must be JSON, but: {fault}; give what --json wrote") from None
    if not isinstance(made, dict) or not isinstance(made.get("benchmarks"), list) or not made["benchmarks"]:
        raise DataError(f"{file} must hold a list of benchmarks, but it holds none; give what --json wrote")
    return made


def _samples(made: Mapping[str, Any], file: Path) -> dict[str, Samples]:
    """Seconds by repeat, `None` where a benchmark had no turn; by name."""
    found: dict[str, Samples] = {}
    for entry in made["benchmarks"]:
        try:
            name = str(entry["name"])
            given = (entry.get("extra_info") or {}).get("seconds_by_repeat") or entry["stats"]["data"]
            seconds = [None if value is None else float(value) for value in given]
            fine = all(value is None or 0 < value < float("inf") for value in seconds)
        except (AttributeError, KeyError, TypeError, ValueError):
            fine = False
        if not fine or all(value is None for value in seconds):
            raise DataError(
                f"{file}: each benchmark must have a name and raw samples above 0 (stats.data), but one has not; "
                "write it with --json, or pytest-benchmark's --benchmark-json"
            )
        if name in found:
            raise DataError(f"{file}: names of benchmarks must differ, but {name!r} is there twice; rename one")
        found[name] = seconds
    return found


def _plain(value: object) -> str:
    return ", ".join(f"{key} {one}" for key, one in value.items()) if isinstance(value, dict) else str(value)

"""Two JSON files of measurements side by side: per benchmark the ratio of seconds, paired by repeat, with its interval.

Any file in pytest-benchmark's shape will do, as long as it holds raw samples. The files are of two runs, so what the
machine did differently between them is in the ratio; a note says so where the files tell of different machines.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import click

from cascade.core.console import table as aligned
from cascade.exceptions import DataError, OptionError
from cascade_bench.statistics import Interval, speed_up

__all__ = ["Compared", "Comparison", "compare", "compare_files", "read_samples"]

Seconds: TypeAlias = "list[float | None]"


@dataclass(frozen=True)
class Compared:
    """One benchmark in both files.

    Attributes:
        name: of it.
        before, after: medians of the seconds in A and in B.
        ratio: how many times as fast B is as A.
    """

    name: str
    before: float
    after: float
    ratio: Interval


@dataclass(frozen=True)
class Comparison:
    """Two files.

    Attributes:
        rows: in the order of A.
        only_a, only_b: names that the other file lacks.
        notes: what readers have to know.
    """

    rows: tuple[Compared, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    notes: tuple[str, ...]

    def slower(self, at_least: float) -> list[Compared]:
        """Benchmarks that are less than so many times as fast in B."""
        return [row for row in self.rows if row.ratio.median < at_least]


def compare_files(first: Path, second: Path) -> Comparison:
    """Read and compare.

    Raises:
        DataError: a file that is not of this shape, or no benchmark that is in both.
    """
    one, two = _read(first), _read(second)
    before, after = _samples(one, first), _samples(two, second)
    both = [name for name in before if name in after]
    if not both:
        raise DataError(
            f"{first} and {second} must share the name of a benchmark, but they share none; compare runs alike"
        )
    rows = []
    for name in both:
        count = min(len(before[name]), len(after[name]))
        ratio = speed_up(before[name][:count], after[name][:count])
        if ratio is None:
            raise DataError(f"{name} must have samples of the same repeats in {first} and {second}, but it has none")
        rows.append(Compared(name, _median(before[name]), _median(after[name]), ratio))
    return Comparison(
        tuple(rows),
        tuple(name for name in before if name not in after),
        tuple(name for name in after if name not in before),
        tuple(_notes(one, two)),
    )


def read_samples(file: Path) -> dict[str, Seconds]:
    """Seconds by repeat of each benchmark in a file, by name; `None` where it had no turn.

    Raises:
        DataError: a file that is not of this shape.
    """
    return _samples(_read(file), file)


@click.command(short_help="Two JSON files: ratios of seconds with intervals; status 1 where B is too slow.")
@click.argument("a", type=click.Path(path_type=Path), metavar="A.json")
@click.argument("b", type=click.Path(path_type=Path), metavar="B.json")
@click.option(
    "--at-least", type=float, metavar="R", help="End with status 1 where B is less than R times as fast as A."
)
def compare(a: Path, b: Path, at_least: float | None) -> None:
    """Compare two files that --json wrote: how many times as fast each benchmark is in B as in A.

    Ratios are paired by repeat and given as medians with 95 % intervals. With --at-least a benchmark fails whose median
    is below the bound; leave room for what the machine does by itself, as in 0.95.

    \b
    Example:
      cascade-bench curve models/sentiment --data dev.jsonl --json before.json
      cascade-bench curve models/sentiment --data dev.jsonl --json after.json
      cascade-bench compare before.json after.json --at-least 0.95
    """
    if at_least is not None and not 0 < at_least < float("inf"):
        raise OptionError(
            f"--at-least must be above 0 and finite, was: {at_least}; 0.95 lets B take a twentieth longer"
        )
    found = compare_files(a, b)
    slower = [] if at_least is None else found.slower(at_least)
    rows = [
        [
            row.name,
            f"{row.before:.4g}",
            f"{row.after:.4g}",
            f"{row.ratio.median:.3f}",
            f"[{row.ratio.low:.3f}, {row.ratio.high:.3f}]",
            f"{row.ratio.coverage:.0%}",
            _verdict(row, at_least, failed=row in slower),
        ]
        for row in found.rows
    ]
    head = ["benchmark", "A, seconds", "B, seconds", "B is times as fast", "interval", "covers", ""]
    click.echo(aligned(head, rows, right=(1, 2, 3, 4, 5)))
    for name, missing in (("A", found.only_a), ("B", found.only_b)):
        if missing:
            click.echo(f"Only in {name}: {', '.join(missing)}.")
    for note in found.notes:
        click.echo(note)
    if slower:
        click.echo(f"{len(slower)} of {len(rows)} are less than {at_least:g} times as fast in B.", err=True)
        click.get_current_context().exit(1)


def _verdict(row: Compared, at_least: float | None, *, failed: bool) -> str:
    if failed:
        return "too slow" if at_least is not None and row.ratio.high < at_least else "too slow, though not clearly"
    if row.ratio.low > 1:
        return "faster"
    return "slower" if row.ratio.high < 1 else ""


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


def _samples(made: Mapping[str, Any], file: Path) -> dict[str, Seconds]:
    """Seconds by repeat, `None` where a benchmark had no turn; by name."""
    found: dict[str, Seconds] = {}
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


def _median(seconds: Seconds) -> float:
    there = sorted(value for value in seconds if value is not None)
    return (there[(len(there) - 1) // 2] + there[len(there) // 2]) / 2


def _notes(one: Mapping[str, Any], two: Mapping[str, Any]) -> list[str]:
    notes = ["The files are of two runs: what the machine did differently between them is in the ratios."]
    for name in ("cpu", "threads", "python_version", "versions"):
        before, after = ((made.get("machine_info") or {}).get(name) for made in (one, two))
        if before != after:
            notes.append(f"They differ in {name.replace('_', ' ')}: {_plain(before)} and {_plain(after)}.")
    return notes


def _plain(value: object) -> str:
    return ", ".join(f"{key} {one}" for key, one in value.items()) if isinstance(value, dict) else str(value)

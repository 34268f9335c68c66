"""Reference ratios: a small file that says how many times as fast one work has to be as another, and since when.

{"sentiment": {                               the bundle's folder
   "amx_int8, 2 threads": {                   the kind of CPU: ratios differ between kinds
     "date": "2026-01-31", "machine": "...",  when and where they were measured
     "ratios": {"cascade / full": {"value": 2.4, "tolerance": 0.15}}}}}
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cascade.core.files import write
from cascade.core.statistics import Interval
from cascade.exceptions import DataError
from cascade_bench.timing.machine import in_words, int8_flag

FILE = Path(__file__).with_name("reference_ratios.json")

# The same code takes up to 40 % longer in some hours than in others. Of two works that ran within seconds of each other
# most of that cancels, of the median over turns more; but a neighbour that takes one of the cores slows work that waits
# for the slowest thread more than work that does not. So: well below the noise of seconds, well above 0.
TOLERANCE = 0.15


@dataclass(frozen=True)
class Reference:
    """A ratio to hold; a later run may fall below it by a share, its tolerance in [0, 1)."""

    value: float
    tolerance: float = TOLERANCE

    @property
    def floor(self) -> float:
        """What a run has to reach."""
        return self.value * (1 - self.tolerance)


@dataclass(frozen=True)
class References:
    """All of a bundle on one kind of CPU, with the run's date in UTC and its machine in words."""

    date: str
    machine: str
    ratios: Mapping[str, Reference]


def cpu_kind(facts: Mapping[str, Any]) -> str:
    """What ratios depend on: the best int8 instructions, or else the architecture, and how many threads there are."""
    return f"{int8_flag(facts) or facts['machine']}, {facts['threads']} thread{'s' * (facts['threads'] > 1)}"


def references_of(
    measured: Mapping[str, Interval], facts: Mapping[str, Any], *, tolerances: Mapping[str, float] | None = None
) -> References:
    """What a run makes of itself. `tolerances`: of ratios that need more than `TOLERANCE`.

    A ratio that scattered more than usual gets a tolerance that its own interval lies in: it holds less, and says so.
    """
    known = tolerances or {}
    ratios = {}
    for name, interval in measured.items():
        scatter = math.ceil(100 * (1 - interval.low / interval.median)) / 100
        ratios[name] = Reference(float(f"{interval.median:.3g}"), max(known.get(name, TOLERANCE), scatter))
    return References(datetime.now(timezone.utc).date().isoformat(), in_words(facts), ratios)


def shortfall(name: str, measured: Interval, references: References) -> str | None:
    """What is wrong with a ratio, in one line; `None` if it holds, or has no reference."""
    held = references.ratios.get(name)
    if held is None or measured.median >= held.floor:
        return None
    return (
        f"{name} must be at least {held.floor:.3g} ({held.value:g} on {references.date}, less {held.tolerance:.0%}), "
        f"got {measured.median:.3g} ({measured.low:.3g} to {measured.high:.3g} in {measured.samples} turns); "
        "look for what became slower, or use --write-reference if that is meant"
    )


def read_references(file: Path, bundle: str, kind: str) -> References | None:
    """Those of a bundle on a kind of CPU; `None` if there are none yet.

    Raises:
        DataError: the file cannot be read, or is not of this form.
    """
    found = _read(file).get(bundle, {})
    try:
        made = found.get(kind)
        if made is None:
            return None
        ratios = {
            name: Reference(float(held["value"]), float(held["tolerance"])) for name, held in made["ratios"].items()
        }
        references = References(str(made["date"]), str(made["machine"]), ratios)
        fine = all(0 < held.value < math.inf and 0 <= held.tolerance < 1 for held in ratios.values())
    except (AttributeError, KeyError, TypeError, ValueError):
        fine = False
    if not fine:
        raise DataError(
            f"{file}: {bundle}, {kind} must have a date, a machine, and ratios with a value above 0 and a tolerance in "
            "[0, 1), got something else; delete it and use --write-reference"
        )
    return references


def write_references(file: Path, bundle: str, kind: str, references: References) -> None:
    """Put them in the place of those of the same bundle on the same kind of CPU; all others stay.

    Raises:
        DataError: the file is there, but cannot be read.
    """
    everything = _read(file)
    everything[bundle] = {**everything.get(bundle, {}), kind: asdict(references)}
    write(file, json.dumps(everything, indent=2) + "\n")


def _read(file: Path) -> dict[str, Any]:
    try:
        made = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as fault:
        raise DataError(f"{file} must be a JSON file of reference ratios, but: {fault}; restore it") from None
    if not isinstance(made, dict) or not all(isinstance(kinds, dict) for kinds in made.values()):
        raise DataError(f"{file} must hold reference ratios by bundle and kind of CPU, got something else; restore it")
    return made

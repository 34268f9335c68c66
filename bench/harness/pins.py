"""Pinned ratios: a small file that says how many times faster one thing has to be than another, and since when.

{"sentiment": {                               the bundle's folder
   "amx_int8, 2 threads": {                   the kind of CPU: ratios differ between kinds
     "date": "2026-01-31", "machine": "...",  when and where they were measured
     "ratios": {"full / plain": {"value": 1.5, "tolerance": 0.15}}}}}
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
from cascade.exceptions import DataError
from cascade_bench.machine import in_words
from cascade_bench.statistics import Interval

__all__ = ["PINNED", "TOLERANCE", "Pin", "Pins", "cpu_kind", "pins_of", "read_pins", "shortfall", "write_pins"]

PINNED = Path(__file__).with_name("pinned.json")

# One and the same code takes up to 40 % longer in some hours than in others. Of two things that ran within seconds of
# each other most of that cancels, of the median over turns more; but a neighbour who takes one of the cores slows work
# that waits for the slowest thread more than work that does not. So: well below the noise of seconds, well above 0.
TOLERANCE = 0.15


@dataclass(frozen=True)
class Pin:
    """A ratio to hold.

    Attributes:
        value: how many times faster it was.
        tolerance: by which share of it a later run may fall below, in [0, 1).
    """

    value: float
    tolerance: float = TOLERANCE

    @property
    def floor(self) -> float:
        """What a run has to reach."""
        return self.value * (1 - self.tolerance)


@dataclass(frozen=True)
class Pins:
    """All of a bundle on one kind of CPU.

    Attributes:
        date: of the run, in UTC.
        machine: it ran on, in words.
        ratios: by name.
    """

    date: str
    machine: str
    ratios: Mapping[str, Pin]


def cpu_kind(facts: Mapping[str, Any]) -> str:
    """What ratios depend on: the best int8 instructions, or else the architecture, and how many threads there are.

    Args:
        facts: of `cascade_bench.machine.facts`.
    """
    flags = facts["cpu"]["flags"]
    best = next((flag for flag in ("amx_int8", "avx512_vnni", "avx_vnni") if flag in flags), facts["machine"])
    return f"{best}, {facts['threads']} thread{'s' * (facts['threads'] > 1)}"


def pins_of(
    measured: Mapping[str, Interval], facts: dict[str, Any], *, tolerances: Mapping[str, float] | None = None
) -> Pins:
    """What a run makes of itself.

    A ratio that scattered more than usual gets a tolerance that its own interval lies in: it guards less, and says so.

    Args:
        measured: by the ratio's name.
        facts: of the machine.
        tolerances: of ratios that need more than `TOLERANCE`.
    """
    known = tolerances or {}
    ratios = {}
    for name, interval in measured.items():
        scatter = math.ceil(100 * (1 - interval.low / interval.median)) / 100
        ratios[name] = Pin(float(f"{interval.median:.3g}"), max(known.get(name, TOLERANCE), scatter))
    return Pins(datetime.now(timezone.utc).date().isoformat(), in_words(facts), ratios)


def shortfall(name: str, measured: Interval, pins: Pins) -> str | None:
    """What is wrong with a ratio, in one line; `None` if it holds, or is not pinned."""
    pin = pins.ratios.get(name)
    if pin is None or measured.median >= pin.floor:
        return None
    return (
        f"{name} must be at least {pin.floor:.3g} ({pin.value:g} on {pins.date}, less {pin.tolerance:.0%}), "
        f"was: {measured.median:.3g} ({measured.low:.3g} to {measured.high:.3g} in {measured.samples} turns); "
        "look for what became slower, or pin anew with --pin if that is meant"
    )


def read_pins(file: Path, bundle: str, kind: str) -> Pins | None:
    """The pins of a bundle on a kind of CPU; `None` if there are none yet.

    Raises:
        DataError: the file cannot be read, or is not of this form.
    """
    found = _read(file).get(bundle, {})
    try:
        made = found.get(kind)
        if made is None:
            return None
        ratios = {name: Pin(float(pin["value"]), float(pin["tolerance"])) for name, pin in made["ratios"].items()}
        pins = Pins(str(made["date"]), str(made["machine"]), ratios)
        fine = all(0 < pin.value < math.inf and 0 <= pin.tolerance < 1 for pin in ratios.values())
    except (AttributeError, KeyError, TypeError, ValueError):
        fine = False
    if not fine:
        raise DataError(
            f"{file}: {bundle}, {kind} must have a date, a machine, and ratios with a value above 0 and a tolerance in "
            "[0, 1), has something else; pin anew with --pin after deleting it"
        )
    return pins


def write_pins(file: Path, bundle: str, kind: str, pins: Pins) -> None:
    """Put pins in the place of those of the same bundle on the same kind of CPU; all others stay.

    Raises:
        DataError: the file is there, but cannot be read.
    """
    everything = _read(file)
    everything[bundle] = {**everything.get(bundle, {}), kind: asdict(pins)}
    write(file, json.dumps(everything, indent=2) + "\n")


def _read(file: Path) -> dict[str, Any]:
    try:
        made = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as fault:
        raise DataError(f"{file} must be a JSON file of pinned ratios, but: {fault}; restore it") from None
    if not isinstance(made, dict) or not all(isinstance(kinds, dict) for kinds in made.values()):
        raise DataError(f"{file} must hold pinned ratios by bundle and kind of CPU, holds something else; restore it")
    return made

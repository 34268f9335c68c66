"""What the guard says at the end of a run: each ratio, and what it is held to.

It is kept where both the suite, which fills it, and pytest's hooks, which print it, find one and the same key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from cascade_bench.harness.pins import Pins
from cascade_bench.statistics import Interval

__all__ = ["SUMMARY", "Summary"]


@dataclass(frozen=True)
class Summary:
    """A run of the guard.

    Attributes:
        bundle, kind: its name, and the kind of CPU.
        measured: ratios by name.
        pins: what they are held to; those that this very run pinned, if it did.
    """

    bundle: str
    kind: str
    measured: Mapping[str, Interval]
    pins: Pins

    @property
    def title(self) -> str:
        return f"ratios of {self.bundle}, {self.kind}, pinned on {self.pins.date}"

    def lines(self) -> Iterator[str]:
        """One for each ratio."""
        for name, interval in self.measured.items():
            pin = self.pins.ratios.get(name)
            held = "not pinned" if pin is None else f"pinned {pin.value:g}, at least {pin.floor:.3g}"
            span = f"({interval.low:.3g} to {interval.high:.3g} in {interval.samples} turns)"
            yield f"{name:18}  {interval.median:6.3g}  {span:36}  {held}"


SUMMARY = pytest.StashKey[Summary]()

"""How long a request may have lain in its socket while the event loop was busy with others: a queue that none sees."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Final

TICK: Final = 0.02  # seconds


class Late:
    """Ticks as long as something is under way, and sees how late ticks are. `busy`: whether something is."""

    def __init__(self, busy: Callable[[], object]) -> None:
        self._busy = busy
        self._loop: asyncio.AbstractEventLoop | None = None  # that ticks
        self._last = self._before = 0.0

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """A request is read, in this loop."""
        if self._loop is not loop or not self._busy():
            self._last = self._before = perf_counter()
        if self._loop is not loop:
            self._loop = loop
            loop.call_later(TICK, self._tick, loop)

    @property
    def seconds(self) -> float:
        """What is read now may have come after the tick before the last one, but for the time between ticks."""
        return max(perf_counter() - self._before - 2 * TICK, 0.0) if self._busy() else 0.0

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._before, self._last = self._last, perf_counter()
        if self._loop is loop and self._busy():
            loop.call_later(TICK, self._tick, loop)
        elif self._loop is loop:
            self._loop = None

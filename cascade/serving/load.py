"""How long what waits will take by what was measured, and the level that this asks for; how late the event loop is."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Final

from cascade.core.limits import Limits

LOOK, FINISH = 0, 1  # the first tier; the tiers after it
LEAST_SLICE: Final = 256  # tokens that later tiers run together at least: fewer use a CPU badly
SLICE_SECONDS: Final = 0.015  # what they run together takes about so long, and the first tier waits no longer for them
CALM, SLOW = 0.2, 1.0  # seconds without pressure for each level down
RUSH: Final = 0.02  # seconds for each level up: what the last step brought must be seen first
TIGHT: Final = 8  # at the last level so many times less may wait: it would wait for as long as the rush lasts
DOWN: Final = 0.2  # how much a slower run counts beside what was known; a faster one is believed at once
TICK: Final = 0.005  # seconds


class Load:
    """Rates of the tiers, and the `level` that what waits asks for, 0 as certified. No clock is read here."""

    def __init__(self, limits: Limits, levels: int) -> None:
        self._limits, self._last = limits, levels - 1
        self._rates = [0.0, 0.0]  # tokens per second
        self.level = 0
        self._raised = float("-inf")
        self._calm: float | None = None
        self._spent = 0.0  # seconds in tiers since

    def ran(self, part: int, tokens: int, seconds: float) -> None:
        """So many tokens took so long. Of few it is only known that more would take no less."""
        known, least = self._rates[part], LEAST_SLICE // 2
        self._spent += seconds
        if tokens >= least or (tokens and not known):
            rate = max(tokens, least) / max(seconds, 1e-6)
            self._rates[part] = rate if rate > known else known + DOWN * (rate - known)

    @property
    def worst(self) -> bool:
        """Whether answers cannot get cheaper: what is too much is refused."""
        return self.level == self._last > 0

    @property
    def limit(self) -> float:
        """Seconds that what waits may take: those of the limits, and where nothing else helps an eighth of them."""
        return self._limits.max_queue_ms / 1000 / (TIGHT if self.worst else 1)

    def slice(self, ahead: int) -> int:
        """Tokens that later tiers should run together at most. `ahead`: that a new request would wait for.

        All of these where they are not many more, otherwise half of them: large batches are faster by the token, and a
        small rest is slow.
        """
        wanted = max(int(self._rates[FINISH] * SLICE_SECONDS), LEAST_SLICE)
        return min(max(wanted, ahead if ahead < 1.5 * wanted else ahead // 2), self._limits.max_batch_tokens)

    def seconds(self, looks: float, finishes: float) -> float:
        """How long so many tokens take in the first tier and in the others; 0 as long as nothing is known."""
        look, finish = self._rates
        return (looks / look if look else 0.0) + (finishes / finish if finish else 0.0)

    def pressure(self, tokens: int, seconds: float) -> float:
        """How full the queue is: 1 at either limit. `tokens` that wait; `seconds` that a new request would."""
        return max(tokens / self._limits.max_queue_tokens, seconds / self.limit)

    def step(self, pressure: float, now: float) -> int:
        """The level at a time, from 0. It rises a step at a time, and falls where there is half the pressure.

        It falls slowly where the tiers are busy half of the time, as they would be more of it at the level below.
        """
        bar = self._limits.degrade_at
        if pressure >= bar:
            self._calm = None
            if bar < 1 and now >= self._raised + RUSH:
                self.level, self._raised = min(self.level + 1, self._last), now
        elif pressure < bar / 2:
            if self._calm is None:
                self._calm, self._spent = now, 0.0
            steps = int((now - self._calm) / (CALM if self._spent < (now - self._calm) / 2 else SLOW))
            if steps:
                self.level, self._calm, self._spent = max(self.level - steps, 0), now, 0.0
        else:
            self._calm = None
        return self.level


class Late:
    """How long a request may have lain in its socket while the event loop was busy: a queue that none sees.

    It ticks as long as requests are under way, and sees how late ticks are.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None  # that ticks
        self._under_way = 0
        self._last = self._before = 0.0

    def enter(self, loop: asyncio.AbstractEventLoop) -> None:
        """A request is read, in this loop; it must `leave`."""
        if self._loop is not loop or not self._under_way:
            self._last = self._before = perf_counter()
        self._under_way += 1
        if self._loop is not loop:
            self._loop = loop
            loop.call_later(TICK, self._tick, loop)

    def leave(self) -> None:
        """A request has ended."""
        self._under_way -= 1

    @property
    def seconds(self) -> float:
        """What is read now may have come after the tick before the last one, but for the time between ticks."""
        return max(perf_counter() - self._before - 2 * TICK, 0.0) if self._under_way else 0.0

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._before, self._last = self._last, perf_counter()
        if self._loop is loop and self._under_way:
            loop.call_later(TICK, self._tick, loop)
        elif self._loop is loop:
            self._loop = None

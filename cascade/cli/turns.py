"""Two ways of answering the same, timed in turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Generic, TypeVar

__all__ = ["Turns"]

Answers = TypeVar("Answers")

REPETITIONS = 5
PATIENCE = 4.0  # seconds of timing; a slow machine gets fewer repetitions


@dataclass(frozen=True, eq=False)
class Turns(Generic[Answers]):
    """What both said and how long they took. Make it with `Turns.of`.

    Attributes:
        answers, full_answers: of the cascade and of its full second tier alone.
        seconds, full_seconds: medians over repetitions that took turns.
    """

    answers: Answers
    full_answers: Answers
    seconds: float
    full_seconds: float

    @classmethod
    def of(
        cls,
        cascade: Callable[[], Answers],
        full: Callable[[], Answers],
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> Turns[Answers]:
        """Run both in turns, after one run of each that is not counted. `clock`: gives seconds."""
        begin = clock()
        answers, full_answers = cascade(), full()
        repetitions = max(1, min(REPETITIONS, int(PATIENCE / max(clock() - begin, 1e-9))))
        times: dict[str, list[float]] = {"cascade": [], "full": []}
        for _ in range(repetitions):
            for name, answer in (("full", full), ("cascade", cascade)):
                begin = clock()
                answer()
                times[name].append(clock() - begin)
        return cls(answers, full_answers, median(times["cascade"]), median(times["full"]))

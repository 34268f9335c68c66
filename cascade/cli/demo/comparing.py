"""A cascade beside its second tier alone: both answer the same, and their runs are timed in alternation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import median
from typing import Any

import click

from cascade.cli.show import duration
from cascade.core.console import table
from cascade.core.results import Predictions, TagPredictions
from cascade.policies.exits import never
from cascade.policies.routing import defer_all

REPETITIONS = 5
PATIENCE = 4.0  # seconds of timing; a slow machine gets fewer repetitions
FASTER = 1.05  # ratio from which the cascade counts as faster


@dataclass(frozen=True)
class Comparison:
    """The second tier alone at full depth, and the cascade, on the same sentences or words.

    Seconds are medians over alternating repetitions; `full_right` and `cascade_right` are `None` where there are no
    labels.
    """

    unit: str
    count: int
    full_seconds: float
    cascade_seconds: float
    agree: int
    deferred: int
    full_right: int | None = None
    cascade_right: int | None = None

    def shown(self) -> Iterator[str]:
        """The times as a table, and what the user sees in one sentence."""
        rows = []
        for name, seconds, right in (
            ("full second tier alone", self.full_seconds, self.full_right),
            ("cascade", self.cascade_seconds, self.cascade_right),
        ):
            shares = [] if right is None else [f"{right / self.count:.1%}"]
            rows.append([name, duration(seconds), f"{seconds / self.count * 1000:.2f} ms", *shares])
        head = [f"all {self.count} {self.unit}s", "time", f"per {self.unit}", "right"]
        yield table(head[: len(rows[0])], rows, right=(1, 2, 3))
        yield self.verdict()

    def verdict(self) -> str:
        """What the user sees, in one sentence made from the numbers."""
        counted = f"of {self.count} {self.unit}s"
        answers = f"they gave the same answer to {self.agree} {counted} ({self.agree / self.count:.1%})"
        if self.full_right is not None:
            answers += f", and the right one to {self.cascade_right} (cascade) and {self.full_right} (full second tier)"
        ratio = self.full_seconds / self.cascade_seconds
        if ratio >= FASTER:
            return f"The cascade was {ratio:.1f} times faster than its full second tier alone; {answers}."
        return (
            f"Here the cascade is not faster than its full second tier alone: {duration(self.cascade_seconds)} against "
            f"{duration(self.full_seconds)}, with {self.deferred} {counted} sent to tier 2; {answers}."
        )


def compare(
    pipeline: Any,
    given: Sequence[Any],
    labels: Sequence[str] | None = None,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Comparison, Any, Any]:
    """Run a cascade and its second tier alone on the same, in alternation, after one run of each that is not counted.

    `given`: texts, or sentences of words; `labels`: the right label of each text, where there are any.

    Returns:
        The comparison, the cascade's answers, and those of the second tier alone.
    """
    full = pipeline.with_router(defer_all).with_exit_policy(never)
    begin = clock()
    answers, full_answers = pipeline.predict(given), full.predict(given)
    repetitions = max(1, min(REPETITIONS, int(PATIENCE / max(clock() - begin, 1e-9))))
    seconds: dict[Any, list[float]] = {False: [], True: []}
    for _ in range(repetitions):
        for is_full, one in ((True, full), (False, pipeline)):
            begin = clock()
            one.predict(given)
            seconds[is_full].append(clock() - begin)
    ours, theirs = _units(answers), _units(full_answers)
    routes = answers.routes.words if isinstance(answers, TagPredictions) else answers.routes
    return (
        Comparison(
            unit="word" if isinstance(answers, TagPredictions) else "sentence",
            count=len(ours),
            full_seconds=median(seconds[True]),
            cascade_seconds=median(seconds[False]),
            agree=equal(ours, theirs),
            deferred=int((routes.tier == 2).sum()),
            full_right=None if labels is None else equal(theirs, labels),
            cascade_right=None if labels is None else equal(ours, labels),
        ),
        answers,
        full_answers,
    )


def equal(left: Sequence[object], right: Sequence[object]) -> int:
    """How many stand for the same in both."""
    return sum(one == other for one, other in zip(left, right, strict=True))


def heading(text: str) -> str:
    """The first line of what a bundle shows."""
    return click.style(text, bold=True, underline=True)


def _units(answers: Predictions | TagPredictions) -> list[Any]:
    return list(chain.from_iterable(answers.tags)) if isinstance(answers, TagPredictions) else list(answers.labels)

"""All points of a classifier's grid, of which `choose` takes one."""

from __future__ import annotations

from cascade.calibration.ranked import Ranked, Tuned
from cascade.calibration.texts import TextAnswers
from cascade.calibration.thresholds.points import Point
from cascade.calibration.thresholds.texts import Grid, _Replay


def replay(answers: TextAnswers, *, grid: Grid | None = None, tuned: Tuned | None = None) -> list[Point]:
    made = _Replay(answers, Ranked.of(answers, tuned or Tuned()), grid or Grid())
    tables = made.of_grid()
    return [made.point(tables, number) for number in range(tables.cost.size)]

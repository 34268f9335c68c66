"""A certificate for anybody's scores: an LLM judge, rules or an API in front of a reference, from rows of answers.

Each tier says a label and how sure it is, the last one, the reference, a label; with what each answer cost, the same
path and test as of a bundle's tiers choose the thresholds. Scores are taken as they are: no temperature, no blend.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count as count_from
from typing import Any, Final

import numpy as np

from cascade.calibration.certify.claims import Claim
from cascade.calibration.certify.outcomes import Certified, Refused, told
from cascade.calibration.certify.paths import PathGrid, text_path
from cascade.calibration.certify.procedure import Chosen, Split, certify
from cascade.calibration.costs import Costs, TierCosts
from cascade.calibration.examples import copies_said, distinct
from cascade.calibration.texts import TextAnswers, TierAnswers
from cascade.core.labels import spelled
from cascade.core.tables import is_null
from cascade.exceptions import DataError

THAN: Final = "the reference"
KEYS: Final = ("id", "text")  # columns that tell copies of an example
_GRID: Final = PathGrid(blends=(0.0,))
_STEPS: Final = 1e6  # of the dearest answer; prices are whole numbers of these


@dataclass(frozen=True, eq=False)
class Scores:
    """Rows of a file. Make it with `Scores.of`.

    `items`: what tells copies; `labels`: all that occur, sorted; `answers`: of all tiers, costs being prices.
    """

    items: Sequence[Any]
    labels: tuple[str, ...]
    answers: TextAnswers

    @classmethod
    def of(cls, rows: Iterable[tuple[int, Mapping[str, Any]]]) -> Scores:
        """Read rows, each with its line's number; a `DataError` tells that of a value that is missing or impossible.

        Two tiers: `label` and `score` in [0, 1] (or `probabilities`, numbers by label), `reference`, what the last tier
        says, or `gold`, which is right, or both; `price`, of the reference, 1 if left out, and `price_1`, else 0. Any
        number of tiers: `label_1`, `score_1`, `price_1`, `label_2`, ...; the last one is the reference.
        """
        given = list(rows)
        first = given[0][1]
        count = next(n for n in count_from(1) if not {f"label_{n}", f"probabilities_{n}"} & set(first)) - 1
        ends = [f"_{number}" for number in range(1, count)] or [""]
        last = f"label_{count}" if count else "reference" if "reference" in first else "gold"
        said = [[_judged(*one, end) for one in given] for end in ends] + [[(_label(*one, last), 1.0) for one in given]]
        truth = [_label(*one, "gold") for one in given] if "gold" in first else []
        labels = tuple(sorted({label for own in said for label, _ in own} | set(truth)))
        numbers = {label: number for number, label in enumerate(labels)}
        costs: list[tuple[str, float | None]] = [(f"price_{number}", None) for number in range(1, count + 1)]
        costs = costs or [("price_1", 0.0), ("price", 1.0)]
        prices = np.array([[_number(*one, name, default) for one in given] for name, default in costs])
        if not prices[-1].any():
            raise DataError(f"the reference must have a price, got 0 for all in {costs[-1][0]!r}; leave the column out")
        unit, rows_of = prices.max() / _STEPS, np.arange(len(given))
        tiers = []
        for own, paid in zip(said, prices, strict=True):
            chances = np.zeros((len(given), 1, len(labels)), dtype=np.float32)
            score = np.array([score for _, score in own], dtype=np.float32)
            chances[rows_of, 0, [numbers[label] for label, _ in own]] = np.maximum(score, np.finfo(np.float32).tiny)
            tiers.append(TierAnswers(chances, rows_of, np.rint(paid / unit).astype(np.int64)))
        answers = TextAnswers(
            tiers=tuple(tiers),
            lengths=np.ones(len(given), dtype=np.int64),
            truth=np.array([numbers[label] for label in truth], dtype=np.int64) if truth else None,
            temperatures=((1.0,),) * len(tiers),
            costs=Costs((TierCosts((unit,)),) * len(tiers)),
        )
        key = next((key for key in KEYS if key in first), None)
        items = [(line,) if key is None or is_null(row.get(key)) else row[key] for line, row in given]
        return cls(items, labels, answers)

    def certified(self, claim: Claim, *, seed: int = 0) -> Certified | Refused:
        """The cheapest thresholds for which a claim can be certified (`than` in it: `THAN`), or why there are none.

        The examples and the `seed` of their split are as in `whole.calibrate`.
        """
        kept = distinct(self.items)
        answers, split = self.answers.select(kept), Split.of(len(kept), claim, seed=seed)
        chooser, tester = answers.select(split.choosers), answers.select(split.testers)

        def choose() -> Chosen[TextAnswers]:
            return Chosen(text_path(chooser, claim.ask, grid=_GRID), tester)

        found = certify(tester, claim, choose, split=split, seed=seed, labels=self.labels)
        return told(found, kept, copies_said(len(self.items), len(kept), "rows"))


def _judged(line: int, row: Mapping[str, Any], end: str) -> tuple[str, float]:
    """What a tier says, and how sure it is."""
    chances = row.get(f"probabilities{end}")
    if not isinstance(chances, Mapping) or not chances:
        return _label(line, row, f"label{end}"), _number(line, row, f"score{end}", None, most=1.0)
    known = {label: _number(line, chances, label, None, most=1.0) for label in chances}
    return max(known.items(), key=lambda one: one[1])


def _label(line: int, row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    if isinstance(value, str | int | float) and value != "" and not is_null(value):
        return spelled(value)
    raise DataError(f"line {line}: column {column!r} must be a label, got {value!r}; add it, or leave the row out")


def _number(line: int, row: Mapping[str, Any], column: str, default: float | None, *, most: float = math.inf) -> float:
    """A number of a column; `default` where there is no such column."""
    value = row.get(column, default)
    with suppress(TypeError, ValueError):
        number = float(value)
        if 0 <= number <= most and number < math.inf:
            return number
    rule = "a number in [0, 1]" if most == 1 else "a number of at least 0"
    raise DataError(f"line {line}: column {column!r} must be {rule}, got {value!r}; correct it, or leave the row out")

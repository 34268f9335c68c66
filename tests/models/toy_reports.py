"""Reports of calibrations that never ran, and what is read off their pictures."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

from matplotlib.figure import Figure

from cascade.calibration.reliability import reliability, risk_coverage
from cascade.calibration.report import Fate, Head, Report, Trial, Trials

FATES = (*(Fate.CERTIFIED,) * 5, Fate.CHOSEN, Fate.FAILED, *(Fate.UNTESTED,) * 3)


def trial(number: int, fate: Fate, **changes: Any) -> Trial:
    given: dict[str, Any] = {
        "setting": f"Threshold(threshold=0.{99 - number}), never",
        "speed_up": 0.9 * 1.25**number,
        "value": 0.001 * number,
        "upper": 0.001 * number + 0.004,
        "fate": fate,
        "events": number,
        "deferred": 1 - number / 10,
    }
    return Trial(**(given | changes))


def path(*fates: Fate, **changes: Any) -> Trials:
    trials = tuple(trial(number, fate) for number, fate in enumerate(fates or FATES))
    given: dict[str, Any] = {"quantity": "harm", "bound": 0.01, "trials": trials, "confidence": 0.95}
    return Trials(**(given | changes))


def floats(values: Any) -> npt.NDArray[np.float32]:
    return np.asarray(values, dtype=np.float32)


def heads(exits: int, labels: int = 2) -> tuple[Head, ...]:
    random = np.random.default_rng(0)
    made = []
    for number in range(exits + 1):
        sure = 1 / labels + (1 - 1 / labels) * random.beta(3 + number, 1, size=300)
        name = f"exit {number}" if number else "tier 1"
        made.append(Head(name=name, reliability=reliability(floats(sure), random.random(300) < sure), temperature=1.25))
    return tuple(made)


def report(**changes: Any) -> Report:
    random = np.random.default_rng(1)
    sure = floats(random.random(300))
    given: dict[str, Any] = {
        "model": "models/sentiment",
        "data": "calibration.jsonl",
        "claim": "harm of at most 1 % of the texts",
        "certified": True,
        "outcome": "Certified: 5 of 1,000 texts were harmed.",
        "unit": "texts",
        "examples": 1000,
        "labelled": True,
        "tested": path(),
        "machine": {"CPU": "Abacus", "Threads": "2"},
        "command": "cascade calibrate models/sentiment --data 'a file.jsonl' --max-drop 0.01",
        "made": "2026-01-31 12:00 UTC",
        "certificate": {"Library": "0.1.0"},
        "warnings": ("12 rows occur more than once",),
        "method": ("Harm of a text: a wrong answer where tier 2 is right.",),
        "heads": heads(3),
        "risk": risk_coverage(sure, random.random(300) > sure),
    }
    return Report(**(given | changes))


REPORTS = {
    "certified": report(),
    "refused": report(
        certified=False, certificate={}, tested=path(Fate.FAILED, Fate.UNTESTED, Fate.UNTESTED), heads=(), risk=None
    ),
    "one setting": report(tested=path(Fate.CHOSEN), heads=heads(0)),
    "no labels": report(labelled=False, tested=path(quantity="disagreement with tier 2 at full depth"), heads=heads(0)),
    "seconds": report(
        tested=path(quantity="mean cost of a sentence", bound=0.005, seconds=True), unit="sentences", heads=()
    ),
    "twelve exits": report(heads=heads(12, labels=150), tested=path(trials=()), risk=None),
    "no bounds": report(
        tested=path(trials=tuple(trial(n, fate, upper=math.nan) for n, fate in enumerate(FATES))), heads=()
    ),
    "nobody wrong": report(
        risk=risk_coverage(floats(np.linspace(0.1, 1, 50)), np.zeros(50)), heads=(), tested=path(trials=())
    ),
}


def points(figure: Figure) -> dict[str, list[tuple[float, float]]]:
    """Markers by the name in the legend."""
    return {
        str(one.get_label()): list(zip(*(np.asarray(side).tolist() for side in one[0].get_data()), strict=True))
        for one in figure.axes[0].containers
    }


def size(png: bytes) -> tuple[int, int]:
    """Width and height in pixels."""
    assert png.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", png[16:24])
    return width, height

"""What the shipped bundles answer, whatever kind of CPU they run on; `python -m tests.golden` writes it again."""

from __future__ import annotations

from typing import Any

import numpy as np

from cascade import Classifier, Tagger, load
from tests.test_floors import ROOT

NAMES = ("sentiment", "intents", "pos")
FOLDER = ROOT / "tests" / "golden"
TOLERANCE = 0.03  # of a score; what other instructions change is the order of float additions, and by it a rounding


def pipeline(name: str) -> Classifier | Tagger:
    """A shipped bundle with the policies that it ships with."""
    return load(ROOT / "models" / name, threads=1, tuned=False)


def answers(of: Classifier | Tagger, items: list[Any]) -> list[dict[str, Any]]:
    """Of each text its label and the label's score; of each sentence the words' tags and the mean of their scores."""
    if isinstance(of, Classifier):
        found = of.predict(items)
        return [
            {"text": item, "label": one.label, "score": round(float(one.probabilities.max()), 4)}
            for item, one in zip(items, found, strict=True)
        ]
    tagged = of.predict(items)
    return [
        {"tokens": item, "tags": list(one.tags), "score": round(float(np.mean(one.probabilities.max(axis=1))), 4)}
        for item, one in zip(items, tagged, strict=True)
    ]

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from cascade.calibration.claims import Agreement, Ask, Claim, MaxDeferred, MaxDrop, MeanCost, Unit
from cascade.calibration.losses import lost
from cascade.exceptions import OptionError


@pytest.mark.parametrize(
    ("ask", "unit", "words"),
    [
        (MaxDrop(), Unit.TEXT, "accuracy is at most 1 point below that of tier 2 at full depth"),
        (MaxDrop(0.025), Unit.WORD, "accuracy of words is at most 2.5 points below that of tier 2 at full depth"),
        (MaxDrop(two_sided=True), Unit.TEXT, "accuracy differs by at most 1 point from that of tier 2 at full depth"),
        (
            MaxDrop(0.02, per_class=True),
            Unit.TEXT,
            "accuracy is at most 2 points below that of tier 2 at full depth, for every label by itself",
        ),
        (
            Agreement(0.005),
            Unit.SENTENCE,
            "the answer differs from that of tier 2 at full depth for at most 0.5 % of sentences",
        ),
        (MaxDeferred(0.2), Unit.TEXT, "at most 20 % of texts are deferred to tier 2"),
        (MaxDeferred(0.2), Unit.SENTENCE, "at most 20 % of words are deferred to tier 2"),
        (
            MeanCost(0.005),
            Unit.TEXT,
            "a text costs at most 5 ms on average, by the costs measured on this machine",
        ),
    ],
)
def test_claims_in_words(ask: Ask, unit: Unit, words: str) -> None:
    assert ask.describe(unit) == words
    assert Claim(ask, confidence=0.9, unit=unit).describe() == f"{words}, with a confidence of 90 %"


def test_written_form() -> None:
    claim = Claim(MaxDrop(0.02, per_class=True), confidence=0.9, unit=Unit.WORD)
    assert claim.to_json() == {
        "ask": "MaxDrop",
        "bound": 0.02,
        "two_sided": False,
        "per_class": True,
        "confidence": 0.9,
        "unit": "word",
    }
    assert MaxDeferred(0.3).to_json() == {"ask": "MaxDeferred", "share": 0.3}
    assert MeanCost(0.01).to_json() == {"ask": "MeanCost", "seconds": 0.01}


def test_defaults_and_bounds() -> None:
    claim = Claim()
    assert claim.ask == MaxDrop(0.01)
    assert claim.level == pytest.approx(0.05)
    assert [ask.bound for ask in (Agreement(0.03), MaxDeferred(0.3), MeanCost(0.004))] == [0.03, 0.3, 0.004]
    assert [ask.needs_labels for ask in (MaxDrop(), Agreement(), MaxDeferred(), MeanCost())] == [True] + 3 * [False]


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: MaxDrop(0), "the drop must be above 0 and below 1, was: 0"),
        (lambda: MaxDrop(1.0), "the drop must be above 0 and below 1, was: 1.0"),
        (lambda: Agreement(-0.1), "the disagreement must be above 0 and below 1"),
        (lambda: MaxDeferred(True), "the share to defer must be above 0 and below 1, was: True"),
        (lambda: MeanCost(0), "the mean cost must be above 0 seconds and finite, was: 0"),
        (lambda: MeanCost(math.inf), "the mean cost must be above 0 seconds and finite, was: inf"),
        (lambda: Claim(confidence=1), "the confidence must be above 0 and below 1, was: 1"),
        (
            lambda: MaxDrop("0.1"),  # type: ignore[arg-type]  # as a caller may
            "the drop must be above 0 and below 1, was: '0.1'",
        ),
    ],
)
def test_impossible_claims(make: Any, rule: str) -> None:
    with pytest.raises(OptionError, match=rule):
        make()


def test_what_is_lost() -> None:
    """Right and right, harmed, gained, both wrong alike, both wrong but not alike."""
    goal = np.array([[0], [0], [0], [0], [0]])
    full = np.array([[0], [0], [1], [1], [1]])
    given = np.array([[0], [1], [0], [1], [2]])
    assert lost(MaxDrop(), given, full, goal).tolist() == [False, True, False, False, False]
    assert lost(MaxDrop(two_sided=True), given, full, goal).tolist() == [False, True, True, False, False]
    for ask in (Agreement(), MaxDeferred(), MeanCost()):
        assert lost(ask, given, full, goal).tolist() == [False, True, True, False, True]

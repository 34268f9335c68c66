"""What can be asked, and what counts against it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cascade.calibration.certify.claims import Agreement, Claim, MaxDrop, RiskTarget, Unit
from cascade.calibration.certify.events import count, figures_of, lost
from cascade.exceptions import OptionError
from tests.models.toy_answers import fixed, ran, toy_answers


@pytest.mark.parametrize(
    ("ask", "unit", "words"),
    [
        (MaxDrop(), Unit.TEXT, "accuracy is at most 1 point below that of tier 2 at full depth"),
        (
            MaxDrop(0.025),
            Unit.SENTENCE,
            "accuracy of sentences is at most 2.5 points below that of tier 2 at full depth",
        ),
        (
            MaxDrop(0.02, per_class=True),
            Unit.TEXT,
            "accuracy is at most 2 points below that of tier 2 at full depth, for every label separately",
        ),
        (
            Agreement(0.005),
            Unit.SENTENCE,
            "the answer differs from that of tier 2 at full depth for at most 0.5 % of sentences",
        ),
    ],
)
def test_claims_in_words(ask: RiskTarget, unit: Unit, words: str) -> None:
    assert ask.describe(unit) == words
    assert Claim(ask, confidence=0.9, unit=unit).describe() == f"{words}, with a confidence of 90 %"


def test_written_form_and_defaults() -> None:
    claim = Claim(MaxDrop(0.02, per_class=True), confidence=0.9, unit=Unit.SENTENCE)
    assert claim.to_json() == {
        "ask": "MaxDrop",
        "bound": 0.02,
        "per_class": True,
        "confidence": 0.9,
        "unit": "sentence",
    }
    assert Agreement(0.3).to_json() == {"ask": "Agreement", "bound": 0.3, "per_class": False}
    assert Claim().ask == MaxDrop(0.01)
    assert Claim().level == pytest.approx(0.05)
    counted = [Claim(ask).counted for ask in (MaxDrop(), Agreement())]
    assert counted == ["harm", "disagreement with tier 2"]


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: MaxDrop(0), "the bound must be above 0 and below 1, got 0; 0.01 is one of a hundred"),
        (lambda: Agreement(-0.1), "the bound must be above 0 and below 1"),
        (lambda: Claim(confidence=1), "the confidence must be above 0 and below 1, got 1; 0.95 is usual"),
        (lambda: MaxDrop("0.1"), "the bound must be above 0 and below 1, got '0.1'"),  # type: ignore[arg-type]
    ],
)
def test_impossible_claims(make: Any, rule: str) -> None:
    with pytest.raises(OptionError, match=rule):
        make()


def test_the_parts_of_all_questions_add_up_to_the_error() -> None:
    levels = [Claim(question=number).level for number in range(1, 20_001)]
    assert levels[0] == pytest.approx(0.04)
    assert levels == sorted(set(levels), reverse=True)
    assert 0.0499 < sum(levels) < 0.05
    assert Claim(question=3).later == Claim(question=4)
    assert Claim().later == Claim()
    with pytest.raises(OptionError, match="question must be"):
        Claim(question=0)


def test_what_is_lost() -> None:
    """Right and right, harmed, gained, both wrong alike, both wrong but not alike."""
    goal = np.array([[0], [0], [0], [0], [0]])
    full = np.array([[0], [0], [1], [1], [1]])
    given = np.array([[0], [1], [0], [1], [2]])
    assert lost(MaxDrop(), given, full, goal).tolist() == [False, True, False, False, False]
    assert lost(Agreement(), given, full, goal).tolist() == [False, True, True, False, True]


def test_sentences_are_counted_whole() -> None:
    # Sentences of 2, 1 and 3 words; the first is harmed twice, the last once, where full depth is right.
    some = fixed(toy_answers(), [2, 1, 3], full=[0, 0, 1, 2, 2, 0], truth=[0, 0, 0, 2, 2, 2])
    run = ran([1, 1, 1, 2, 0, 0])
    assert list(count(Claim(MaxDrop(0.5), unit=Unit.SENTENCE), some, run)) == pytest.approx([2, 3, 7 / 8])
    figures = figures_of(some, run, (1.0, 3.0))
    assert (figures.harms, figures.gains, figures.disagreements) == (2, 0, 2)
    assert figures.accuracy == 0
    assert figures.full_accuracy == pytest.approx(1 / 3)
    assert figures.drop == pytest.approx(1 / 3)
    assert figures.speed_up == 3

"""Tests of how many sentences a build chooses on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cascade.calibration.costs import TierCosts
from cascade.training.build import choosing
from tests.models.toy_answers import toy_answers


def test_fewer_sentences_choose_where_time_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "FEW", 30)
    answers = toy_answers()  # 120 sentences
    assert answers.costs is not None
    each = answers.costs.full * answers.words.rows.tokens / len(answers)
    whole = choosing._read(answers, 1e9, 4)
    assert len(whole) == len(answers)
    assert whole.at_every_exit.shape[:2] == (len(answers.words), len(answers.layers))
    some = choosing._read(answers, (choosing.FEW + 20.5) * each * (4 * choosing.READS + choosing.REACH.run), 4)
    assert len(some) == choosing.FEW + 20
    assert len(choosing._read(answers, 0.0, 4)) == choosing.FEW
    np.testing.assert_array_equal(some.at_every_exit, whole.at_every_exit[: len(some.words)])
    first, second = answers.costs.tiers
    dearer = TierCosts((2 * first.full,))
    other = replace(answers, costs=replace(answers.costs, tiers=(dearer, second)))
    assert choosing._pair(answers, other).costs == other.costs

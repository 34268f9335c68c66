"""Tests of how many sentences a build chooses on, and how it tells the form of full depth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cascade.bundle.tiers import MultiExitSpec, SingleExitSpec, StageSpec
from cascade.calibration.costs import TierCosts
from cascade.training.build import choosing
from cascade.training.build.finishing import form_of
from tests.models.toy_answers import toy_answers


def test_fewer_sentences_choose_where_time_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "FEW", 30)
    answers = toy_answers()  # 120 sentences
    assert answers.costs is not None
    each = answers.costs.full * answers.words.rows.tokens / len(answers)
    whole = choosing._read(answers, 1e9, 4)
    assert len(whole) == len(answers)
    assert whole.at_every_exit.shape[:2] == (len(answers.words), len(answers.layers))
    some = choosing._read(answers, (choosing.FEW + 20.5) * each * (4 * choosing.READS + choosing.WORDS.run), 4)
    assert len(some) == choosing.FEW + 20
    assert len(choosing._read(answers, 0.0, 4)) == choosing.FEW
    np.testing.assert_array_equal(some.at_every_exit, whole.at_every_exit[: len(some.words)])
    first, second = answers.costs.tiers
    dearer = TierCosts((2 * first.full,))
    other = replace(answers, costs=replace(answers.costs, tiers=(dearer, second)))
    assert choosing._pair(answers, other).costs == other.costs


def test_the_form_of_full_depth_is_told_as_it_is() -> None:
    stages = [StageSpec("a", 1, "int8"), StageSpec("b", 2, "fp32"), StageSpec("c", 3, "int8")]
    mixed = MultiExitSpec("embed", tuple(stages), width=64, heads=4, max_length=64)
    assert form_of(mixed) == "packed, 2 of 3 stages in int8"
    assert form_of(replace(mixed, stages=(stages[0], stages[2]))) == "packed in int8"
    assert form_of(replace(mixed, stages=(stages[1],))) == "packed in fp32"
    assert form_of(replace(mixed, stages=(StageSpec("a", 1, "int7"), stages[1]))) == "packed, 1 of 2 stages in int8"
    assert form_of(SingleExitSpec("a", 64, precision="fp32")) == "in fp32"
    assert form_of(SingleExitSpec("a", 64, precision="int7")) == "in int8"

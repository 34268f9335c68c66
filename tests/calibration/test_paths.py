"""A classifier's path of settings: rows exit ever earlier, predictions are replays; the curves of risk."""

from __future__ import annotations

import numpy as np
import pytest

from cascade.calibration.certify.claims import Agreement, MaxDrop, RiskTarget
from cascade.calibration.certify.paths import Curve, PathGrid, text_path
from tests.models.recorded import recorded


@pytest.mark.parametrize("ask", [MaxDrop(0.05), Agreement(0.05)])
def test_along_a_path_every_row_exits_earlier_or_at_the_same_place(ask: RiskTarget) -> None:
    answers = recorded(1000)
    steps = text_path(answers, ask)
    assert len(steps) > 20
    depths = [answers.run(step.policies).layers for step in steps]
    for shallow, deep in zip(depths[1:], depths, strict=False):
        assert (shallow <= deep).all()
    assert all(np.diff([step.cost for step in steps]) < 0)
    assert {step.policies.blend for step in steps} == {steps[0].policies.blend}


def test_what_a_path_predicts_is_what_a_replay_gives() -> None:
    answers = recorded(1000)
    for step in text_path(answers, MaxDrop(0.05), grid=PathGrid(steps=10)):
        run = answers.run(step.policies)
        assert step.cost == pytest.approx(run.seconds / answers.full.seconds, rel=1e-6)
        assert step.deferred == pytest.approx(run.deferred.mean())


def test_curves() -> None:
    random = np.random.default_rng(0)
    sure = random.uniform(0.5, 1, 4000).astype(np.float32)
    curve = Curve.fit(sure, random.random(4000) < 1 - sure)
    # Calibrated confidence: the risk is what is missing to 1.
    assert curve.risk(np.array([0.6, 0.8, 0.95], dtype=np.float32)) == pytest.approx([0.4, 0.2, 0.05], abs=0.03)
    assert Curve.fit(sure, sure > 0.9).slope == 0  # surer is never riskier


@pytest.mark.parametrize("events", [0, 50])
def test_a_curve_of_events_that_are_all_the_same_is_flat(events: int) -> None:
    curve = Curve.fit(np.linspace(0.5, 1, 50, dtype=np.float32), np.arange(50) < events)
    rate = (events + 0.5) / 51
    assert curve.risk(np.array([0.5, 0.99])) == pytest.approx([rate, rate])

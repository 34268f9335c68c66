from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest

from cascade.calibration import Costs
from cascade.calibration import certify as module
from cascade.calibration.bounds import allowed, examples_needed, upper_bound
from cascade.calibration.certify import Certified, Refused, share_of
from cascade.calibration.claims import Agreement, Ask, Claim, MaxDeferred, MaxDrop, MeanCost
from cascade.calibration.curves import Curve
from cascade.calibration.losses import differ, lost
from cascade.calibration.means import Mean
from cascade.calibration.paths import Grid, path
from cascade.calibration.replay import Setting, replay
from cascade.exceptions import DataError, OptionError
from cascade.policies.exits import never
from cascade.policies.routing import Threshold, defer_all
from tests.models.recorded import COSTS, recorded

certify = functools.partial(module.certify, grid=Grid(risks=16, steps=30, blends=(0.0, 0.3)))

ASKS: list[Ask] = [
    MaxDrop(0.03),
    MaxDrop(0.04, two_sided=True),
    MaxDrop(0.06, per_class=True),
    Agreement(0.04),
    Agreement(0.06, per_class=True),
    MaxDeferred(0.3),
    MeanCost(10.0),
]


@pytest.mark.parametrize("ask", ASKS, ids=lambda ask: ask.describe())
def test_what_is_certified_is_what_was_counted(ask: Ask) -> None:
    answers = recorded(2000)
    found = certify(answers, COSTS, Claim(ask), seed=3)
    assert isinstance(found, Certified)
    assert sorted([*found.chosen_on, *found.tested_on]) == list(range(2000))
    assert len(found.chosen_on) == 400
    # Exactly one that failed may stand behind those that passed.
    level = found.claim.level
    assert [step.p_value <= level for step in found.tested[: found.number + 1]] == [True] * (found.number + 1)
    assert [step.p_value <= level for step in found.tested[found.number + 1 :]] in ([], [False])
    share = answers.with_temperatures(found.temperatures).select(found.tested_on)
    ran = replay(share, found.setting, COSTS)
    taken, figures = found.taken, found.figures
    if isinstance(ask, MeanCost):
        assert taken.rate == pytest.approx(ran.seconds.mean())
        assert taken.rate < taken.upper <= ask.seconds
    else:
        event = ran.deferred if isinstance(ask, MaxDeferred) else lost(ask, ran.answers, share.full(), share.goal())
        if not getattr(ask, "per_class", False):
            assert (taken.events, taken.examples) == (event.sum(), 1600)
            assert taken.events <= allowed(1600, ask.bound)
        assert taken.upper == upper_bound(taken.events, taken.examples) <= ask.bound
    assert figures.disagreements == differ(ran.answers, share.full()).sum()
    assert figures.drop is not None
    assert figures.harms is not None
    assert figures.gains is not None
    assert figures.drop == pytest.approx((figures.harms - figures.gains) / 1600)
    assert figures.seconds == pytest.approx(ran.seconds.mean())
    assert figures.speed_up > 1
    assert np.isclose(figures.full_seconds, replay(share, Setting(defer_all, never), COSTS).seconds.mean())


def test_the_drop_and_its_change_are_bounded() -> None:
    answers = recorded(3000)
    one, both = (certify(answers, COSTS, Claim(MaxDrop(0.03, two_sided=two))) for two in (False, True))
    assert isinstance(one, Certified)
    assert isinstance(both, Certified)
    harms, gains = both.figures.harms, both.figures.gains
    assert harms is not None
    assert gains is not None
    assert both.taken.events == harms + gains
    assert one.taken.events == one.figures.harms


def test_every_class_has_to_pass() -> None:
    answers = recorded(3000)
    found = certify(answers, COSTS, Claim(MaxDrop(0.05, per_class=True)))
    assert isinstance(found, Certified)
    events, sizes = share_of(answers, COSTS, found).by_class(found.setting)
    assert sizes.sum() == len(found.tested_on)
    assert all(seen <= allowed(int(size), 0.05) for seen, size in zip(events, sizes, strict=True))
    assert found.taken.events in events
    assert "of every class" in found.method


def test_the_same_seed_gives_the_same() -> None:
    answers = recorded(800)
    first, again, other = (certify(answers, COSTS, Claim(MaxDrop(0.05)), seed=seed) for seed in (1, 1, 2))
    assert isinstance(first, Certified)
    assert isinstance(again, Certified)
    assert first.setting == again.setting
    assert first.tested_on.tolist() == again.tested_on.tolist() != other.tested_on.tolist()


def test_agreement_needs_no_labels() -> None:
    found = certify(recorded(2000, labelled=False), COSTS, Claim(Agreement(0.04)))
    assert isinstance(found, Certified)
    assert found.figures.accuracy is found.figures.drop is found.figures.harms is None
    assert found.taken.events == found.figures.disagreements


@pytest.mark.parametrize("ask", [MaxDrop(0.03), MaxDeferred(0.3), MeanCost(20.0)])
def test_documents_of_several_windows_are_counted_once(ask: Ask) -> None:
    answers = recorded(1500, windows=3)
    found = certify(answers, COSTS, Claim(ask))
    assert isinstance(found, Certified)
    assert found.taken.examples == found.figures.examples == 1200


@pytest.mark.parametrize("labels", [1, 4])
def test_independent_labels(labels: int) -> None:
    found = certify(recorded(1500, labels=labels, multi_label=True), COSTS, Claim(MaxDrop(0.05)))
    assert isinstance(found, Certified)
    assert found.figures.speed_up > 1


def test_too_few_examples_are_refused_with_the_number_needed() -> None:
    found = certify(recorded(300), COSTS, Claim(MaxDrop(0.01)))
    assert isinstance(found, Refused)
    assert found.why == "240 examples are left to test with, and even without a single event it takes 299"
    assert found.examples_needed == 374  # of which four fifths are 299
    assert found.tested == ()


def test_classes_with_too_few_examples_are_named() -> None:
    answers = recorded(600)
    assert answers.truth is not None
    rare = replace(answers, truth=np.where(np.arange(600) < 20, 2, answers.truth % 2))
    found = certify(rare, COSTS, Claim(MaxDrop(0.05, per_class=True)), labels=("no", "yes", "rare"))
    assert isinstance(found, Refused)
    assert found.why.startswith("59 examples of every class are needed to test with, fewer are left of 'rare' (1")
    assert found.examples_needed is not None
    assert found.examples_needed > 1500


def test_harm_that_is_too_near_to_the_bound_is_refused() -> None:
    """A tier 2 whose early exits and tier 1 are always wrong, and so sure that every threshold lets them go."""
    answers = recorded(400)
    full = answers.tier2[:, -1]
    wrong = np.full_like(full, 0.0)
    wrong[np.arange(400), (full.argmax(axis=1) + 1) % 3] = 1.0
    answers = replace(answers, tier1=wrong, tier2=np.stack([wrong, wrong, full], axis=1))
    found = certify(answers, COSTS, Claim(Agreement(0.05)), temper=False)
    assert isinstance(found, Refused)
    assert found.examples_needed is None
    assert "nothing that was tried" in found.why or "no less than the bound" in found.why


def test_the_number_needed_follows_what_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every setting of this path defers by a threshold that harms 2 to 3 in a hundred."""
    answers = recorded(1000)
    whole = path(answers, COSTS, MaxDrop(0.03))
    risky = tuple(step for step in whole if step.risk > 0.02)[:3]
    monkeypatch.setattr(module, "path", lambda *_arguments, **_options: risky)
    found = certify(answers, COSTS, Claim(MaxDrop(0.03)), temper=False)
    assert isinstance(found, Refused)
    assert len(found.tested) == 1
    seen = found.tested[0]
    assert f"has {seen.events} events among 800 examples" in found.why
    assert found.examples_needed == int(np.ceil(examples_needed(0.03, rate=seen.rate) / 0.8))


def test_a_mean_cost_below_all_settings_is_refused() -> None:
    found = certify(recorded(500), COSTS, Claim(MeanCost(0.5)))
    assert isinstance(found, Refused)
    assert found.examples_needed is None


def test_a_mean_cost_above_full_depth_gives_full_depth() -> None:
    found = certify(recorded(500), COSTS, Claim(MeanCost(60.0)))
    assert isinstance(found, Certified)
    assert (found.setting.router, found.setting.exit_policy) == (defer_all, never)
    assert found.figures.disagreements == 0
    assert "counts as one of so many" in found.warnings[0]


def test_where_tier_1_costs_as_much_as_tier_2_nothing_pays() -> None:
    costs = Costs(tier1=2.0, stages=(0.3, 0.3, 0.3))
    found = certify(recorded(1000), costs, Claim(MaxDrop(0.05)))
    assert isinstance(found, Refused)
    assert found.why.startswith("nothing that was tried is both cheaper")
    assert found.examples_needed is None


def test_bad_use() -> None:
    with pytest.raises(OptionError, match="MaxDrop needs labelled examples, these have none; ask for Agreement"):
        certify(recorded(50, labelled=False), COSTS, Claim(MaxDrop()))
    with pytest.raises(DataError, match="at least 20 examples, were: 19"):
        certify(recorded(19), COSTS, Claim(MaxDrop()))
    with pytest.raises(OptionError, match="chosen must be in"):
        certify(recorded(50), COSTS, Claim(MaxDrop()), chosen=1.5)


@pytest.mark.parametrize("ask", [MaxDrop(0.05), Agreement(0.05), MeanCost(15.0)])
def test_along_a_path_everyone_leaves_earlier_or_at_the_same_place(ask: Ask) -> None:
    answers = recorded(1000)
    steps = path(answers, COSTS, ask)
    steps = steps[::-1][1:] if isinstance(ask, MeanCost) else steps  # its last is full depth
    assert len(steps) > 20
    depths = [replay(answers, step.setting, COSTS).exits for step in steps]
    for shallow, deep in zip(depths[1:], depths, strict=False):
        assert (shallow <= deep).all()
    assert all(np.diff([step.cost for step in steps]) < 0)
    assert {step.setting.blend for step in steps} == {steps[0].setting.blend}


def test_what_a_path_predicts_is_what_a_replay_gives() -> None:
    answers = recorded(1000)
    full = replay(answers, Setting(defer_all, never), COSTS).seconds.sum()
    for step in path(answers, COSTS, MaxDrop(0.05), grid=Grid(steps=10)):
        ran = replay(answers, step.setting, COSTS)
        assert step.cost == pytest.approx(ran.seconds.sum() / full, rel=1e-6)
        assert step.deferred == pytest.approx(ran.deferred.mean())


def test_a_path_to_a_share_defers_more_and_more() -> None:
    answers = recorded(1000)
    steps = path(answers, COSTS, MaxDeferred(0.3))
    shares = [replay(answers, step.setting, COSTS).deferred.mean() for step in steps]
    assert shares == pytest.approx([step.risk for step in steps])
    assert shares[0] == 0
    assert 0.3 < shares[-1] <= 0.35
    assert all(np.diff(shares) > 0)


def test_curves() -> None:
    random = np.random.default_rng(0)
    sure = random.uniform(0.5, 1, 4000).astype(np.float32)
    curve = Curve.fit(sure, random.random(4000) < 1 - sure)
    # Calibrated confidence: the risk is what is missing to 1.
    assert curve.risk(np.array([0.6, 0.8, 0.95], dtype=np.float32)) == pytest.approx([0.4, 0.2, 0.05], abs=0.03)
    for risk in (0.01, 0.1, 0.3):
        least = curve.least_confidence(risk)
        assert curve.risk(np.array([least])) == pytest.approx([risk], rel=0.02)
    assert curve.least_confidence(1.0) == 0.0
    assert curve.least_confidence(1e-9) > 0.999


@pytest.mark.parametrize("events", [0, 50])
def test_a_curve_of_events_that_are_all_the_same_is_flat(events: int) -> None:
    curve = Curve.fit(np.linspace(0.5, 1, 50, dtype=np.float32), np.arange(50) < events)
    rate = (events + 0.5) / 51
    assert curve.risk(np.array([0.5, 0.99])) == pytest.approx([rate, rate])
    assert (curve.least_confidence(rate * 1.001), curve.least_confidence(rate * 0.999)) == (0.0, 1.0)


def test_surer_is_never_riskier() -> None:
    sure = np.linspace(0.5, 1, 100, dtype=np.float32)
    curve = Curve.fit(sure, sure > 0.9)
    assert curve.slope == 0


def test_a_learned_router_is_on_the_path_where_it_won() -> None:
    """Tier 1 is as sure of long texts as of short ones, and always wrong about them."""
    answers = recorded(4000, noise=0.3)
    long = answers.lengths > 30
    tier1 = answers.tier1.copy()
    tier1[long] = np.roll(tier1[long], 1, axis=1)
    tricky = replace(answers, tier1=tier1)
    found = certify(tricky, COSTS, Claim(MaxDrop(0.03)))
    plain = certify(tricky, COSTS, Claim(MaxDrop(0.03)), learn_router=False)
    assert isinstance(found, Certified)
    assert isinstance(plain, Certified)
    assert not isinstance(found.setting.router, Threshold)
    assert found.figures.speed_up > plain.figures.speed_up


def test_a_mean_in_its_own_unit() -> None:
    values = np.random.default_rng(0).uniform(0, 4, 3000)
    mean = Mean(values, most=10.0, level=0.05)
    assert mean.mean == pytest.approx(values.mean())
    upper = mean.upper()
    assert values.mean() < upper < values.mean() + 0.1
    assert mean.p_value(upper) <= 0.05 < mean.p_value(upper - 0.01)
    assert mean.p_value(10.0) == 0.0
    assert mean.p_value(1.0) > 0.9

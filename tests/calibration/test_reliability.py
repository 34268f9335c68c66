from __future__ import annotations

import itertools
import json

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.calibration.reliability import auroc, per_head, reliability, risk_coverage
from cascade.exceptions import OptionError

SURE = np.array([0.9, 0.6, 0.8, 0.7], dtype=np.float32)
RIGHT = np.array([True, False, True, False])

answered = st.lists(st.tuples(st.sampled_from([0.5, 0.6, 0.7, 0.9, 1.0]), st.booleans()), min_size=1, max_size=40)


def columns(pairs: list[tuple[float, bool]]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    return np.array([pair[0] for pair in pairs], dtype=np.float32), np.array([pair[1] for pair in pairs])


def test_worked_example() -> None:
    found = reliability(SURE, RIGHT, bins=2)
    assert [part.examples for part in found.bins] == [2, 2]
    low, high = found.bins
    assert (low.low, low.high, low.confidence, low.accuracy) == pytest.approx((0.6, 0.7, 0.65, 0))
    assert (high.low, high.high, high.confidence, high.accuracy) == pytest.approx((0.8, 0.9, 0.85, 1))
    # Half of the answers are 65 points off, the others 15.
    assert found.ece == pytest.approx(0.4)
    assert (found.accuracy, found.examples) == (0.5, 4)
    assert found.confidence == pytest.approx(0.75)


def test_bins_are_of_equal_mass() -> None:
    rng = np.random.default_rng(0)
    sure = rng.beta(9, 1, size=3000).astype(np.float32)
    found = reliability(sure, rng.random(3000) < sure)
    assert len(found.bins) == 15
    assert {part.examples for part in found.bins} <= {199, 200, 201}
    assert found.ece < 0.03  # as sure as it is right
    assert reliability(sure, rng.random(3000) < sure**2).ece > 0.06


@given(pairs=answered, bins=st.integers(1, 8), seed=st.integers(0, 99))
def test_bins_hold_everybody_and_no_figure_depends_on_order(
    pairs: list[tuple[float, bool]], bins: int, seed: int
) -> None:
    sure, right = columns(pairs)
    found = reliability(sure, right, bins=bins)
    assert sum(part.examples for part in found.bins) == found.examples == len(pairs)
    assert len(found.bins) <= bins
    ends = [(part.low, part.high) for part in found.bins]
    assert all(low <= high for low, high in ends)
    assert all(one[1] < other[0] for one, other in itertools.pairwise(ends))
    assert sum(part.accuracy * part.examples for part in found.bins) == pytest.approx(right.sum())
    assert 0 <= found.ece <= 1
    order = np.random.default_rng(seed).permutation(len(pairs))
    again = reliability(sure[order], right[order], bins=bins)
    assert again.ece == pytest.approx(found.ece)
    one, other = risk_coverage(sure, ~right), risk_coverage(sure[order], ~right[order])
    assert one.aurc == pytest.approx(other.aurc)
    assert one.auroc == pytest.approx(other.auroc)
    np.testing.assert_allclose(one.risk, other.risk)


def test_risk_worked_example() -> None:
    # Surest first: right, right, wrong, wrong.
    found = risk_coverage(SURE, ~RIGHT)
    assert found.coverage == (0.25, 0.5, 0.75, 1.0)
    assert found.risk == pytest.approx((0, 0, 1 / 3, 1 / 2))
    assert found.aurc == pytest.approx((1 / 3 + 1 / 2) / 4)
    assert found.excess == 0
    assert found.auroc == 1
    worst = risk_coverage(SURE, RIGHT)
    assert worst.risk == pytest.approx((1, 1, 2 / 3, 1 / 2))
    assert worst.excess == pytest.approx((1 + 1 + 1 / 3) / 4)
    assert worst.auroc == 0


def test_answers_of_one_confidence_are_equals() -> None:
    found = risk_coverage(np.full(4, 0.8, dtype=np.float32), RIGHT)
    assert found.risk == pytest.approx((0.5, 0.5, 0.5, 0.5))
    assert found.auroc == 0.5
    # Of one right and one wrong answer at 0.8, each is as likely first.
    tied = risk_coverage(np.array([0.9, 0.8, 0.8], dtype=np.float32), [0, 0, 1])
    assert tied.risk == pytest.approx((0, 0.25, 1 / 3))
    assert auroc(np.array([0.9, 0.8, 0.8], dtype=np.float32), [0, 0, 1]) == 0.75


@given(pairs=answered)
def test_no_order_is_better_than_one_that_knows(pairs: list[tuple[float, bool]]) -> None:
    sure, wrong = columns(pairs)
    found = risk_coverage(sure, wrong)
    assert found.excess >= -1e-12
    assert found.risk[-1] == pytest.approx(wrong.mean())
    assert risk_coverage((~wrong).astype(np.float32), wrong).excess == pytest.approx(0)


def test_nobody_wrong_has_no_auroc() -> None:
    for wrong in (np.zeros(4), np.ones(4)):
        assert auroc(SURE, wrong) is None
        assert risk_coverage(SURE, wrong).auroc is None


def test_curves_are_thinned_and_areas_are_not() -> None:
    rng = np.random.default_rng(0)
    sure = rng.random(5000).astype(np.float32)
    wrong = rng.random(5000) > sure
    few, many = risk_coverage(sure, wrong, points=7), risk_coverage(sure, wrong, points=5000)
    assert (len(few.coverage), len(many.coverage)) == (7, 5000)
    assert few.coverage[-1] == 1
    assert set(zip(few.coverage, few.risk, strict=True)) <= set(zip(many.coverage, many.risk, strict=True))
    assert (few.aurc, few.excess, few.auroc) == (many.aurc, many.excess, many.auroc)
    assert few.aurc == pytest.approx(np.mean(many.risk))


def test_nan_is_the_least_sure() -> None:
    sure = np.array([0.9, np.nan], dtype=np.float32)
    assert auroc(sure, [0, 1]) == 1
    assert reliability(sure, [1, 0], bins=2).bins[0].high == 0


def test_tier_1_first_and_then_the_exits() -> None:
    tier1 = np.array([[0.9, 0.1], [0.2, 0.8]], dtype=np.float32)
    tier2 = np.stack([tier1[:, ::-1], tier1], axis=1)
    found = per_head(tier1, tier2, np.array([0, 0]), bins=1)
    assert [head.accuracy for head in found] == [0.5, 0.5, 0.5]
    assert per_head(tier1, tier2, np.array([0, 1]), bins=1)[1].accuracy == 0
    sets = per_head(tier1, tier2, np.array([[1, 0], [1, 1]]), multi_label=True, bins=1)
    assert [head.accuracy for head in sets] == [0.5, 0, 0.5]
    assert sets[0].confidence == pytest.approx(0.85)


def test_plain_values() -> None:
    whole = reliability(SURE, RIGHT, bins=2).to_json()
    assert json.loads(json.dumps(whole)) == whole
    assert whole["bins"][1]["examples"] == 2
    curve = risk_coverage(SURE, np.zeros(4)).to_json()
    assert json.loads(json.dumps(curve)) == curve
    assert curve["auroc"] is None


def test_what_cannot_be_told() -> None:
    with pytest.raises(OptionError, match=r"one or more answers, .* confidence \(0,\), events \(0,\); give arrays"):
        reliability(SURE[:0], [])
    with pytest.raises(OptionError, match=r"confidence \(4,\), events \(1,\)"):
        risk_coverage(SURE, [1])
    with pytest.raises(OptionError, match="bins must be a whole number of at least 1, was: 0"):
        reliability(SURE, RIGHT, bins=0)
    with pytest.raises(OptionError, match="points must be a whole number of at least 1, was: 0"):
        risk_coverage(SURE, RIGHT, points=0)

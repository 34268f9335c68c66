"""A classifier's calibration as a whole, on recorded texts: what is certified, and refusals."""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cascade import Classifier
from cascade.calibration import observing
from cascade.calibration.certify import whole as module
from cascade.calibration.certify.bounds import examples_needed, p_value, upper_limit
from cascade.calibration.certify.claims import ORIGINAL, Agreement, Claim, MaxDrop, RiskTarget, Unit
from cascade.calibration.certify.events import alike, differ, doubts, lost, unknown_pieces
from cascade.calibration.certify.outcomes import Certified, Refused
from cascade.calibration.certify.paths import PathGrid, text_path
from cascade.calibration.certify.procedure import Split, disagreement_limit
from cascade.calibration.certify.whole import calibrate, confirmed
from cascade.calibration.texts import TextAnswers
from cascade.exceptions import CertificateWarning, DataError, OptionError
from cascade.policies.exits import never
from cascade.policies.routing import defer_all, defer_none
from tests.calibration.conftest import texts
from tests.models.recorded import COSTS, costs_of, recorded
from tests.models.recorded import policies as policies_of

certify = functools.partial(module.certify_sample, grid=PathGrid(prices=40, steps=30, blends=(0.0, 0.3)))

CASES: list[tuple[RiskTarget, dict[str, Any]]] = [
    (MaxDrop(0.03), {}),
    (MaxDrop(0.06, per_class=True), {}),
    (Agreement(0.04), {}),
    (Agreement(0.06, per_class=True), {}),
    (Agreement(0.04), {"labelled": False}),
    (MaxDrop(0.03), {"windows": 3}),
    (MaxDrop(0.05), {"labels": 1, "multi_label": True}),
    (MaxDrop(0.05), {"labels": 4, "multi_label": True}),
]


def certified(answers: TextAnswers, ask: RiskTarget, **options: Any) -> Certified:
    found = certify(answers, Claim(ask), **options)
    assert isinstance(found, Certified)
    return found


def refused(answers: TextAnswers, ask: RiskTarget, **options: Any) -> Refused:
    found = certify(answers, Claim(ask), **options)
    assert isinstance(found, Refused)
    return found


def distinct_texts(count: int) -> list[str]:
    return list(dict.fromkeys(texts(2 * count)))[:count]


@pytest.mark.parametrize(("ask", "options"), CASES, ids=str)
def test_what_is_certified_is_what_was_counted(ask: RiskTarget, options: dict[str, Any]) -> None:
    """Items of several windows count once, sets of labels are right as wholes, agreement needs no labels."""
    answers = recorded(2000, **options)
    found = certified(answers, ask, seed=3)
    assert sorted([*found.chosen_on, *found.tested_on]) == list(range(2000))
    assert len(found.chosen_on) == 400
    # Exactly one that failed may stand behind those that passed.
    level = found.claim.level
    assert [step.p_value <= level for step in found.tested[: found.number + 1]] == [True] * (found.number + 1)
    assert [step.p_value <= level for step in found.tested[found.number + 1 :]] in ([], [False])
    share = answers.with_temperatures(found.temperatures).select(found.tested_on)
    run = share.run(found.policies)
    taken, figures = found.taken, found.figures
    event = lost(ask, run.answers, share.full.answers, share.goal)
    if ask.per_class:
        classes = share.classes(share.goal if isinstance(ask, MaxDrop) else share.full.answers)
        assert found.classes == tuple((int((mine & event).sum()), int(mine.sum())) for mine in classes)
        assert (taken.events, taken.examples) in found.classes
        assert all(p_value(*one, ask.bound) <= level for one in found.classes)
        assert "of every class" in found.method
    else:
        assert (taken.events, taken.examples) == (event.sum(), 1600)
        assert taken.p_value == p_value(taken.events, 1600, ask.bound) <= level
        assert found.classes == ()
        if isinstance(ask, MaxDrop):
            assert taken.events == figures.harms
    assert taken.upper == upper_limit(taken.events, taken.examples) <= ask.bound
    assert np.array_equal(found.run.answers, run.answers)
    assert figures.disagreements == differ(run.answers, share.full.answers).sum()
    if not answers.labelled:
        assert figures.accuracy is figures.drop is figures.harms is figures.gains is None
    else:
        assert figures.harms is not None
        assert figures.gains is not None
        assert figures.drop == pytest.approx((figures.harms - figures.gains) / 1600)
    assert figures.seconds == pytest.approx(run.seconds / 1600)
    assert figures.full_seconds == pytest.approx(share.full.seconds / 1600)
    assert figures.speed_up > 1


def test_the_limit_of_disagreement_holds_for_all_settings_at_once() -> None:
    found = certified(recorded(2000), MaxDrop(0.03))
    seen, n, steps = found.figures.disagreements, found.figures.examples, len(found.steps)
    assert found.disagreement_upper == upper_limit(seen, n, confidence=1 - 0.05 / steps) > upper_limit(seen, n)
    # Of a bound on disagreement that was certified the smaller of both would hold less often than either.
    assert disagreement_limit(Claim(Agreement(0.1)), 5, 1200, 100) == 0.1
    assert disagreement_limit(Claim(Agreement(0.1), than=ORIGINAL), 5, 1200, 100) < 0.1


def test_the_same_seed_gives_the_same() -> None:
    answers = recorded(800)
    first, again, other = (certified(answers, MaxDrop(0.05), seed=seed) for seed in (1, 1, 2))
    assert first.policies == again.policies
    assert first.tested_on.tolist() == again.tested_on.tolist() != other.tested_on.tolist()


def test_too_few_examples_are_refused_with_the_number_needed() -> None:
    found = refused(recorded(300), MaxDrop(0.01))
    assert found.why == "240 texts are left to test with, and even without a single event it takes 299"
    assert found.examples_needed == 374  # of which four fifths are 299
    assert (len(found.tested), len(found.steps)) == (0, 0)


def test_where_examples_are_few_as_many_test_as_a_claim_takes() -> None:
    claim = Claim(MaxDrop(0.01))
    sizes = {n: len(Split.of(n, claim, seed=0).testers) for n in (300, 320, 350, 400)}
    assert sizes == {300: 240, 320: 299, 350: 299, 400: 320}
    assert len(Split.of(90_000, claim, seed=0).choosers) == 5000
    assert len(Split.of(9000, replace(claim, unit=Unit.SENTENCE), seed=0).choosers) == 500


def test_classes_with_too_few_examples_are_named() -> None:
    answers = recorded(600)
    assert answers.truth is not None
    rare = replace(answers, truth=np.where(np.arange(600) < 20, 2, answers.truth % 2))
    found = refused(rare, MaxDrop(0.05, per_class=True), labels=("no", "yes", "rare"))
    assert found.why.startswith("59 texts of every class are needed to test with, fewer are left of 'rare' (1")
    assert found.examples_needed is not None
    assert found.examples_needed > 1500
    # Of a class without any example no number is known.
    absent = refused(replace(answers, truth=answers.truth % 2), MaxDrop(0.05, per_class=True))
    assert "fewer are left of class 2 (0)" in absent.why
    assert absent.examples_needed is None


def test_harm_that_is_too_near_to_the_bound_is_refused() -> None:
    """A tier 2 whose early exits and tier 1 are always wrong, and so sure that every threshold lets them go."""
    answers = recorded(400)
    first, second = answers.tiers
    full = second.full
    wrong = np.full_like(full, 0.0)
    wrong[np.arange(400), (full.argmax(axis=1) + 1) % 3] = 1.0
    second = replace(second, probabilities=np.stack([wrong, wrong, full], axis=1))
    answers = replace(answers, tiers=(replace(first, probabilities=wrong[:, None]), second))
    found = refused(answers, Agreement(0.05))
    assert found.examples_needed is None
    assert "nothing that was tried" in found.why or "no less than the bound" in found.why


def test_the_number_needed_follows_what_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every setting of this path defers by a threshold that harms 2 to 3 in a hundred."""
    answers = recorded(1000)
    whole = text_path(answers, MaxDrop(0.03))
    risky = tuple(step for step in whole if step.risk > 0.02)[:3]
    monkeypatch.setattr(module, "text_path", lambda *_arguments, **_options: risky)
    monkeypatch.setattr(module, "ENOUGH", 1000)  # no temperatures are fitted
    found = refused(answers, MaxDrop(0.03))
    assert len(found.tested) == 1
    seen = found.tested[0]
    assert f"has {seen.events} events among 800 texts" in found.why
    assert found.examples_needed == pytest.approx(examples_needed(0.03, rate=seen.rate) / 0.8, abs=2)


def test_where_tier_1_costs_as_much_as_tier_2_it_is_not_asked() -> None:
    answers = recorded(1000, costs=costs_of(2.0, (0.3, 0.3, 0.3)))
    assert certified(answers, MaxDrop(0.05)).policies.routers == (defer_all,)
    first, second = answers.tiers
    alone = replace(second, probabilities=second.probabilities[:, -1:], layers=(6,))
    found = refused(
        replace(answers, tiers=(first, alone), temperatures=((1.0,), (1.0,)), costs=costs_of(2.0, (0.9,))),
        MaxDrop(0.05),
    )
    assert found.why.startswith("nothing that was tried is both cheaper")
    assert found.examples_needed is None


def test_bad_use() -> None:
    with pytest.raises(OptionError, match="MaxDrop needs labelled examples, these have none; ask for Agreement"):
        certify(recorded(50, labelled=False), Claim(MaxDrop()))
    with pytest.raises(DataError, match=r"at least 20 distinct examples, got 19; a bound of 0\.01 at 95 % takes 299"):
        certify(recorded(19), Claim(MaxDrop()))


def test_labels_that_confidence_does_not_know_are_told() -> None:
    answers = recorded(600, noise=3.0)
    assert answers.truth is not None
    found = certify(replace(answers, truth=(answers.truth + 1) % 3), Claim(MaxDrop(0.3)))
    assert max(max(tier) for tier in found.temperatures) > 19
    assert any("a fitted temperature is at a limit (0.05 to 20)" in warning for warning in found.warnings)
    assert certify(answers, Claim(MaxDrop(0.3))).warnings == ()


def test_labels_of_another_task_are_told() -> None:
    answers = recorded(600)
    chance = replace(answers, truth=np.random.default_rng(0).permutation(answers.goal[:, 0]))
    (told,) = doubts(Claim(), chance)
    assert re.match(
        r"tier 2 at full depth is right on [23]\d\.?\d? %, answers that look at nothing would be on 33", told
    )
    assert doubts(Claim(), answers, ("a", "b", "c")) == ()
    assert alike(np.array([[0], [1]]), np.array([[0], [1]])) == (1.0, 0.5)
    several = recorded(600, labels=4, multi_label=True)
    assert doubts(Claim(), several, ("a", "b", "c", "d")) == ()
    wrong = replace(several, truth=np.random.default_rng(0).permutation(several.goal))
    assert "answers that look at nothing would be on 50" in doubts(Claim(), wrong, ("a", "b", "c", "d"))[0]


def test_texts_in_another_script_are_told(classifier: Classifier) -> None:
    strange = [f"{text} \u0416 \u0416\u0416 \u0416" for text in distinct_texts(60)]
    with pytest.warns(CertificateWarning, match=r"[2-6]\d(\.\d)? % of all tokens are unknown to the tokenizer"):
        calibrate(classifier, strange, None, Claim(Agreement(0.3)))
    assert unknown_pieces(np.array([0, 0, 1]), 0) == ()
    assert unknown_pieces(np.array([3] * 5 + [1] * 95), 3) == ()


def test_one_class_only_is_told() -> None:
    answers = recorded(400)
    one = replace(answers, truth=np.zeros(400, dtype=np.int64))
    assert doubts(Claim(), one, ("a", "b", "c")) == ("every text is a: nothing was tested of b, c",)
    same = answers.select(np.flatnonzero(answers.full.answers[:, 0] == 1))
    said = ("tier 2 at full depth calls every text b: nothing was tested of a, c",)
    assert doubts(Claim(), replace(same, truth=None), ("a", "b", "c")) == said
    found = certify(one, Claim(MaxDrop(0.3)), labels=("a", "b", "c"))
    assert found.warnings[0] == "every text is a: nothing was tested of b, c"


def test_a_counted_question_is_tested_at_its_level() -> None:
    answers = recorded(2000)
    levels = {}
    for question in (None, 1, 2, 9):
        claim = Claim(MaxDrop(0.03), question=question)
        found = certify(answers, claim, seed=3)
        assert isinstance(found, Certified)
        assert all(one.p_value <= claim.level for one in found.tested[: found.number + 1])
        levels[question] = claim.level, found.figures.speed_up
    assert levels[None] >= levels[1] >= levels[2] >= levels[9]
    assert levels[None][1] > levels[9][1]
    few = refused(recorded(300), MaxDrop(0.01))
    counted = certify(recorded(300), Claim(MaxDrop(0.01), question=2))
    assert isinstance(counted, Refused)
    assert (counted.examples_needed or 0) > (few.examples_needed or 0)


def test_full_depth_keeps_its_scores() -> None:
    answers = recorded(600, windows=4, noise=3.0)
    found = certify(answers, Claim(MaxDrop(0.3)))
    assert (found.temperatures[-1][-1], found.temperatures[0] != (1.0,)) == (1.0, True)
    full = [one.tiers[-1].full for one in (answers, answers.with_temperatures(found.temperatures))]
    np.testing.assert_array_equal(full[0], full[1])


def test_no_setting_is_replayed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    answers, seen = recorded(1000), []
    plain = type(answers).run

    def run(self: object, policies: object) -> object:
        seen.append(policies)
        return plain(self, policies)  # type: ignore[arg-type]

    monkeypatch.setattr(type(answers), "run", run)
    monkeypatch.setattr(type(answers), "timed", lambda *_: (1.0, 2.0))
    monkeypatch.setattr(module, "ENOUGH", 1000)  # no temperatures are fitted
    found = certify(answers, Claim(MaxDrop(0.03)))
    path = [policies for policies in seen if policies != policies_of(defer_all, never)]
    assert len(path) == len(set(path)) == len(found.tested)


def test_copies_count_once(classifier: Classifier) -> None:
    """Twelve texts, a hundred times each, certified everything."""
    few = distinct_texts(12) * 100
    with pytest.raises(DataError, match="at least 20 distinct examples, got 12"):
        calibrate(classifier, few, None, Claim(Agreement(0.05)))
    given = distinct_texts(200)
    copied = [*given, *(f" {one} " for one in given), given[3]]
    with pytest.warns(CertificateWarning, match="201 of 401 texts are copies"):
        found, answers = calibrate(classifier, copied, None, Claim(Agreement(0.3)))
    assert len(answers) == 200
    assert sorted([*found.chosen_on, *found.tested_on]) == list(range(200))
    assert "201 of 401 texts are copies of others and were left out: each counts once" in found.warnings


def test_what_was_chosen_is_run(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    given = distinct_texts(1200)
    deepest = classifier.with_exit_policy(never)
    first, full = (deepest.with_router(router).predict(given) for router in (defer_none, defer_all))
    alike = [text for text, a, b in zip(given, first.labels, full.labels, strict=True) if a == b][:300]
    # Costs of so small graphs say nothing.
    real = observing.observe_texts
    monkeypatch.setattr(module, "observe_texts", lambda *a, **o: replace(real(*a, **o), costs=COSTS))
    found, answers = calibrate(classifier, alike, None, Claim(Agreement(0.3)))
    assert isinstance(found, Certified)
    assert not any("of the engine differ" in warning for warning in found.warnings)
    assert isinstance(answers, TextAnswers)
    tester = answers.select(found.tested_on)
    assert confirmed(found, tester, found.run.answers) is found
    other = found.run.answers.copy()
    other[0] = (other[0] + 1) % 3
    told = confirmed(found, tester, other)
    assert isinstance(told, Certified)
    said = f"1 of {len(tester)} answers of the engine differ from those that were replayed"
    assert told.warnings == (*found.warnings, said)
    broken = confirmed(found, tester, (found.run.answers + 1) % 3)
    assert isinstance(broken, Refused)
    assert "the claim does not hold for what ran" in broken.why

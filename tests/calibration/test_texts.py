"""Recorded texts: a replay is what the engine does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cascade import Classifier
from cascade.calibration.leaving import state_at
from cascade.calibration.observing import observe_texts
from cascade.calibration.runs import two_tiers
from cascade.core.confidence import answers as answers_of
from cascade.exceptions import OptionError
from cascade.policies.exits import AtExit, Entropy, ExitPolicy, MaxProbability, Patience, all_of, any_of, never
from cascade.policies.routing import Router, Threshold, defer_all, defer_none
from tests.calibration.conftest import texts
from tests.models.recorded import COLD, COSTS, policies, recorded
from tests.models.toy import toy_bundle


@pytest.fixture(scope="module", params=[False, True], ids=["single", "multi"])
def classifier(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    bundle = toy_bundle(tmp_path_factory.mktemp("toy") / "bundle", multi_label=request.param, max_length=12)
    return Classifier.from_pretrained(bundle.folder, threads=1)


SETTINGS: list[tuple[Router, ExitPolicy, float]] = [
    (Threshold(0.8), MaxProbability(0.7), 0.0),
    (Threshold(0.8), MaxProbability((0.6, 0.8)), 0.5),
    (Threshold(0.9), any_of(MaxProbability(0.8), AtExit(2)), 0.3),
    (Threshold(0.6), Patience(1), 0.3),
    (Threshold(0.99), all_of(Entropy(0.3), Patience(1)), 1.0),
    (defer_none, never, 0.5),
    (defer_all, never, 0.5),
    (defer_all, MaxProbability(0.7), 0.0),
]


@pytest.mark.parametrize("longest", [9, 40], ids=["short", "windows"])
def test_a_replay_is_what_running_gives(classifier: Classifier, longest: int) -> None:
    given = texts(60, shortest=1, longest=longest)
    truth = np.zeros((60, 3) if classifier.multi_label else 60, dtype=np.int64)
    answers = observe_texts(classifier, given, truth)
    assert (len(answers.items) > len(given)) == (longest > 12)
    for router, policy, blend in SETTINGS:
        setting = two_tiers(router, policy, blend=blend, temperatures=answers.temperatures)
        run, really = answers.run(setting), classifier.with_policies(setting)
        predicted = really.predict(given)
        found = answers_of(predicted.probabilities, multi_label=classifier.multi_label)
        assert run.answers.tolist() == found.tolist()
        assert run.layers.tolist() == predicted.routes.exit_layer.tolist()
        assert run.deferred.tolist() == (predicted.routes.tier == 2).tolist()


def test_seconds_are_those_of_the_stages_that_ran() -> None:
    answers = recorded(3)
    tokens = answers.lengths.sum()
    assert answers.run(policies(defer_none, never)).seconds == pytest.approx(tokens * 0.07)
    assert answers.full.seconds == pytest.approx(tokens * COSTS.full)
    assert answers.run(policies(Threshold(1.0), AtExit(4))).seconds == pytest.approx(tokens * (0.07 + 0.6))
    assert answers.timed(policies(defer_all, never)) == (answers.full.seconds / 3,) * 2


def test_select_keeps_windows_together() -> None:
    answers = recorded(40, windows=4)
    chosen = np.array([7, 3, 39])
    few = answers.select(chosen)
    assert few.goal.tolist() == answers.goal[chosen].tolist()
    assert few.full.answers.tolist() == answers.full.answers[chosen].tolist()
    assert len(few) == 3
    for new, old in enumerate(chosen):
        assert np.array_equal(few.tier2[few.items == new], answers.tier2[answers.items == old])
        assert np.array_equal(few.tier1[new], answers.tier1[old])


@pytest.mark.parametrize("multi_label", [False, True])
def test_temperatures_change_no_answer_and_can_be_taken_back(multi_label: bool) -> None:
    answers = recorded(200, multi_label=multi_label)
    warm = answers.with_temperatures(((2.0,), (0.5, 1.5, 3.0)))
    assert warm.full.answers.tolist() == answers.full.answers.tolist()
    assert warm.tier1.max() < answers.tier1.max()
    back = warm.with_temperatures(COLD)
    assert back.tier1 == pytest.approx(answers.tier1, abs=1e-5)
    assert back.tier2 == pytest.approx(answers.tier2, abs=1e-5)
    assert answers.with_temperatures(COLD) is answers


def test_without_labels_full_depth_is_the_goal() -> None:
    answers = recorded(30, labelled=False)
    assert not answers.labelled
    assert np.array_equal(answers.goal, answers.full.answers)


def test_policies_cannot_write_in_what_they_see() -> None:
    answers = recorded(5)
    state = state_at(answers.tier2, answers.layers, 1)
    seen = [*list(vars(answers.routing_state).values())[:3], state.probabilities, state.history]
    assert [array.flags.writeable for array in seen] == [False] * 5


def test_classes() -> None:
    answers = recorded(30)
    classes = answers.classes(answers.goal)
    assert classes.shape == (3, 30)
    assert (classes.argmax(axis=0) == answers.truth).all()
    several = recorded(30, multi_label=True)
    assert np.array_equal(several.classes(several.goal).T, several.goal)


def test_bad_use(classifier: Classifier) -> None:
    good = recorded(5)
    with pytest.raises(OptionError, match=r"lengths \(3,\) instead of \(5,\), truth \(4,\) instead of \(5,\)"):
        replace(good, lengths=good.lengths[:3], truth=np.zeros(4, dtype=np.int64))
    alone = replace(classifier, tiers=classifier.tiers[1:])
    with pytest.raises(OptionError, match="needs two tiers, of which the first has no exits, got MultiExit; set the"):
        observe_texts(alone, ["a"], None)

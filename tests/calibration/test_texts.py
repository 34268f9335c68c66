"""Recorded texts: a replay is what the engine does."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from cascade import Classifier
from cascade.calibration.observing import observe_texts
from cascade.calibration.texts import TextAnswers, state_at
from cascade.core.confidence import answers as answers_of
from cascade.engine.tier import CallableTier
from cascade.policies.exits import AtExit, Entropy, ExitPolicy, MaxProbability, Patience, any_of, never
from cascade.policies.reading import InOrder
from cascade.policies.routing import Router, Threshold, defer_all, defer_none
from cascade.policies.settings import Policies
from cascade.text.tokenizer import Tokenizer
from tests.calibration.conftest import texts
from tests.models.recorded import COLD, COSTS, policies, recorded
from tests.models.toy import toy_bundle, toy_tokenizer


@pytest.fixture(scope="module", params=[False, True], ids=["single", "multi"])
def classifier(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    bundle = toy_bundle(tmp_path_factory.mktemp("toy") / "bundle", multi_label=request.param, max_length=12)
    return Classifier.from_pretrained(bundle.folder, threads=1)


SETTINGS: list[tuple[Router, ExitPolicy, float]] = [
    (Threshold(0.8), MaxProbability(0.7), 0.0),
    (Threshold(0.8), MaxProbability((0.6, 0.8)), 0.5),
    (Threshold(0.9), any_of(MaxProbability(0.8), AtExit(2)), 0.3),
    (Threshold(0.6), Patience(1), 0.3),
    (Threshold(0.99), any_of(Entropy(0.3), Patience(3)), 1.0),
    (defer_none, never, 0.5),
    (defer_all, never, 0.5),
    (defer_all, MaxProbability(0.7), 0.0),
]


def check_replay(classifier: Classifier, answers: TextAnswers, given: list[str], setting: Policies) -> None:
    run, predicted = answers.run(setting), classifier.with_policies(setting).predict(given)
    found = answers_of(predicted.probabilities, multi_label=classifier.multi_label)
    assert run.answers.tolist() == found.tolist()
    assert run.layers.tolist() == predicted.routes.exit_layer.tolist()
    assert run.tier.tolist() == predicted.routes.tier.tolist()


@pytest.mark.parametrize("longest", [9, 40], ids=["short", "windows"])
def test_a_replay_is_what_running_gives(classifier: Classifier, longest: int) -> None:
    given = texts(60, shortest=1, longest=longest)
    truth = np.zeros((60, 3) if classifier.multi_label else 60, dtype=np.int64)
    answers = observe_texts(classifier, given, truth)
    assert (len(answers.tiers[1].items) > len(given)) == (longest > 12)
    for router, policy, blend in SETTINGS:
        setting = Policies((router,), (never, policy), answers.temperatures, blend=(blend,))
        check_replay(classifier, answers, given, setting)
        check_replay(classifier, answers, given, replace(setting, reading=InOrder(0.4)))


@pytest.mark.parametrize("longest", [9, 40], ids=["short", "windows"])
def test_so_it_is_for_any_number_of_tiers(classifier: Classifier, longest: int) -> None:
    """Four: one graph, two of stages of which one has a tokenizer and rows of its own, a function; and one alone."""
    given, own = texts(60, shortest=1, longest=longest), classifier.policies
    first, second = classifier.tier1, classifier.tier2

    def ask(items: list[str]) -> Any:
        one = np.array([len(item) % 7 + 1 for item in items])
        said = np.stack([one / 8, 0.4 - one / 40, 0.6 - one / 10], axis=1).clip(0.01, 0.99)
        return said if classifier.multi_label else said / said.sum(axis=1, keepdims=True)

    other = replace(second, encoder=Tokenizer(toy_tokenizer(), max_length=9), max_length=9)
    last = CallableTier(ask, price=1.0, labels=3, multi_label=classifier.multi_label)
    exits = own.exits[1]
    many = replace(
        classifier,
        tiers=(first, other, second),
        policies=Policies(
            routers=(Threshold(0.9),) * 2,
            exits=(never, exits, exits),
            temperatures=(own.temperatures[0], (2.0, 1.5, 1.25), own.temperatures[1]),
        ),
    ).with_tier(last, router=Threshold(0.9))
    many = many.with_policies(many.policies)
    answers = observe_texts(many, given, None)
    assert [len(tier.layers) for tier in answers.tiers] == [0, 3, 3, 0]
    assert len(answers.tiers[1].items) >= len(answers.tiers[2].items) >= len(given)
    plain, seen = replace(many.policies, exits=(never, MaxProbability(0.75), AtExit(2), never)), set[int]()
    before: tuple[Router, ...] = (Threshold(0.6), Threshold(0.95), defer_all)
    after: tuple[Router, ...] = (Threshold(0.7), defer_all)
    for one, other, blend in product(before, after, (0.0, 0.5)):
        setting = replace(plain, routers=(one, other, Threshold(0.8)), blend=(blend,) * 3)
        check_replay(many, answers, given, setting)
        seen |= set(answers.run(setting).tier.tolist())
    assert seen == {1, 2, 3, 4}
    check_replay(many, answers, given, answers.at_full_depth)
    alone = replace(classifier, tiers=(second,), policies=Policies((), (exits,), own.temperatures[1:]))
    answers = observe_texts(alone, given, None)
    for policy in (never, MaxProbability(0.7), AtExit(2)):
        check_replay(alone, answers, given, replace(alone.policies, exits=(policy,)))


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
        for mine, its in zip(few.tiers, answers.tiers, strict=True):
            assert np.array_equal(mine.probabilities[mine.items == new], its.probabilities[its.items == old])


@pytest.mark.parametrize("multi_label", [False, True])
def test_temperatures_change_no_answer_and_can_be_taken_back(multi_label: bool) -> None:
    answers = recorded(200, multi_label=multi_label)
    warm = answers.with_temperatures(((2.0,), (0.5, 1.5, 3.0)))
    assert warm.full.answers.tolist() == answers.full.answers.tolist()
    assert warm.tiers[0].full.max() < answers.tiers[0].full.max()
    back = warm.with_temperatures(COLD)
    for mine, its in zip(back.tiers, answers.tiers, strict=True):
        assert mine.probabilities == pytest.approx(its.probabilities, abs=1e-5)
    assert answers.with_temperatures(COLD) is answers


def test_without_labels_full_depth_is_the_goal() -> None:
    answers = recorded(30, labelled=False)
    assert not answers.labelled
    assert np.array_equal(answers.goal, answers.full.answers)


def test_policies_cannot_write_in_what_they_see() -> None:
    answers = recorded(5)
    state = state_at(answers.tiers[1].probabilities, answers.layers, 1)
    routing = answers.routing_state(answers.tiers[0].full)
    seen = [*list(vars(routing).values())[:3], state.probabilities, state.history]
    assert [array.flags.writeable for array in seen] == [False] * 5


def test_classes() -> None:
    answers = recorded(30)
    classes = answers.classes(answers.goal)
    assert classes.shape == (3, 30)
    assert (classes.argmax(axis=0) == answers.truth).all()
    several = recorded(30, multi_label=True)
    assert np.array_equal(several.classes(several.goal).T, several.goal)

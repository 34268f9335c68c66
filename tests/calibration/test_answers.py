from __future__ import annotations

import numpy as np
import pytest

from cascade import Classifier
from cascade.calibration.answers import Answers, observe
from cascade.calibration.replay import Setting, replay
from cascade.calibration.temperature import Temperatures
from cascade.exceptions import OptionError
from cascade.policies.exits import AtExit, Entropy, ExitPolicy, MaxProbability, Patience, all_of, any_of, never
from cascade.policies.routing import Router, Threshold, defer_all, defer_none
from tests.models.recorded import COSTS, recorded
from tests.models.toy import SENTENCES, toy_bundle

WORDS = " ".join(SENTENCES).split()


@pytest.fixture(scope="module", params=[False, True], ids=["single", "multi"])
def classifier(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    folder = tmp_path_factory.mktemp("toy") / "bundle"
    toy_bundle(folder, multi_label=request.param, max_length=12)
    return Classifier.from_pretrained(folder, threads=1)


def texts(count: int, longest: int, seed: int = 0) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, random.integers(1, longest))) for _ in range(count)]


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


@pytest.mark.parametrize(("router", "policy", "blend"), SETTINGS)
@pytest.mark.parametrize("longest", [9, 40], ids=["short", "windows"])
def test_a_replay_is_what_running_gives(
    classifier: Classifier, router: Router, policy: ExitPolicy, blend: float, longest: int
) -> None:
    given = texts(60, longest)
    encoded = classifier.tokenizer.encode(given)
    assert (len(encoded.units.rows) > len(given)) == (longest > 12)
    truth = np.zeros((60, 3) if classifier.multi_label else 60, dtype=np.int64)
    answers, costs = observe(classifier.tier1, classifier.tier2, encoded, truth)
    ran = replay(answers, Setting(router, policy, blend=blend), costs)
    really = classifier.with_router(router).with_exit_policy(policy).with_blend(blend)
    outcome = really.cascade.score(encoded.units.rows)
    assert np.array_equal(ran.deferred, outcome.routes.tier == 2)
    layers = np.where(ran.exits < 0, 0, np.asarray(answers.layers)[ran.exits])
    assert layers.tolist() == outcome.routes.exit_layer.tolist()
    predicted = really.predict(given)
    names = [
        tuple(label for label, yes in zip(classifier.labels, row, strict=True) if yes)
        if classifier.multi_label
        else classifier.labels[row[0]]
        for row in ran.answers.tolist()
    ]
    assert names == list(predicted.labels)


def test_seconds_are_those_of_the_stages_that_ran() -> None:
    answers = recorded(3)
    lengths = answers.lengths
    none = replay(answers, Setting(defer_none, never), COSTS)
    assert none.seconds == pytest.approx(lengths * 0.07)
    everything = replay(answers, Setting(defer_all, never), COSTS)
    assert everything.seconds == pytest.approx(lengths * COSTS.full)
    cut = replay(answers, Setting(Threshold(1.0), AtExit(4)), COSTS)
    assert cut.seconds == pytest.approx(lengths * (0.07 + 0.6))


def test_a_document_pays_for_all_its_windows() -> None:
    answers = recorded(50, windows=3)
    ran = replay(answers, Setting(defer_all, never), COSTS)
    assert ran.seconds.sum() == pytest.approx(answers.lengths.sum() * COSTS.full)
    assert len(ran.seconds) == len(ran.answers) == 50


def test_select_keeps_windows_together() -> None:
    answers = recorded(40, windows=4)
    chosen = np.array([7, 3, 39])
    few = answers.select(chosen)
    assert few.truth is not None
    assert answers.truth is not None
    assert few.truth.tolist() == answers.truth[chosen].tolist()
    assert few.full().tolist() == answers.full()[chosen].tolist()
    assert len(few) == 3
    for new, old in enumerate(chosen):
        assert np.array_equal(few.tier1[few.documents == new], answers.tier1[answers.documents == old])


@pytest.mark.parametrize("multi_label", [False, True])
def test_temperatures_change_no_answer_and_can_be_taken_back(multi_label: bool) -> None:
    answers = recorded(200, multi_label=multi_label)
    warm = answers.with_temperatures(Temperatures(2.0, (0.5, 1.5, 3.0)))
    assert warm.full().tolist() == answers.full().tolist()
    assert warm.tier1.max() < answers.tier1.max()
    back = warm.with_temperatures(answers.temperatures)
    assert back.tier1 == pytest.approx(answers.tier1, abs=1e-5)
    assert back.tier2 == pytest.approx(answers.tier2, abs=1e-5)
    assert answers.with_temperatures(answers.temperatures) is answers


def test_without_labels_full_depth_is_the_goal() -> None:
    answers = recorded(30, labelled=False)
    assert np.array_equal(answers.goal(), answers.full())


def test_shapes_are_checked_all_at_once() -> None:
    good = recorded(5)
    with pytest.raises(OptionError, match=r"lengths \(3,\) instead of \(5,\), truth \(4,\) instead of \(5,\)"):
        Answers(
            tier1=good.tier1,
            tier2=good.tier2,
            documents=good.documents,
            lengths=good.lengths[:3],
            layers=good.layers,
            truth=np.zeros(4, dtype=np.int64),
            temperatures=good.temperatures,
        )


def test_a_setting_has_a_written_form() -> None:
    setting = Setting(Threshold(0.8), MaxProbability((0.7, 0.8)), blend=0.3)
    assert setting.to_json() == {
        "router": {"policy": "Threshold", "threshold": 0.8},
        "exit_policy": {"policy": "MaxProbability", "threshold": [0.7, 0.8]},
        "blend": 0.3,
    }

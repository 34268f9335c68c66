from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade import Classifier, Tagger, exits
from cascade.exceptions import OptionError
from cascade.exit_accuracy import Accuracy, StepMap, least_confidence
from cascade.exits import ExitState, MaxProbability
from cascade.learned_routing import Learned
from cascade.routing import defer_all
from tests.toy import toy_bundle
from tests.toy_tags import tag_bundle

MODEST: StepMap = ((0.0, 0.7), (0.6, 0.9), (0.8, 0.97))
VAIN: StepMap = ((0.0, 0.5), (0.9, 0.9))


def state(*sure: float, exit_: int = 0, multi_label: bool = False) -> ExitState:
    first = np.array(sure, dtype=np.float32)
    rows = np.stack([first, 1 - first], axis=1)
    return ExitState(exit_, exit_ + 1, False, rows, np.repeat(rows[:, None], exit_ + 1, axis=1), multi_label)


shares = st.floats(0, 1)


@st.composite
def maps(draw: st.DrawFn) -> StepMap:
    begins = sorted(draw(st.lists(shares, min_size=1, max_size=6, unique=True)))
    reached = sorted(draw(st.lists(shares, min_size=len(begins), max_size=len(begins))))
    return tuple(zip(begins, reached, strict=True))


@pytest.mark.parametrize(
    ("threshold", "exit_", "left"),
    [
        (0.9, 0, [False, True, True, True]),
        (0.9, 1, [False, False, True, True]),
        (0.95, 0, [False, False, True, True]),
        (0.95, 1, [False, False, False, False]),  # no answer there is as good as that
        (0.7, 0, [True, True, True, True]),
    ],
)
def test_worked_example(threshold: float, exit_: int, left: list[bool]) -> None:
    policy = Accuracy(threshold, (MODEST, VAIN))
    asked = state(0.55, 0.7, 0.9, 1.0, exit_=exit_)
    np.testing.assert_array_equal(exits.decide(policy, asked), left)


def test_several_labels_count_as_their_least_sure_one() -> None:
    policy = Accuracy(0.9, (MODEST,))
    np.testing.assert_array_equal(policy(state(0.7, 0.3, 0.55, multi_label=True)), [True, True, False])


def test_nan_never_leaves() -> None:
    np.testing.assert_array_equal(Accuracy(0.0, (VAIN,))(state(math.nan, 0.6)), [False, True])


@given(steps=st.lists(maps(), min_size=2, max_size=2), threshold=shares, sure=st.lists(shares, min_size=1, max_size=9))
def test_it_is_a_threshold_on_confidence_for_each_exit(
    steps: list[StepMap], threshold: float, sure: list[float]
) -> None:
    policy = Accuracy(threshold, tuple(steps))
    for exit_, confidence in enumerate(policy.confidences):
        asked = state(*sure, exit_=exit_)
        plain = MaxProbability(confidence)(asked) if confidence <= 1 else np.zeros(len(sure), dtype=np.bool_)
        np.testing.assert_array_equal(policy(asked), plain)
        np.testing.assert_array_equal(policy(asked), policy.score(exit_, asked.probabilities) >= threshold)


@given(steps=maps(), low=shares, high=shares)
def test_a_higher_accuracy_takes_at_least_as_much_confidence(steps: StepMap, low: float, high: float) -> None:
    low, high = sorted((low, high))
    assert least_confidence(steps, low) <= least_confidence(steps, high)


def test_scores_are_accuracies() -> None:
    policy = Accuracy(0.9, (MODEST, VAIN[1:]))
    asked = state(0.55, 0.8, 0.95, math.nan).probabilities
    np.testing.assert_array_equal(policy.score(0, asked), [0.7, 0.97, 0.97, -1])
    np.testing.assert_array_equal(policy.score(1, asked), [-1, -1, 0.9, -1])
    np.testing.assert_array_equal(policy.score(0, asked[:1, ::-1], multi_label=True), [0.7])
    assert policy.at(0.5) == Accuracy(0.5, (MODEST, VAIN[1:]))


def test_levels_are_where_it_changes() -> None:
    policy = Accuracy(0.8, (MODEST, VAIN))
    assert policy.levels == (0.5, 0.7, 0.9, 0.97)
    at = [dataclasses.replace(policy, threshold=level).confidences for level in policy.levels]
    assert at == [(0.0, 0.0), (0.0, 0.9), (0.6, 0.9), (0.8, math.inf)]
    assert dataclasses.replace(policy, threshold=0.85).confidences == at[2]
    assert dataclasses.replace(policy, threshold=0.98).confidences == (math.inf, math.inf)


def test_round_trip() -> None:
    policy = Accuracy(0.95, (MODEST, VAIN))
    written = exits.to_json(policy)
    assert written == {
        "policy": "Accuracy",
        "threshold": 0.95,
        "maps": [[[0.0, 0.7], [0.6, 0.9], [0.8, 0.97]], [[0.0, 0.5], [0.9, 0.9]]],
    }
    again = exits.from_json(json.loads(json.dumps(written)))
    assert again == policy
    assert hash(again) == hash(policy)
    assert repr(policy) == "Accuracy(0.95, maps of 2 exits)"
    assert exits.from_json(exits.to_json(exits.any_of(policy, exits.AtExit(2)))) == exits.any_of(
        policy, exits.AtExit(2)
    )


def test_a_bundle_may_name_it_without_an_import_of_this_file() -> None:
    code = (
        "import cascade; from cascade import exits, routing;"
        "print(exits.from_json({'policy': 'Accuracy', 'threshold': 0.9, 'maps': [[[0, 0.5]]]}),"
        "routing.from_json({'policy': 'Learned', 'threshold': 0.9, 'weights': [1, 0, 0, 0], 'bias': 0}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "Accuracy(0.9, maps of 1 exits) Learned(0.9, 4 weights)\n"


def test_a_saved_bundle_keeps_it_and_a_learned_router(tmp_path: Path) -> None:
    texts = ["good film", "not very good", "a dull plot", "laugh", "the film is bad bad bad"]
    folder = toy_bundle(tmp_path / "toy").folder
    whole = Classifier.from_pretrained(folder, threads=1)
    steps = ((0.0, 0.5), (0.6, 0.95))
    chosen = whole.with_exit_policy(Accuracy(0.9, (steps,) * 3)).with_router(Learned(0.5, (-1.0, 0.0, 0.0, 0.0), 1.0))
    chosen.save_pretrained(tmp_path / "new")
    again = Classifier.from_pretrained(tmp_path / "new", threads=1)
    assert (again.router, again.exit_policy) == (chosen.router, chosen.exit_policy)
    found = again.predict(texts)
    assert set(found.routes.tier.tolist()) == {1, 2}
    np.testing.assert_array_equal(found.probabilities, chosen.predict(texts).probabilities)


def test_words_leave_by_it_too(tmp_path: Path) -> None:
    sentences = [["Paul", "left"], ["nobody", "in", "Rome", "did", "see", "it"], ["well"]]
    tagger = Tagger.from_pretrained(tag_bundle(tmp_path / "tags").folder, threads=1).with_router(defer_all)
    mapped = tagger.with_exit_policy(Accuracy(0.9, (((0.0, 0.5), (0.8, 0.9)), ((0.0, 0.5), (0.6, 0.95)))))
    plain = tagger.with_exit_policy(MaxProbability((0.8, 0.6)))
    left, wanted = mapped.predict(sentences).routes.words.exit, plain.predict(sentences).routes.words.exit
    np.testing.assert_array_equal(left, wanted)
    assert len(set(wanted.tolist())) > 1


def test_one_map_for_each_exit() -> None:
    policy = Accuracy(0.9, (MODEST, VAIN))
    exits.check(policy, (2, 4))
    exits.check(policy, (2, 4, 6))
    for layers in ((2,), (2, 4, 6, 8)):
        with pytest.raises(OptionError, match=rf"a map for each of the {len(layers)} exits .*, were: 2; make them"):
            exits.check(exits.any_of(policy, exits.never), layers)


@pytest.mark.parametrize(
    "wrong",
    [
        (),
        [],
        0.5,
        ((0.5,),),
        ((0.5, 0.6, 0.7),),
        (0.5, 0.6),
        (("0.5", 0.6),),
        ((True, 0.6),),
        ((0.5, 1.1),),
        ((math.nan, 0.5),),
        ((0.5, 0.6), (0.5, 0.7)),
        ((0.5, 0.6), (0.7, 0.5)),
        ((0.5, 0.6), None),
    ],
)
def test_impossible_maps(wrong: Any) -> None:
    with pytest.raises(OptionError, match=r"a map must be pairs .* both in \[0, 1\] and rising, was: "):
        Accuracy(0.9, (MODEST, wrong))


def test_other_impossible_values() -> None:
    with pytest.raises(OptionError, match=r"threshold must be in \[0, 1\], was: 95; 0.95 leaves"):
        Accuracy(95, (MODEST,))
    with pytest.raises(OptionError, match=r"maps must be a tuple with one map per exit, was: 0\.5"):
        Accuracy(0.9, 0.5)  # type: ignore[arg-type]  # as a manifest may have it
    with pytest.raises(OptionError, match=r"Accuracy must have the fields \['threshold', 'maps'\]"):
        exits.from_json({"policy": "Accuracy", "threshold": 0.9, "maps": [], "confidences": []})

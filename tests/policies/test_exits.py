from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cascade.core.rows import BoolArray
from cascade.exceptions import OptionError
from cascade.policies import exits
from cascade.policies.exits import (
    AtExit,
    Entropy,
    ExitState,
    Margin,
    MaxProbability,
    Patience,
    Settled,
    any_of,
    never,
)
from cascade.policies.registry import ModelInfo
from cascade.policies.unit_exits import SentenceExit, TokenExit

MODEL = ModelInfo(layers=(2, 4, 6), words=True)


def state(*history: list[list[float]], multi_label: bool = False) -> ExitState:
    """From probabilities of each exit so far, `[rows, labels]` each."""
    columns = np.array(history, dtype=np.float32).transpose(1, 0, 2)
    index = len(history) - 1
    return ExitState(
        exit_index=index,
        exit_layer=2 * index + 2,
        last=False,
        probabilities=columns[:, -1],
        history=columns,
        multi_label=multi_label,
    )


def one_hot(*answers: int) -> list[list[list[float]]]:
    """One row that gave these answers, one per exit."""
    return [[[float(label == answer) for label in range(3)]] for answer in answers]


def test_max_probability_right_tool() -> None:
    # Right Tool, ACL 2020: leave if the largest calibrated probability is at least t.
    now = state([[0.85, 0.15], [0.95, 0.05], [0.1, 0.9]])
    np.testing.assert_array_equal(MaxProbability(0.9)(now), [False, True, True])


def test_entropy_deebert() -> None:
    # DeeBERT, ACL 2020: leave if the entropy is below S; here S = 0.3 of two labels.
    p = [[0.95, 0.05], [0.92, 0.08], [0.9, 0.1], [0.5, 0.5]]
    entropy = [-sum(x * np.log(x) for x in row) for row in p]
    np.testing.assert_array_equal(Entropy(1 - 0.3 / np.log(2))(state(p)), np.array(entropy) < 0.3)


def test_margin() -> None:
    np.testing.assert_array_equal(Margin(0.5)(state([[0.7, 0.2, 0.1], [0.7, 0.3, 0.0]])), [True, False])


@given(st.lists(st.integers(0, 2), min_size=1, max_size=8), st.integers(1, 4))
@example([0, 1, 1], 1)
@example([0, 1, 0], 2)
@example([2, 1, 1, 1], 2)
def test_patience_equals_the_papers_counter(answers: list[int], patience: int) -> None:
    # PABEE, NeurIPS 2020, figure 2: the counter rises with each answer equal to the one before, else falls to 0.
    counter = 0
    for before, after in itertools.pairwise(answers):
        counter = counter + 1 if before == after else 0
    assert Patience(patience)(state(*one_hot(*answers))).tolist() == [counter >= patience]


@given(st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=8), st.integers(1, 3))
def test_settled_equals_the_papers_counter(numbers: list[float], patience: int) -> None:
    # PABEE, section 3.2: of a regression the counter rises where |y_i - y_(i-1)| < tau, else it falls to 0.
    counter = 0
    for before, after in itertools.pairwise(np.array(numbers, dtype=np.float32)):
        counter = counter + 1 if abs(after - before) < 0.5 else 0
    assert Settled(0.5, patience)(state(*([[number]] for number in numbers))).tolist() == [counter >= patience]


def test_numbers_and_labels_have_policies_of_their_own() -> None:
    number = ModelInfo(("y",), (2, 4))
    for policy in (any_of(Settled(0.1), AtExit(2)), never):
        exits.check(policy, number)
    for labels in (MaxProbability(0.9), Patience(1), any_of(Entropy(0.5))):
        with pytest.raises(OptionError, match="must be asked about labels, got a regression; use Settled"):
            exits.check(labels, number)
    for model in (ModelInfo(("a", "b"), (2, 4)), ModelInfo(("a",), (2, 4), multi_label=True), MODEL):
        with pytest.raises(OptionError, match="number of a regression, got labels; use Patience"):
            exits.check(Settled(0.1), model)
    for tau in (0, -1, float("inf"), "a"):
        with pytest.raises(OptionError, match="tau must be above 0 and finite, got"):
            Settled(tau)  # type: ignore[arg-type]


def test_patience_compares_sets_of_labels() -> None:
    same_best = [[0.9, 0.6], [0.9, 0.4]], [[0.8, 0.4], [0.8, 0.3]]
    np.testing.assert_array_equal(Patience(1)(state(*same_best)), [True, True])
    np.testing.assert_array_equal(Patience(1)(state(*same_best, multi_label=True)), [False, True])


def test_thresholds_per_exit() -> None:
    policy = MaxProbability((0.5, 0.9))
    np.testing.assert_array_equal(policy(state([[0.6, 0.4]])), [True])
    np.testing.assert_array_equal(policy(state([[0.6, 0.4]], [[0.6, 0.4]])), [False])


def test_multi_label_needs_all_labels_sure() -> None:
    p = [[0.99, 0.5], [0.99, 0.01]]
    np.testing.assert_array_equal(MaxProbability(0.9)(state(p, multi_label=True)), [False, True])


def test_at_exit_and_never() -> None:
    first, second = state([[1, 0]]), state([[1, 0]], [[1, 0]])
    np.testing.assert_array_equal(AtExit(4)(first), [False])
    np.testing.assert_array_equal(AtExit(4)(second), [True])
    np.testing.assert_array_equal(never(second), [False])


def test_combinations() -> None:
    now = state([[0.95, 0.05], [0.6, 0.4]], [[0.4, 0.6], [0.6, 0.4]])
    sure, patient = MaxProbability(0.6), Patience(1)
    np.testing.assert_array_equal(any_of(sure, patient)(now), [True, True])


def test_any_callable_is_a_policy() -> None:
    def first_label(now: ExitState) -> BoolArray:
        return now.probabilities[:, 0] >= 0.5

    np.testing.assert_array_equal(exits.decide(any_of(first_label), state([[1, 0], [0, 1]])), [True, False])


THRESHOLDS = (-0.1, 1.2, True, "0.9", None, (0.5, 1.2), float("nan"))
THRESHOLD = r"threshold must be in \[0, 1\], got .*; give one number, or a tuple"
COUNT = "must be a whole number of at least 1, got"


@pytest.mark.parametrize(
    ("make", "values", "message"),
    [
        *((make, THRESHOLDS, THRESHOLD) for make in (MaxProbability, Margin, Entropy, TokenExit, SentenceExit)),
        (Patience, (0, -1, 1.5, True), f"patience {COUNT} .*; for full depth use"),
        (AtExit, (0,), f"layer {COUNT} 0; give the number"),
        (lambda window: TokenExit(0.5, window), (0, -1, 1.5, True, "3"), f"window {COUNT} .*; 1 looks at each word"),
        (lambda window: TokenExit(0.5, window), (4,), "window must be odd, got 4; 5 looks both ways alike"),
        (lambda some: any_of(*some), ((),), r"any_of must have one or more exit policies, got \(\); write any_of"),
        (any_of, (0.9,), r"any_of must have one or more exit policies, got \(0.9,\); write any_of"),
    ],
)
def test_impossible_options(make: Any, values: tuple[Any, ...], message: str) -> None:
    for bad in values:
        with pytest.raises(OptionError, match=message):
            make(bad)


@pytest.mark.parametrize(
    "good",
    [MaxProbability(0.9), MaxProbability((0.9, 0.9)), SentenceExit((0.9, 0.9, 0.9)), TokenExit((0.1, 0.2), 3),
     AtExit(4), never, lambda now: now.probabilities[:, 0] > 0.5],
)  # fmt: skip
def test_what_fits_a_model(good: exits.ExitPolicy) -> None:
    exits.check(good, MODEL)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Entropy((0.9,)), r"one number or one per exit \(3, after layers 2, 4, 6; .*got 1 numbers; give 3"),
        (any_of(never, TokenExit((0.9,))), r"one number or one per exit \(3, after layers 2, 4, 6; .*got 1 numbers"),
        (any_of(AtExit(3)), "AtExit must name a layer with an exit, got 3; choose from 2, 4, 6"),
    ],
)
def test_what_does_not_fit_a_model(policy: exits.ExitPolicy, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        exits.check(policy, MODEL)

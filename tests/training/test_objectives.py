"""Losses of the exits: worked numbers, gradients, and what needs labels."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cascade.exceptions import OptionError
from cascade.training.recipes.objectives import (
    OBJECTIVES,
    Objective,
    divergence,
    supervised,
)


def logits_of(*probabilities: float) -> Tensor:
    """One row with an exit per probability of label 1."""
    return torch.tensor([[[math.log(1 - p), math.log(p)] for p in probabilities]])


ONE = torch.tensor([1])


def test_supervised_is_the_cross_entropy_of_each_exit_or_its_mean_over_labels() -> None:
    found = supervised(logits_of(0.5, 0.8), ONE, multi_label=False)
    assert found.tolist() == pytest.approx([-math.log(0.5), -math.log(0.8)], abs=1e-6)
    labels = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
    assert float(supervised(torch.zeros(1, 1, 4), labels, multi_label=True)) == pytest.approx(math.log(2), abs=1e-6)


def test_numbers_lose_the_square_of_their_error() -> None:
    logits = torch.tensor([[[1.0], [2.0]], [[1.0], [4.0]]])
    assert supervised(logits, torch.tensor([2.0, 4.0]), False).tolist() == [5, 0]
    assert divergence(logits, torch.tensor([[1.0], [3.0]]), False, temperature=3).tolist() == [2, 1]


def test_joint_weights_rise_with_the_layer() -> None:
    """PABEE: sum of i times L_i over the sum of i; here (1 * ln 2 + 2 * -ln 0.8) / 3."""
    wanted = (math.log(2) - 2 * math.log(0.8)) / 3
    assert float(Objective()(logits_of(0.5, 0.8), ONE, False)) == pytest.approx(wanted, abs=1e-6)
    given = Objective(weights=(0, 1))
    assert float(given(logits_of(0.5, 0.8), ONE, False)) == pytest.approx(-math.log(0.8), abs=1e-6)
    with pytest.raises(OptionError, match="must be one per exit, 2, got 3"):
        Objective(weights=(1, 2, 3))(logits_of(0.5, 0.8), ONE, False)


def test_divergence_is_zero_from_itself_and_grows_with_temperature_squared() -> None:
    logits = logits_of(0.3, 0.9)
    assert divergence(logits, logits[:, 0], False)[0].item() == pytest.approx(0, abs=1e-6)
    teacher = torch.tensor([[0.0, 0.2]])
    near = divergence(torch.zeros(1, 1, 2), teacher, False, temperature=1.0)
    far = divergence(torch.zeros(1, 1, 2), teacher, False, temperature=4.0)
    # For small logits KL is quadratic in 1 / temperature, so the factor keeps it.
    assert far.item() == pytest.approx(near.item(), rel=0.02)
    several = torch.tensor([[[1.0, -2.0, 0.5]]])
    assert divergence(several, several[:, 0], True).item() == pytest.approx(0, abs=1e-6)


def test_last_exit_and_earlier_exits_share_nothing() -> None:
    logits, (last, earlier) = logits_of(0.5, 0.6, 0.8), OBJECTIVES["two-stage"]
    assert float(last(logits, ONE, False)) == pytest.approx(-math.log(0.8), abs=1e-6)
    assert float(earlier(logits, ONE, False)) == pytest.approx((-math.log(0.5) - math.log(0.6)) / 2, abs=1e-6)


def test_distilled_needs_no_labels_and_leaves_the_teacher_alone() -> None:
    logits = logits_of(0.5, 0.8).requires_grad_()
    (distil,) = OBJECTIVES["distil"]
    distil(logits, logits, False).backward()
    assert logits.grad is not None
    assert logits.grad[:, -1].abs().sum() == 0
    assert logits.grad[:, 0].abs().sum() > 0

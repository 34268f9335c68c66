"""The static first tier: runs of tokens are a convolution, and padding says nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cascade.training.static import StaticConfig, StaticForSequenceClassification, runs


def model(*, reach: int) -> StaticForSequenceClassification:
    torch.manual_seed(0)
    config = StaticConfig(vocab_size=30, width=6, hidden=8, reach=reach, num_labels=3)
    made = StaticForSequenceClassification(config)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    made.train(False)
    return made


def logits(made: StaticForSequenceClassification, ids: list[int], *, padding: int = 0) -> Tensor:
    row = torch.tensor([ids + [0] * padding])
    mask = torch.tensor([[1] * len(ids) + [0] * padding])
    with torch.no_grad():
        found: Tensor = made(row, mask).logits
    return found


def test_runs_are_what_a_convolution_reads() -> None:
    convolution = nn.Conv1d(4, 5, kernel_size=3, padding=1)
    linear = nn.Linear(12, 5)
    with torch.no_grad():
        linear.weight.copy_(convolution.weight.permute(0, 2, 1).reshape(5, 12))
        linear.bias.copy_(convolution.bias)  # type: ignore[arg-type]  # it has one
    states = torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(1))
    wanted = convolution(states.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(linear(runs(states, 1)), wanted)


@pytest.mark.parametrize("reach", [0, 1, 2])
def test_padding_does_not_change_an_answer(reach: int) -> None:
    made = model(reach=reach)
    torch.testing.assert_close(logits(made, [5, 9, 2], padding=4), logits(made, [5, 9, 2]))


@pytest.mark.parametrize(("reach", "same"), [(0, True), (1, False)])
def test_only_with_a_reach_does_the_order_of_tokens_count(reach: int, same: bool) -> None:
    made = model(reach=reach)
    assert torch.allclose(logits(made, [5, 9, 2, 7]), logits(made, [5, 2, 9, 7]), atol=1e-6) is same

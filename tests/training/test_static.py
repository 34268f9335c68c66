"""The static first tier: runs of tokens are a convolution, and padding says nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cascade.training.models.static import (
    StaticConfig,
    StaticForSequenceClassification,
    neighbourhoods,
    side_by_side,
    with_zero,
)


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


def test_neighbourhoods_by_hand() -> None:
    ids = torch.tensor([[5, 9, 2], [4, 7, 9]])
    wanted = [[[30, 5, 9], [5, 9, 2], [9, 2, 30]], [[30, 4, 7], [4, 7, 9], [7, 9, 30]]]
    assert neighbourhoods(ids, 1, absent=30).tolist() == wanted


def test_neighbours_side_by_side_are_what_a_convolution_reads() -> None:
    convolution = nn.Conv1d(4, 5, kernel_size=3, padding=1)
    linear = nn.Linear(12, 5)
    with torch.no_grad():
        linear.weight.copy_(convolution.weight.permute(0, 2, 1).reshape(5, 12))
        linear.bias.copy_(convolution.bias)  # type: ignore[arg-type]  # it has one
    table = torch.randn(9, 4, generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([[3, 1, 8, 0, 5], [2, 2, 7, 6, 4]])
    wanted = convolution(table[ids].transpose(1, 2)).transpose(1, 2)
    found = linear(side_by_side(with_zero(table), neighbourhoods(ids, 1, absent=9)))
    torch.testing.assert_close(found, wanted)


def test_an_answer_by_hand() -> None:
    made = model(reach=1)
    ids = [5, 9, 2]
    with torch.no_grad():
        rows = [torch.zeros(6), *made.embeddings.weight[ids], torch.zeros(6)]
        states = torch.stack([nn.functional.gelu(made.runs(torch.cat(rows[i : i + 3]))) for i in range(3)])
        weight = torch.exp(made.importance.weight[ids])
        pooled = torch.cat(((weight * states).sum(0) / (weight.sum() + 1e-6), states.amax(0)))
        wanted = made.out(nn.functional.gelu(made.hidden(made.norm(pooled))))
    torch.testing.assert_close(logits(made, ids)[0], wanted)


@pytest.mark.parametrize("reach", [0, 1, 2])
def test_padding_does_not_change_an_answer(reach: int) -> None:
    made = model(reach=reach)
    torch.testing.assert_close(logits(made, [5, 9, 2], padding=4), logits(made, [5, 9, 2]))


@pytest.mark.parametrize("reach", [0, 1])
def test_dropout_takes_whole_tokens_in_training_only(reach: int) -> None:
    made = model(reach=reach)
    made.config.dropout = 1.0
    made.dropout = nn.Dropout(0.0)
    made.train(True)
    torch.testing.assert_close(logits(made, [5, 9, 2]), logits(made, [7, 1, 4]))
    made.train(False)
    assert not torch.allclose(logits(made, [5, 9, 2]), logits(made, [7, 1, 4]))


@pytest.mark.parametrize(("reach", "same"), [(0, True), (1, False)])
def test_only_with_a_reach_does_the_order_of_tokens_count(reach: int, same: bool) -> None:
    made = model(reach=reach)
    assert torch.allclose(logits(made, [5, 9, 2, 7]), logits(made, [5, 2, 9, 7]), atol=1e-6) is same

"""The order of training rows: like lengths together, batches in random order, every row once."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cascade.training.data.order import LengthGroups
from cascade.training.loop import _MovingAverage


@given(st.lists(st.integers(1, 60), min_size=1, max_size=200), st.integers(1, 9), st.integers(1, 5))
def test_every_row_once(lengths: list[int], batch_size: int, group: int) -> None:
    sampler = LengthGroups(lengths=lengths, batch_size=batch_size, seed=1, group=group)
    assert sorted(sampler) == list(range(len(lengths)))
    assert len(sampler) == len(lengths)


def test_batches_hold_like_lengths_in_random_order() -> None:
    lengths = np.random.default_rng(0).integers(2, 60, 3200)
    sampler = LengthGroups(lengths=lengths.tolist(), batch_size=32, seed=1)
    batches = lengths[np.array(list(sampler))].reshape(-1, 32)
    assert (np.ptp(batches, axis=1)).mean() < 3
    # Neither rising nor falling: the last steps must not teach one length only.
    means = batches.mean(1)
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3


def test_epochs_differ_and_the_seed_decides() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = LengthGroups(lengths=[5] * 64, batch_size=8, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def test_a_batch_that_is_not_full_comes_last() -> None:
    sampler = LengthGroups(lengths=list(range(1, 12)), batch_size=4, seed=3)
    rows = list(sampler)
    for start in (0, 4):
        assert max(rows[start : start + 4]) - min(rows[start : start + 4]) == 3


def test_the_average_stands_in_the_model_between_epochs_only() -> None:
    """The decay begins at 0 and rises to the one asked for, so that the weights from before training are forgotten."""
    model = torch.nn.Linear(1, 1, bias=False)
    averaging = _MovingAverage(model, 0.5)
    average = 0.0
    for step, weight in enumerate((1.0, 2.0, 3.0), start=1):
        model.weight.data.fill_(weight)
        averaging.on_step_end(None, SimpleNamespace(global_step=step), None)
        decay = 0.0 if step == 1 else min(0.5, step / (step + 10))
        average = decay * average + (1 - decay) * weight
    averaging.on_epoch_end(None, None, None)
    assert model.weight.item() == pytest.approx(average)
    assert average != 3
    averaging.on_epoch_begin(None, None, None)
    assert model.weight.item() == 3

"""The order of training rows, averages of weights, and time limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from cascade.core.rows import Units
from cascade.training import loop
from cascade.training.data import TrainingRows, rows_of
from cascade.training.loop import TIMED, LoopOptions, _State, batches_of, run_loop
from cascade.training.units import UnitMetrics
from tests.models import tiny


@given(st.lists(st.integers(1, 60), min_size=1, max_size=200), st.integers(1, 9), st.integers(1, 5))
def test_every_row_once(lengths: list[int], batch_size: int, group: int) -> None:
    batches = batches_of(lengths, batch_size, seed=1, epoch=0, group=group)
    assert sorted(row for rows in batches for row in rows) == list(range(len(lengths)))
    assert {len(rows) for rows in batches[:-1]} <= {batch_size}


def test_batches_hold_like_lengths_in_random_order() -> None:
    lengths = np.random.default_rng(0).integers(2, 60, 3200)
    batches = lengths[np.array(batches_of(lengths.tolist(), 32, seed=1, epoch=0))]
    assert (np.ptp(batches, axis=1)).mean() < 3
    # Neither rising nor falling: the last steps must not teach one length only.
    means = batches.mean(1)
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3


def test_epochs_differ_and_the_seed_decides() -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        return batches_of([5] * 64, 8, seed=seed, epoch=epoch)

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def test_a_batch_that_is_not_full_comes_last() -> None:
    for rows in batches_of(list(range(1, 12)), 4, seed=3, epoch=0)[:2]:
        assert max(rows) - min(rows) == 3


def test_the_average_stands_in_the_model_while_it_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The decay begins at 0 and rises to the one asked for, so that the weights from before training are forgotten."""
    model = torch.nn.Linear(1, 1, bias=False)
    state = _State(model, torch.optim.SGD(model.parameters()), total=3)
    average, seen = 0.0, list[float]()
    for step, weight in enumerate((1.0, 2.0, 3.0), start=1):
        model.weight.data.fill_(weight)
        state.advance(0.5)
        decay = 0.0 if step == 1 else min(0.5, step / (step + 10))
        average = decay * average + (1 - decay) * weight
    monkeypatch.setattr(loop, "over_units", lambda *_, **__: seen.append(model.weight.item()))
    metrics: Any = type("Metrics", (), {"answers": None, "best": "score", "__call__": lambda *_: {"score": 1.0}})()
    unread: Any = None
    state.evaluate(metrics, unread, unread)
    assert seen == [pytest.approx(average)]
    assert average != 3
    assert model.weight.item() == 3
    assert state.best["weight"].item() == pytest.approx(average)


def test_what_the_first_steps_say_limits_the_others(tmp_path: Path) -> None:
    """No time at all leaves the steps that told so; a run that goes on keeps to what they told."""
    model = tiny.tier2(tmp_path / "model")
    rows = TrainingRows(Units.whole(rows_of([[2, 40, 3]] * 40)), {"labels": np.arange(40) % 2})
    for resume, minutes in ((False, 1e-9), (True, 60.0)):
        done: list[float] = []
        run_loop(
            model,
            rows,
            None,
            loss=lambda logits, _batch: logits.square().mean(),
            metrics=UnitMetrics(model.labels),
            output=tmp_path,
            options=LoopOptions(epochs=2, batch_size=4, resume=resume, minutes=minutes),
            progress=done.append,
        )
        assert len(done) == (0 if resume else TIMED)
        with safe_open(tmp_path / loop.CHECKPOINT, "pt") as file:
            assert json.loads(file.metadata()["state"])["step"] == TIMED

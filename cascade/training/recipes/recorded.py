"""Exits on a frozen backbone, which runs once over the rows: many epochs of the heads then take seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cascade.core.rows import Units
from cascade.training.data import TrainingRows, rows_of
from cascade.training.loop import LoopOptions, run_loop
from cascade.training.models.backbone import ExitBackbone
from cascade.training.models.multi_exit import MultiExitModel
from cascade.training.recipes.objectives import Objective
from cascade.training.units import UnitMetrics, over_units

MOST = 3 << 29  # bytes of recorded states
BATCH = 256  # units


class _States(nn.Module):
    """What the heads of a model read, in place of what they say of it."""

    def __init__(self, model: ExitBackbone) -> None:
        super().__init__()
        self.model, self.padding = model, model.padding

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        return {"logits": torch.stack(self.model.reads(input_ids, attention_mask, token_type_ids), dim=1)}


class _Heads(nn.Module):
    """The heads before the last one, in place of the whole model: they read recorded states."""

    def __init__(self, model: ExitBackbone) -> None:
        super().__init__()
        self.heads = model.heads[:-1]

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        return {"logits": torch.stack([head(input_ids[:, number]) for number, head in enumerate(self.heads)], dim=1)}


def train_recorded(
    model: ExitBackbone,
    rows: TrainingRows,
    objective: Objective,
    *,
    options: LoopOptions,
    output: Path,
    progress: Callable[[float], object] | None = None,
) -> None:
    """Train all heads but the last in place, on states that are recorded first, of as many rows as memory allows.

    A head that reads its layer as the last one does begins as a copy of it. The other arguments are those of
    `run_loop`; batches have 256 units at least.
    """
    most = max(MOST // (4 * len(model.layers) * int(model.config.hidden_size)), BATCH)
    rows = rows.select(np.arange(np.searchsorted(rows.units.offsets[1:], most, side="right")))
    begin = time.perf_counter()
    watched: Any = _States(model)
    states: Any = torch.from_numpy(over_units(watched, rows, read=lambda read: read, progress=progress))
    minutes, spent = options.minutes, (time.perf_counter() - begin) / 60
    left = None if minutes is None else max(minutes - spent, minutes / 5)
    with torch.no_grad():
        model.eval()
        full = torch.cat([model.heads[-1](part[:, -1]) for part in states.split(BATCH)])
    for number, head in enumerate(model.heads[:-1]):
        if not isinstance(model, MultiExitModel) or model.pooling[number] == model.pooling[-1]:
            head.load_state_dict(model.heads[-1].state_dict())

    def loss(logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        return objective(torch.cat((logits, batch["full"].unsqueeze(1)), dim=1), batch["full"], model.multi_label)

    run_loop(
        _Heads(model),
        TrainingRows(Units.whole(rows_of([[0]] * len(states))), {"input_ids": states.numpy(), "full": full.numpy()}),
        None,
        loss=loss,
        metrics=UnitMetrics(model.labels),
        output=output,
        collate=lambda some: {name: torch.from_numpy(own) for name, own in some.targets.items()},
        options=replace(options, batch_size=max(options.batch_size, BATCH), minutes=left),
        progress=progress,
    )
    model.eval()

"""Exits on a frozen backbone, which runs once over the rows: many epochs of the heads then take seconds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cascade.training.data.encoding import TrainingRows
from cascade.training.loop import LoopOptions
from cascade.training.models.backbone import ExitBackbone
from cascade.training.models.multi_exit import MultiExitModel
from cascade.training.recipes.objectives import Objective
from cascade.training.units import over_units

MOST = 3 << 29  # bytes of recorded states
BATCH = 256  # units


class _States(nn.Module):
    """What the heads of a model read, in place of what they say of it."""

    def __init__(self, model: ExitBackbone) -> None:
        super().__init__()
        self.model, self.padding = model, model.padding

    def forward(self, ids: Tensor, mask: Tensor, types: Tensor | None) -> dict[str, Tensor]:
        states, places = self.model.states(ids, mask, types), zip(self.model.norms, self.model.layers, strict=True)
        read = [self.model.read(norm(states[layer]), mask, n) for n, (norm, layer) in enumerate(places)]
        return {"logits": torch.stack(read, dim=1)}


def train_recorded(
    model: ExitBackbone,
    rows: TrainingRows,
    objective: Objective,
    options: LoopOptions,
    *,
    progress: Callable[[float], object] = lambda _share: None,
) -> None:
    """Train all heads but the last in place, on states that are recorded first, of as many rows as memory allows.

    A head that reads its layer as the last one does begins as a copy of it. `options` are those of the loop; batches
    have 256 units at least.
    """
    torch.manual_seed(options.seed)
    most = max(MOST // (4 * len(model.layers) * int(model.config.hidden_size)), BATCH)
    rows = rows.first(int(np.searchsorted(np.cumsum(rows.counts), most, side="right")))
    begin = time.perf_counter()
    watched: Any = _States(model)
    states = torch.from_numpy(over_units(watched, rows, read=lambda read, _: read, progress=progress))
    spent = time.perf_counter() - begin
    with torch.no_grad():
        model.eval()
        teacher = torch.cat([model.heads[-1](part[:, -1]) for part in states.split(BATCH)])
    heads = model.heads[:-1].train()
    for number, head in enumerate(heads):
        if not isinstance(model, MultiExitModel) or model.pooling[number] == model.pooling[-1]:
            head.load_state_dict(model.heads[-1].state_dict())
    size = max(options.batch_size, BATCH)
    seconds = math.inf if options.minutes is None else max(60 * options.minutes - spent, 12 * options.minutes)
    steps = math.ceil(len(states) / size)
    total, done = max(math.ceil(options.epochs * steps), 1), 0
    optimizer = torch.optim.AdamW(
        heads.parameters(), lr=options.learning_rate * options.head_factor, weight_decay=options.weight_decay
    )
    generator = torch.Generator().manual_seed(options.seed)
    begin = time.perf_counter()
    while done < total:
        for chosen in torch.randperm(len(states), generator=generator).split(size)[: total - done]:
            share = done / total
            if math.isfinite(seconds):  # whichever ends first decides how far the rate has fallen
                share = max(share, (time.perf_counter() - begin) / seconds)
            if share >= 1:
                return
            for group in optimizer.param_groups:
                group["lr"] = options.learning_rate * options.head_factor * (1 + math.cos(math.pi * share)) / 2
            read, goal = states[chosen], teacher[chosen]
            logits = torch.stack([*(head(read[:, number]) for number, head in enumerate(heads)), goal], dim=1)
            loss = objective(logits, goal, model.multi_label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done += 1
            progress(share)
    model.eval()

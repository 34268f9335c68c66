"""The loop of every training: seeded, an evaluation per epoch, a checkpoint to go on from, the best epoch kept."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm
from transformers import set_seed

from cascade.core.files import staged
from cascade.core.rows import IntArray
from cascade.exceptions import OptionError
from cascade.training.data import TrainingRows, grids
from cascade.training.units import INPUTS, Collate, UnitMetrics, batches_over, device, over_units

Loss = Callable[[Tensor, dict[str, Tensor]], Tensor]
"""From a model's logits and the batch to one loss."""

CHECKPOINT = "checkpoint.safetensors"
LONGEST = 1.0  # norm of the gradients, to which longer ones are cut
TIMED = 6  # first steps that tell how many fit into the minutes; the very first one does not count


@dataclass(frozen=True)
class LoopOptions:
    """What a user chooses of a training run.

    Attributes:
        epochs: passes over the training rows.
        batch_size: rows per step.
        learning_rate: of the backbone; linear warm-up over `warmup` of the steps, then linear decay to 0.
        head_factor: heads learn this many times faster: they start from nothing.
        weight_decay: AdamW's, not applied to biases, norms and tables of embeddings.
        warmup: share of the steps in [0, 1).
        average: of the weights over the last steps: the decay per step of a moving average, which is what is evaluated
            and kept (Polyak and Juditsky 1992); 0 keeps the weights as they are.
        seed: of initial weights, order and dropout.
        resume: go on from the checkpoint in the output folder; without one from the start.
        minutes: train for about so long at most: fewer steps where the first few say that all would take longer.
            Without a limit there is none.
        bf16: multiply in bfloat16 (autocast), which pays on CPUs with AMX or AVX512-BF16.
    """

    epochs: float = 3.0
    batch_size: int = 32
    learning_rate: float = 5e-5
    head_factor: float = 10.0
    weight_decay: float = 0.01
    warmup: float = 0.06
    average: float = 0.0
    seed: int = 1
    resume: bool = False
    minutes: float | None = None
    bf16: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "head_factor"):
            if getattr(self, name) <= 0:
                raise OptionError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("warmup", "average"):
            if not 0 <= getattr(self, name) < 1:
                raise OptionError(f"{name} must be in [0, 1), got {getattr(self, name)}")


def run_loop(
    model: Any,
    train: TrainingRows,
    evaluation: TrainingRows | None,
    *,
    loss: Loss,
    metrics: UnitMetrics,
    output: Path,
    options: LoopOptions,
    collate: Collate | None = None,
    progress: Callable[[float], object] | None = None,
) -> dict[str, float]:
    """Train in place; the model ends with the weights of the best epoch, or of the last without evaluation rows.

    The model's forward takes what of `INPUTS` batches have and returns a mapping with `logits`. Parameters under
    `heads.` learn at the heads' rate. A checkpoint is left in `output` for `resume`, after each epoch or, without
    evaluation rows, each fifth of the steps. `collate` is `grids` by default; `progress`: called with the share of the
    steps that is done; then no bar is drawn and no line printed. Returned is every metric of the epoch that was kept;
    empty without evaluation rows.
    """
    set_seed(options.seed)
    where, tell = device(), tqdm.write if progress is None else bool
    collate, epoch_steps = collate or partial(grids, padding=model.padding), math.ceil(len(train) / options.batch_size)
    model.to(where)
    state, taken = _State(model, _optimizer(model, options), math.ceil(options.epochs * epoch_steps)), list[float]()
    if options.resume:
        state.load(output / CHECKPOINT, tell)
    shown = tqdm if progress is None else partial(tqdm, disable=True)
    bar = shown(total=state.total, initial=state.step, desc="train", unit="step", leave=False)
    while state.step < state.total:
        epoch, begun = divmod(state.step, epoch_steps)
        order = batches_of(train.units.rows.lengths, options.batch_size, seed=options.seed, epoch=epoch)
        drawn, batches = torch.get_rng_state(), iter(batches_over(train, order[begun:], collate))
        if begun:  # what a loader draws was drawn when the epoch began
            torch.set_rng_state(drawn)
        for given, _ in pairwise(chain(batches, (None,))):  # each is collated before the step on the one before it
            begin = time.perf_counter()
            model.train()
            state.at_rate(options.warmup)
            batch = {name: tensor.to(where) for name, tensor in given.items()}
            with torch.autocast(where.type, torch.bfloat16, enabled=options.bf16):
                logits = model(**{name: batch[name] for name in INPUTS if name in batch})["logits"]
            loss(logits.float(), batch).backward()
            state.advance(options.average)
            taken.append(time.perf_counter() - begin)
            if options.minutes is not None and state.step == TIMED:
                state.limit = max(int(60 * options.minutes / np.mean(taken[1:] or taken)), TIMED)
                bar.total = state.total = min(state.total, state.limit)
            bar.update()
            if progress is not None:
                progress(state.step / state.total)
            ended = state.step == state.total
            if ended or state.step % (math.ceil(state.total / 5) if evaluation is None else epoch_steps) == 0:
                if evaluation is not None:
                    scores = state.evaluate(metrics, evaluation, collate)
                    each = (f"{name.replace('_', ' ')} {value * 100:.2f}" for name, value in scores.items())
                    tell(f"epoch {state.step / epoch_steps:.2f}  {'  '.join(each)}")
                state.save(output / CHECKPOINT)
            if ended:
                break
    bar.close()
    model.load_state_dict(state.best or state.average, strict=False)
    model.to("cpu")
    return state.scores


@dataclass(eq=False)
class _State:
    """All that a step changes, so that a run that goes on does what it would have done.

    `total`: steps, as many as the `limit` that time sets; `average`: of the weights that learn, if one is wanted;
    `best`: weights of the best epoch so far, and its `scores`.
    """

    model: Any
    optimizer: torch.optim.Optimizer
    total: int
    step: int = 0
    limit: int = sys.maxsize
    average: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)

    def at_rate(self, warmup: float) -> None:
        """Set the learning rates of the next step."""
        rising = math.ceil(warmup * self.total)
        share = self.step / max(rising, 1)
        if self.step >= rising:
            share = (self.total - self.step) / max(self.total - rising, 1)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * share

    def advance(self, decay: float) -> None:
        """Take a step. Early on the average is short, so that it forgets the weights from before training."""
        nn.utils.clip_grad_norm_(self.model.parameters(), LONGEST)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        if decay:
            own = {name: one.detach() for name, one in self.model.named_parameters() if one.requires_grad}
            if not self.average:
                self.average = {name: one.clone() for name, one in own.items()}
            average = get_ema_multi_avg_fn(min(decay, self.step / (self.step + 10)))
            average([self.average[name] for name in own], [*own.values()], self.step)

    def evaluate(self, metrics: UnitMetrics, rows: TrainingRows, collate: Collate) -> dict[str, float]:
        """Scores of the averaged weights, which are kept if they are the best."""
        own = _copied(self.model)
        self.model.load_state_dict(self.average, strict=False)
        answers = over_units(self.model, rows, read=metrics.answers, collate=collate, progress=bool)
        scores = metrics(answers, rows)
        if not self.scores or scores[metrics.best] > self.scores[metrics.best]:
            self.best, self.scores = _copied(self.model), scores
        self.model.load_state_dict(own)
        return scores

    def save(self, file: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        moments = self.optimizer.state_dict()["state"]
        parts: dict[str, dict[str, Tensor]] = {
            "model": self.model.state_dict(),
            "average": self.average,
            "best": self.best,
            "moments": {f"{name} {number}": one for number, own in moments.items() for name, one in own.items()},
            "rng": {"": torch.get_rng_state()},
        }
        tensors = {f"{part}.{name}": one.contiguous() for part, own in parts.items() for name, one in own.items()}
        told = json.dumps({"step": self.step, "limit": self.limit, "scores": self.scores})
        file.parent.mkdir(parents=True, exist_ok=True)
        with staged(file) as path:
            save_file(tensors, path, metadata={"state": told})

    def load(self, file: Path, tell: Callable[[str], object]) -> None:
        """Go on from a checkpoint; `tell` is told where there is none that can be read."""
        try:
            with safe_open(file, "pt") as opened:
                told = json.loads(opened.metadata()["state"])
            tensors = load_file(file)
        except (OSError, SafetensorError) as error:
            tell(f"{file} cannot be read, so training starts at the first step: {error}")
            return
        parts: dict[str, dict[str, Tensor]] = {name: {} for name in ("model", "average", "best", "moments", "rng")}
        for name, tensor in tensors.items():
            part, _, own = name.partition(".")
            parts[part][own] = tensor
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts["moments"].items():
            own, number = name.split()
            moments.setdefault(int(number), {})[own] = tensor
        self.model.load_state_dict(parts["model"])
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": moments})
        self.average = {name: tensor.to(device()) for name, tensor in parts["average"].items()}
        torch.set_rng_state(parts["rng"][""])
        self.best, self.step, self.limit, self.scores = parts["best"], told["step"], told["limit"], told["scores"]
        self.total = min(self.total, self.limit)


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def batches_of(lengths: Any, batch_size: int, *, seed: int, epoch: int, group: int = 50) -> list[list[int]]:
    """Numbers of the rows of each batch of an epoch: like lengths side by side, so that batches hold little padding.

    The rows of `group` batches are sorted together, and batches come in random order, one that is not full last.
    transformers' own `group_by_length` sorts each group from long to short: where labels depend on length, the last
    steps of an epoch teach only the shortest rows (models/README.md has a run).
    """
    known, rng = np.asarray(lengths), np.random.default_rng((seed, epoch))
    order, batches = rng.permutation(len(known)), list[IntArray]()
    for rows in np.split(order, range(batch_size * group, len(order), batch_size * group)):
        like = rows[np.argsort(known[rows], kind="stable")]
        batches += np.split(like, range(batch_size, len(like), batch_size))
    full = [rows for rows in batches if len(rows) == batch_size]
    rest = [rows for rows in batches if len(rows) < batch_size]
    return [rows.tolist() for rows in (*(full[number] for number in rng.permutation(len(full))), *rest)]


def _optimizer(model: nn.Module, options: LoopOptions) -> torch.optim.Optimizer:
    """AdamW with the heads' own rate and without decay on vectors (biases, norms)."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name.startswith("heads."), parameter.ndim > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "initial_lr": options.learning_rate * (options.head_factor if head else 1.0),
                "weight_decay": options.weight_decay if decay else 0.0,
            }
            for (head, decay), parameters in groups.items()
        ],
        fused=True,  # a third of the time of the default on a CPU
    )

"""transformers' Trainer, configured once: seeded, an evaluation per epoch, checkpoints to go on from, the best kept."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import Sampler
from tqdm import tqdm
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from cascade.core.files import write
from cascade.exceptions import OptionError
from cascade.training.checkpoint import last_whole
from cascade.training.data.encoding import TrainingRows
from cascade.training.data.order import LengthGroups
from cascade.training.units import UnitMetrics

Loss = Callable[[Tensor, dict[str, Tensor]], Tensor]
"""From a model's logits and the batch to one loss."""

INPUTS = ("input_ids", "attention_mask", "token_type_ids", "exit_layers")
TIMED = 6  # first steps, of which the first one does not count

Collate = Callable[[Sequence[dict[str, Any]]], dict[str, Tensor]]
"""From rows, as `TrainingRows` gives them, to a batch."""


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
        resume: go on from the newest whole checkpoint in the output folder; without one, from the start.
        minutes: train for about so long at most: fewer epochs where a few first steps say that all would take longer.
            Without a limit there is none.
        bf16: multiply in bfloat16 (autocast), which pays on CPUs with AMX.
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
    model: nn.Module,
    *,
    train: TrainingRows,
    evaluation: TrainingRows | None,
    loss: Loss,
    metrics: UnitMetrics,
    output: Path,
    collate: Collate,
    options: LoopOptions,
    progress: Callable[[float], object] | None = None,
) -> dict[str, float]:
    """Train in place; the model ends with the weights of the best epoch, or of the last without evaluation rows.

    The model's forward takes `input_ids`, `attention_mask` (`token_type_ids`, `exit_layers` if batches have them) and
    returns a mapping or an output with `logits`. Parameters under `heads.` learn at the heads' rate. Checkpoints are
    left in `output` for `resume`. `progress`: called with the share of the steps that is done; then no bar is drawn and
    no line printed. Returned is every metric of the epoch that was kept; empty without evaluation rows.
    """
    order = LengthGroups(lengths=[len(ids) for ids in train.ids], batch_size=options.batch_size, seed=options.seed)
    epochs, often = options.epochs, "epoch" if evaluation is not None else "steps"
    if options.minutes is not None:
        epochs = _affordable(model, train, loss=loss, output=output, collate=collate, options=options, order=order)
    steps = math.ceil(epochs * math.ceil(len(train) / options.batch_size))
    arguments = TrainingArguments(
        output_dir=str(output),
        num_train_epochs=epochs,
        bf16=options.bf16,
        use_cpu=not torch.cuda.is_available(),  # bf16 on a CPU must be asked for so
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=64,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        warmup_steps=math.ceil(options.warmup * steps),
        seed=options.seed,
        data_seed=options.seed,
        eval_strategy="no" if evaluation is None else "epoch",
        save_strategy=often,
        save_steps=0.2,  # of all steps
        save_total_limit=2,
        load_best_model_at_end=evaluation is not None,
        metric_for_best_model=metrics.best,
        greater_is_better=True,
        logging_steps=50,
        report_to=[],
        disable_tqdm=True,  # its bars come with dictionaries between them
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=False,
    )
    trainer = _Trainer(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=evaluation,
        data_collator=collate,
        compute_metrics=metrics,
        preprocess_logits_for_metrics=metrics.answers,
        optimizers=(_optimizer(model, options), None),
        callbacks=[
            _Shown(progress),
            *([_MovingAverage(model, options.average)] if options.average else []),
        ],
    )
    trainer.remove_callback(PrinterCallback)  # which prints those dictionaries where there is no bar
    tell: Callable[[str], object] = tqdm.write if progress is None else bool
    trainer.loss = loss
    trainer.order = order
    trainer.train(resume_from_checkpoint=last_whole(output, tell) if options.resume else None)
    best = f"eval_{metrics.best}"
    evaluations = [entry for entry in trainer.state.log_history if best in entry]
    return _scores(max(evaluations, key=lambda entry: float(entry[best]))) if evaluations else {}


def _affordable(
    model: nn.Module,
    train: TrainingRows,
    *,
    loss: Loss,
    output: Path,
    collate: Collate,
    options: LoopOptions,
    order: Iterable[int],
) -> float:
    """How many epochs fit into the minutes, as a few first steps tell, which are taken back; kept for `resume`."""
    file = output / "epochs.json"
    if options.resume and file.is_file():
        return float(json.loads(file.read_text(encoding="utf-8")))
    state, weights = torch.get_rng_state(), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).train()
    optimizer, taken = _optimizer(model, options), list[float]()
    rows = list(itertools.islice(order, TIMED * options.batch_size))
    for start in range(0, len(rows), options.batch_size):
        begin = time.perf_counter()
        batch = collate([train[row] for row in rows[start : start + options.batch_size]])
        batch = {name: tensor.to(device) for name, tensor in batch.items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=options.bf16):
            logits = model(**{name: batch[name] for name in INPUTS if name in batch})["logits"]
        loss(logits.float(), batch).backward()
        optimizer.step()
        optimizer.zero_grad()
        taken.append(time.perf_counter() - begin)
    model.load_state_dict(weights)
    torch.set_rng_state(state)
    seconds = float(np.mean(taken[1:] or taken)) * math.ceil(len(train) / options.batch_size)
    epochs = min(options.epochs, 60 * (options.minutes or 0) / seconds)
    output.mkdir(parents=True, exist_ok=True)
    write(file, json.dumps(epochs))
    return epochs


class _Trainer(Trainer):
    """Trainer with a loss that reads logits and the batch."""

    loss: Loss
    order: LengthGroups

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return self.order

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        outputs = model(**{name: inputs[name] for name in INPUTS if name in inputs})
        logits = outputs["logits"]
        loss = self.loss(logits, inputs)
        return (loss, {"logits": logits}) if return_outputs else loss


class _MovingAverage(TrainerCallback):
    """The averaged weights stand in the model whenever it is evaluated and saved, its own while it learns.

    An interrupted run goes on from the average, which is all that a checkpoint holds.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.average: AveragedModel | None = None
        self.own: dict[str, Tensor] | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if self.average is None:
            self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(self.decay))
        # Early on the average is short, so that it does not remember the weights from before training.
        self.average.multi_avg_fn = get_ema_multi_avg_fn(min(self.decay, state.global_step / (state.global_step + 10)))
        self.average.update_parameters(self.model)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if self.average is not None:
            self.own = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
            self.model.load_state_dict(self.average.module.state_dict())

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if self.own is not None:
            self.model.load_state_dict(self.own)
            self.own = None


class _Shown(TrainerCallback):
    """The steps of a training: told as a share, or as a bar with a readable line per evaluation above it."""

    def __init__(self, progress: Callable[[float], object] | None) -> None:
        self.progress = progress

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if self.progress is None:
            begun, total = state.global_step, state.max_steps
            self.bar = tqdm(total=total, initial=begun, desc="train", unit="step", leave=False)

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if self.progress is None:
            self.bar.update()
        else:
            self.progress(state.global_step / max(state.max_steps, 1))

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if self.progress is None:
            self.bar.close()

    def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if self.progress is None:
            scores = _scores(given["metrics"])
            shown = "  ".join(f"{name.replace('_', ' ')} {value * 100:.2f}" for name, value in scores.items())
            tqdm.write(f"epoch {state.epoch:.2f}  {shown}")


def _scores(entry: Mapping[str, Any]) -> dict[str, float]:
    """What the metrics say in an entry of the Trainer's log, which also tells its loss and its speed."""
    others = ("eval_loss", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second")
    return {
        name.removeprefix("eval_"): float(value)
        for name, value in entry.items()
        if name.startswith("eval_") and name not in others
    }


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
                "lr": options.learning_rate * (options.head_factor if head else 1.0),
                "weight_decay": options.weight_decay if decay else 0.0,
            }
            for (head, decay), parameters in groups.items()
        ],
        fused=True,  # a third of the time of the default on a CPU
    )

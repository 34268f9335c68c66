"""transformers' Trainer, configured once for both kinds of training.

Seeded, with a progress bar, an evaluation per epoch, checkpoints from which an interrupted run goes on, and the best
epoch kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import Sampler
from transformers import EvalPrediction, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from cascade.core.rows import IntArray
from cascade.exceptions import OptionError
from cascade.training.data import Pad, Rows

__all__ = ["Collate", "LengthGroups", "LoopOptions", "Loss", "run_loop"]

Loss = Callable[[Tensor, dict[str, Tensor]], Tensor]
"""From a model's logits and the batch to one loss."""

Collate = Callable[[Sequence[dict[str, Any]]], dict[str, Tensor]]
"""From rows, as `Rows` gives them, to a batch."""


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
        resume: go on from the last checkpoint in the output folder.
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

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "head_factor"):
            if getattr(self, name) <= 0:
                raise OptionError(f"{name} must be above 0, was: {getattr(self, name)}")
        if not 0 <= self.warmup < 1:
            raise OptionError(f"warmup must be in [0, 1), was: {self.warmup}")
        if not 0 <= self.average < 1:
            raise OptionError(f"average must be in [0, 1), was: {self.average}")


def run_loop(
    model: nn.Module,
    *,
    train: Rows,
    evaluation: Rows | None,
    loss: Loss,
    metrics: Callable[[EvalPrediction], dict[str, float]],
    best: str,
    output: Path,
    padding: int,
    options: LoopOptions,
    is_head: Callable[[str], bool],
    collate: Collate | None = None,
    answers: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> dict[str, float]:
    """Train in place; the model ends with the weights of the best epoch, or of the last without evaluation rows.

    Args:
        model: its forward takes `input_ids`, `attention_mask` (and `token_type_ids`, `exit_layers` where batches have
            them) and returns a mapping or an output with `logits`.
        train: rows to learn from.
        evaluation: rows that choose the best epoch.
        loss: from logits and the batch.
        metrics: transformers' `compute_metrics`.
        best: name of the metric (without `eval_`) by which the best epoch is kept.
        output: folder for checkpoints, which are left there for `resume`.
        padding: id of the padding token.
        options: rates, epochs, seed.
        is_head: whether a parameter, by its name, learns at the heads' rate.
        collate: from rows to a batch; `Pad` by default.
        answers: from an evaluation batch's logits and labels to what `metrics` reads; the logits by default. The
            first two axes must be the labels', because only these are padded from batch to batch.

    Returns:
        every metric of the epoch that was kept; empty without evaluation rows.
    """
    each_epoch = "epoch" if evaluation is not None else "no"
    arguments = TrainingArguments(
        output_dir=str(output),
        num_train_epochs=options.epochs,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=64,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        warmup_ratio=options.warmup,
        lr_scheduler_type="linear",
        seed=options.seed,
        data_seed=options.seed,
        eval_strategy=each_epoch,
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=evaluation is not None,
        metric_for_best_model=best,
        greater_is_better=True,
        logging_steps=50,
        report_to=[],
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=False,
        max_grad_norm=1.0,
    )
    trainer = _Trainer(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=evaluation,
        data_collator=collate or Pad(padding),
        compute_metrics=metrics,
        preprocess_logits_for_metrics=answers,
        optimizers=(_optimizer(model, options, is_head), None),
        callbacks=[_EpochLine(), *([_MovingAverage(model, options.average)] if options.average else [])],
    )
    trainer.loss = loss
    trainer.order = LengthGroups(
        lengths=[len(ids) for ids in train.ids], batch_size=options.batch_size, seed=options.seed
    )
    checkpoint = get_last_checkpoint(str(output)) if options.resume and output.is_dir() else None
    trainer.train(resume_from_checkpoint=checkpoint)
    evaluations = [entry for entry in trainer.state.log_history if f"eval_{best}" in entry]
    if not evaluations:
        return {}
    kept = max(evaluations, key=lambda entry: float(entry[f"eval_{best}"]))
    timing = ("eval_loss", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second")
    return {
        name.removeprefix("eval_"): float(value)
        for name, value in kept.items()
        if name.startswith("eval_") and name not in timing
    }


class LengthGroups(Sampler[int]):
    """Rows of like length side by side, so that batches hold little padding, in batches of random order.

    transformers' own `group_by_length` sorts each group of fifty batches from long to short. Where labels depend on
    length (phrases of a tree bank, say) the last steps of an epoch then teach only the shortest rows, and whole
    sentences pay for it (models/README.md has a run).

    Args:
        lengths: of the rows.
        batch_size: rows per step.
        seed: with the epoch's number it decides the order.
        group: batches whose rows are sorted together.
    """

    def __init__(self, *, lengths: Sequence[int], batch_size: int, seed: int, group: int = 50) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.group = group
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each epoch, also after a resumption."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self.seed, self.epoch))
        order = rng.permutation(len(self.lengths))
        batches: list[IntArray] = []
        for start in range(0, len(order), self.batch_size * self.group):
            rows = order[start : start + self.batch_size * self.group]
            rows = rows[np.argsort(self.lengths[rows], kind="stable")]
            batches += [rows[begin : begin + self.batch_size] for begin in range(0, len(rows), self.batch_size)]
        # A batch that is not full must come last: the loader cuts the stream of rows every `batch_size` rows.
        full = [rows for rows in batches if len(rows) == self.batch_size]
        rest = [rows for rows in batches if len(rows) < self.batch_size]
        for position in rng.permutation(len(full)):
            yield from full[position].tolist()
        for rows in rest:
            yield from rows.tolist()


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
        names = ("input_ids", "attention_mask", "token_type_ids", "exit_layers")
        outputs = model(**{name: inputs[name] for name in names if name in inputs})
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


class _EpochLine(TrainerCallback):
    """One readable line per evaluation, above the progress bar."""

    def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        from tqdm import tqdm

        scores = "  ".join(
            f"{name.removeprefix('eval_').replace('_', ' ')} {value * 100:.2f}"
            for name, value in given["metrics"].items()
            if name.startswith("eval_") and "per_second" not in name and "runtime" not in name and "loss" not in name
        )
        tqdm.write(f"epoch {state.epoch:.2f}  {scores}")


def _optimizer(model: nn.Module, options: LoopOptions, is_head: Callable[[str], bool]) -> torch.optim.Optimizer:
    """AdamW with the heads' own rate and without decay on vectors (biases, norms)."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((is_head(name), parameter.ndim > 1), []).append(parameter)
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

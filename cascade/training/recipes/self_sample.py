"""`cascade-train self-sample`: a multi-exit tagger learns with words that stop early (TOKEE, second stage).

Exits are drawn (`sampling`); a word that has exited keeps its state after the layer's own LayerNorm, as in the runtime
(the authors' `keep_norm_same=0`; their published command normalises it again in every later layer, which a runtime that
copies cannot follow), and teaches only the exits up to its own.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import EvalPrediction

from cascade.core.checks import check_whole
from cascade.core.rows import IntArray
from cascade.exceptions import OptionError
from cascade.training.checkpoint import load_tokenizer_text
from cascade.training.data.encoding import NO_LABEL, TrainingRows, tokenizer_of
from cascade.training.data.examples import cropped
from cascade.training.loop import LoopOptions, Loss, run_loop
from cascade.training.models.tagging import MultiExitTagger
from cascade.training.recipes.objectives import check_weights, cross_entropies, exit_weights
from cascade.training.recipes.sampling import ExitRanges, PadWithExits, exit_numbers
from cascade.training.run import Run
from cascade.training.task import TAGGING
from cascade.training.units import ENTITY_F1, UnitMetrics, over_units, per_row, tag_f1, unit_logits

TOKEN_EXIT = "token_exit"  # noqa: S105  # a metric's name, no secret


@dataclass(frozen=True)
class SelfSampleOptions:
    """What a user chooses of the second stage.

    Attributes:
        ranges: windows and thresholds that rows draw from.
        weights: of the exits' losses; rising 1, 2, 3, ... by default.
        crops: random runs of words of each sentence that are trained on too, because tier 2 reads windows.
        max_length: tokens per row at most, in training; longer sentences are cut between words.
    """

    ranges: ExitRanges = field(default_factory=ExitRanges)
    weights: tuple[float, ...] | None = None
    crops: int = 0
    max_length: int = 128
    loop: LoopOptions = field(default_factory=lambda: LoopOptions(epochs=3, learning_rate=1e-5, head_factor=10.0))

    def __post_init__(self) -> None:
        check_weights(self.weights)
        check_whole("crops", self.crops, "0 trains on whole sentences only", least=0)


def train_self_sample(run: Run, options: SelfSampleOptions | None = None) -> dict[str, Any]:
    """Train on and write a multi-exit tagger of the same form.

    Args:
        run: for `TAGGING`, from a folder that `cascade-train exits` wrote. The mean of full depth and of the exits that
            the first stage would take with the middle window and threshold chooses the best epoch, in entity F1 for
            labels of spans, else in accuracy.
        options: everything about the training; `SelfSampleOptions()` by default.

    Returns:
        the report that also stands in `training.json`.
    """
    options, task = options or SelfSampleOptions(), run.task
    if task is not TAGGING:
        raise OptionError(f"words are sampled, so the task must be tagging, got {task.name}; a text exits whole")
    run.begin(options.loop)
    model = MultiExitTagger.from_pretrained(run.source)
    weights = exit_weights(options.weights, len(model.layers))
    text = task.tokenizer(load_tokenizer_text(run.source))
    tokenizer = tokenizer_of(text, max_length=min(options.max_length, model.longest))
    examples, held_out = run.read()
    crops = cropped(examples, copies=options.crops, seed=options.loop.seed)
    rows = task.encode(tokenizer, crops, model.labels)
    digests = (rows.digest(), model.digest())
    unsure = run.kept("unsure", digests, lambda: over_units(model, rows, read=_uncertainty), resume=options.loop.resume)
    eval_rows, exits = None, np.zeros(0, dtype=np.int64)
    if held_out is not None:
        eval_rows, exits = _twice(model, task.encode(tokenizer, held_out, model.labels), options.ranges)
    scores = run_loop(
        model,
        train=rows.with_target("uncertainty", per_row(unsure, rows)),
        evaluation=eval_rows,
        loss=_loss(weights),
        metrics=_ExitMetrics(model.labels, model.layers, spans=task.has_spans(model.labels), exits=exits),
        output=run.folder,
        collate=PadWithExits(model.padding, len(tokenizer.special.suffix), model.layers, options.ranges),
        options=options.loop,
    )
    own = {"weights": options.weights, "crops": options.crops}
    return run.finish(
        "self-sample",
        model,
        text,
        options.loop,
        options=asdict(options.ranges) | own | {"max_length": tokenizer.max_length},
        details={"rows": len(examples), "scores": scores},
    )


def _uncertainty(logits: Tensor, _labels: Tensor) -> Tensor:
    """Normalised entropy. Shape `(words, exits, labels)` -> `(words, exits)`."""
    log = F.log_softmax(logits, dim=-1)
    return -(log.exp() * log).sum(-1) / np.log(logits.shape[-1])


def _loss(weights: tuple[float, ...]) -> Loss:
    """Weighted mean over all words and exits, a word counting at its own exit and those before it."""

    def loss(logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        losses = cross_entropies(*unit_logits(logits, batch))
        counted = losses.new_tensor(weights).expand_as(losses)
        if "exits" in batch:
            counted = counted * (torch.arange(len(weights)) <= batch["exits"].unsqueeze(1))
        return (losses * counted).sum() / counted.sum().clamp_min(1e-9)

    return loss


def _twice(model: MultiExitTagger, rows: TrainingRows, ranges: ExitRanges) -> tuple[TrainingRows, IntArray]:
    """Rows for full depth and once more for exits in the middle of the ranges; the exits of the words of both."""
    uncertainty = over_units(model, rows, read=_uncertainty)
    window = sorted(ranges.windows)[len(ranges.windows) // 2]
    threshold = ranges.per_exit(sorted(ranges.thresholds)[len(ranges.thresholds) // 2], model.layers)
    early = exit_numbers(
        uncertainty,
        np.repeat(np.arange(len(rows)), rows.counts),
        np.full(len(rows), window),
        np.broadcast_to(threshold, (len(rows), len(threshold))),
    )
    exits = np.concatenate((np.full(len(early), len(model.layers) - 1), early))
    both = TrainingRows.joined([rows, rows])
    return both.with_target("exits", per_row(exits, both)), exits


@dataclass(frozen=True, kw_only=True)
class _ExitMetrics(UnitMetrics):
    """Full depth on the first half of the rows, and the second half at its words' exits, of shape `(words,)`."""

    exits: IntArray

    @property
    def best(self) -> str:
        return "chosen_by"

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        answers, wanted = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
        half = len(wanted) // 2
        found = super().__call__(EvalPrediction(predictions=answers[:half], label_ids=wanted[:half]))
        known = wanted[half:] != NO_LABEL
        own = self.exits[len(self.exits) // 2 :]
        taken = np.full(known.shape, NO_LABEL)
        taken[known] = np.take_along_axis(answers[half:][known], own[:, None], axis=1)[:, 0]
        layers = np.array(self.layers)
        found[TOKEN_EXIT] = float((taken[known] == wanted[half:][known]).mean())
        found[f"{TOKEN_EXIT}_depth"] = float(layers[own].mean() / layers[-1])
        pair = (found[f"layer_{layers[-1]}"], found[TOKEN_EXIT])
        if self.spans:
            found[f"{TOKEN_EXIT}_f1"] = tag_f1(taken, wanted[half:], self.labels)
            pair = (found[ENTITY_F1], found[f"{TOKEN_EXIT}_f1"])
        return found | {"chosen_by": sum(pair) / 2}

"""`cascade-train self-sample`: a multi-exit tagger learns with words that stop early (TOKEE, second stage).

Each row draws a window and a threshold; where its words would exit is simulated from uncertainties that were kept from
an earlier pass, by the rule of `cascade.policies.TokenExit`. Some rows of each batch run at full depth and some exit as
early as the ranges allow (a sandwich). A word that has exited keeps its state after the layer's own LayerNorm, as in
the runtime (the authors' `keep_norm_same=0`; their published command normalises it again in every later layer, which a
runtime that copies cannot follow), and teaches only the exits up to its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cascade.core.checks import check_whole
from cascade.core.rows import FloatArray, IntArray
from cascade.exceptions import OptionError
from cascade.training.checkpoint import load_tokenizer_text
from cascade.training.data import TrainingRows, cropped, grids, tokenizer_of
from cascade.training.loop import LoopOptions, Loss, run_loop
from cascade.training.models.multi_exit import MultiExitTagger
from cascade.training.recipes.objectives import check_weights, cross_entropies, exit_weights
from cascade.training.run import Run
from cascade.training.units import ENTITY_F1, UnitMetrics, exit_grid, over_units, tag_f1, unit_logits

TOKEN_EXIT = "token_exit"  # noqa: S105  # a metric's name, no secret
UPPER_FACTOR, CAP = 2.0, 0.5  # thresholds of the upper half of the layers are twice as large, but for what is above 0.5
FASTEST = 0.2  # share of a batch's rows with the smallest window or, by a coin, the largest threshold
FULL_DEPTH = 0.4  # share of a batch's rows whose words all go through all layers


@dataclass(frozen=True)
class ExitRanges:
    """What rows draw from; the defaults, as the numbers above, are the paper's.

    Attributes:
        windows: words that TOKEE's window may have, odd.
        thresholds: of normalised entropy, in (0, 1].
    """

    windows: tuple[int, ...] = (5, 7, 9, 11, 13, 15)
    thresholds: tuple[float, ...] = (0.01, 0.03, 0.05, 0.10, 0.15, 0.20, 0.25)

    def __post_init__(self) -> None:
        if not self.windows or any(window < 1 or window % 2 == 0 for window in self.windows):
            raise OptionError(f"windows must be odd numbers of words, got {self.windows}; 1 looks at a word alone")
        if not self.thresholds or any(not 0 < threshold <= 1 for threshold in self.thresholds):
            raise OptionError(f"thresholds must be in (0, 1], got {self.thresholds}; they bound normalised entropy")

    def per_exit(self, threshold: float, layers: Sequence[int]) -> FloatArray:
        """One threshold for each exit. Shape `(exits,)`."""
        upper = max(threshold, min(threshold * UPPER_FACTOR, CAP))
        return np.array([upper if layer > layers[-1] / 2 else threshold for layer in layers], dtype=np.float32)

    def draw(self, rows: int, layers: Sequence[int], rng: np.random.Generator) -> tuple[IntArray, FloatArray]:
        """Windows and thresholds of a batch's rows. Shapes `(rows,)` and `(rows, exits)`.

        Full depth is a threshold of 0, below which no uncertainty lies.
        """
        windows = rng.choice(self.windows, rows)
        thresholds = rng.choice(self.thresholds, rows)
        order = rng.permutation(rows)
        fastest, deepest = round(rows * FASTEST), round(rows * FULL_DEPTH)
        if rng.integers(2):
            windows[order[:fastest]] = min(self.windows)
        else:
            thresholds[order[:fastest]] = max(self.thresholds)
        wanted = np.stack([self.per_exit(threshold, layers) for threshold in thresholds])
        wanted[order[rows - deepest :]] = 0
        return windows.astype(np.int64), wanted


def exit_numbers(uncertainty: FloatArray, rows: IntArray, windows: IntArray, thresholds: FloatArray) -> IntArray:
    """The exit of each word by TOKEE's rule, from 0; the last where it is never sure. Shape `(words,)`.

    Words that have exited count as sure. `uncertainty`: normalised entropy at each exit, shape `(words, exits)`;
    `rows`: number of each word's row, never falling, shape `(words,)`; `windows`: of each row, odd, shape `(rows,)`;
    `thresholds`: of each row at each exit, shape `(rows, exits)`.
    """
    words, exits = uncertainty.shape
    reach = windows[rows] // 2
    found = np.full(words, exits - 1, dtype=np.int64)
    for number in range(exits - 1):
        unsure = np.where(found < exits - 1, np.float32(0), uncertainty[:, number])
        most = unsure.copy()
        for step in range(1, min(int(windows.max(initial=1)) // 2, words - 1) + 1):
            near = (rows[step:] == rows[:-step]) & (reach[step:] >= step)
            np.maximum(most[step:], unsure[:-step], out=most[step:], where=near)
            np.maximum(most[:-step], unsure[step:], out=most[:-step], where=near)
        found[(found == exits - 1) & (most < thresholds[rows, number])] = number
    return found


@dataclass(frozen=True)
class PadWithExits:
    """Collates rows as `grids` does; rows with `uncertainty` draw exits.

    The batch then has `exit_layers` `(rows, longest)` for the model and `exits` `(words,)` for the loss. Draws follow
    torch's seed, so that a resumed run draws what it would have drawn.
    """

    padding: int
    layers: tuple[int, ...]
    ranges: ExitRanges

    def __call__(self, rows: TrainingRows) -> dict[str, Tensor]:
        batch = grids(rows, padding=self.padding)
        if "exits" not in batch and "uncertainty" in batch:
            rng = np.random.default_rng(int(torch.randint(2**31, ())))
            windows, thresholds = self.ranges.draw(len(rows), self.layers, rng)
            drawn = exit_numbers(batch.pop("uncertainty").numpy(), rows.units.row_of, windows, thresholds)
            batch["exits"] = torch.from_numpy(drawn)
        if "exits" in batch:
            batch["exit_layers"] = exit_grid(rows.units, batch["exits"].numpy(), self.layers)
        return batch


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
    """Train on and write a multi-exit tagger of the same form; the report also stands in `training.json`.

    `run` is for `TAGGING`, from a folder that `cascade-train exits` wrote. The mean of full depth and of the exits that
    the first stage would take with the middle window and threshold chooses the best epoch, in entity F1 for labels of
    spans, else in accuracy.
    """
    options, task = options or SelfSampleOptions(), run.task
    run.begin(options.loop)
    model = MultiExitTagger.from_pretrained(run.source)
    weights = exit_weights(options.weights, len(model.layers))
    text = task.tokenizer(load_tokenizer_text(run.source))
    tokenizer = tokenizer_of(text, max_length=min(options.max_length, model.longest))
    (examples,), held_out = run.read()
    crops = cropped(examples, copies=options.crops, seed=options.loop.seed)
    rows = task.encode(tokenizer, crops, model.labels)
    digests = (rows.digest(), model.digest())
    unsure = run.kept("unsure", digests, lambda: over_units(model, rows, read=_uncertainty), resume=options.loop.resume)
    eval_rows = None if held_out is None else task.encode(tokenizer, held_out, model.labels)
    scores = run_loop(
        model,
        rows.with_target("uncertainty", unsure),
        None if eval_rows is None else _twice(model, eval_rows, options.ranges),
        loss=_loss(weights),
        metrics=_ExitMetrics.of(model, model.layers),
        output=run.folder,
        collate=PadWithExits(model.padding, model.layers, options.ranges),
        options=options.loop,
    )
    details = {"rows": len(examples), "scores": scores}
    return run.finish("self-sample", model, text, options, max_length=tokenizer.max_length, details=details)


def _uncertainty(logits: Tensor) -> Tensor:
    """Normalised entropy. Shape `(words, exits, labels)` -> `(words, exits)`."""
    log = F.log_softmax(logits, dim=-1)
    entropy: Tensor = -(log.exp() * log).sum(-1) / np.log(logits.shape[-1])
    return entropy


def _loss(weights: tuple[float, ...]) -> Loss:
    """Weighted mean over all words and exits, a word counting at its own exit and those before it."""

    def loss(logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        losses = cross_entropies(unit_logits(logits, batch), batch["labels"])
        counted = losses.new_tensor(weights).expand_as(losses)
        if "exits" in batch:
            counted = counted * (torch.arange(len(weights), device=losses.device) <= batch["exits"].unsqueeze(1))
        return (losses * counted).sum() / counted.sum().clamp_min(1e-9)

    return loss


def _twice(model: MultiExitTagger, rows: TrainingRows, ranges: ExitRanges) -> TrainingRows:
    """Rows for full depth and once more for exits in the middle of the ranges."""
    uncertainty = over_units(model, rows, read=_uncertainty)
    window = sorted(ranges.windows)[len(ranges.windows) // 2]
    threshold = ranges.per_exit(sorted(ranges.thresholds)[len(ranges.thresholds) // 2], model.layers)
    early = exit_numbers(
        uncertainty,
        rows.units.row_of,
        np.full(len(rows), window),
        np.broadcast_to(threshold, (len(rows), len(threshold))),
    )
    both = TrainingRows.joined([rows, rows])
    exits = np.concatenate((np.full(len(early), len(model.layers) - 1), early))
    return both.with_target("exits", exits)


class _ExitMetrics(UnitMetrics):
    """Full depth on the first half of the rows, and the second half at its words' exits."""

    @property
    def best(self) -> str:
        return "chosen_by"

    def __call__(self, answers: Any, rows: TrainingRows) -> dict[str, float]:
        half, words = rows.select(np.arange(len(rows) // 2)), len(answers) // 2
        found = super().__call__(answers[:words], half)
        own, wanted, layers = rows.targets["exits"][words:], half.targets["labels"], np.array(self.layers)
        taken = answers[words:][np.arange(words), own]
        found[TOKEN_EXIT] = float((taken == wanted).mean())
        found[f"{TOKEN_EXIT}_depth"] = float(layers[own].mean() / layers[-1])
        pair = (found[f"layer_{layers[-1]}"], found[TOKEN_EXIT])
        if self.spans:
            found[f"{TOKEN_EXIT}_f1"] = tag_f1(taken, wanted, self.labels, half.units.offsets[1:-1])
            pair = (found[ENTITY_F1], found[f"{TOKEN_EXIT}_f1"])
        return found | {"chosen_by": sum(pair) / 2}

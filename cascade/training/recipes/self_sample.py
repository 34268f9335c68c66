"""`cascade-train self-sample`: a multi-exit tagger learns to live with words that stop early (TOKEE, second stage).

In the first stage every word went through all layers; a runtime with token exits shows later layers the last states of
words that have left. Here the forward pass does so too: exits are drawn (`sampling`), what has left keeps its state
after the layer's own LayerNorm (the authors' `keep_norm_same=0`; their published command re-normalises the state in
every later layer instead, which a runtime that copies cannot follow), and a word teaches only the exits up to its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import EvalPrediction, set_seed

from cascade.core.checks import check_whole
from cascade.core.rows import FloatArray, IntArray
from cascade.exceptions import OptionError
from cascade.training import checkpoint, tag_data
from cascade.training.data import Rows
from cascade.training.loop import LoopOptions, Loss, run_loop
from cascade.training.models.tagging import MultiExitTagger
from cascade.training.recipes.sampling import ExitRanges, PadWithExits, exit_numbers
from cascade.training.recipes.tag_exits import ENTITY_F1, answers_of_exits, entity_f1, tag_metrics
from cascade.training.recipes.word_pass import over_words, split_words, word_logits
from cascade.training.tag_data import TagColumns
from cascade.training.tag_encoding import NO_LABEL, WordTokenizer, encode

__all__ = ["SelfSampleOptions", "train_self_sample"]

TOKEN_EXIT = "token_exit"  # noqa: S105  # a metric's name, no secret


@dataclass(frozen=True)
class SelfSampleOptions:
    """What a user chooses of the second stage.

    Attributes:
        ranges: windows and thresholds that rows draw from.
        weights: of the exits' losses; rising 1, 2, 3, ... by default.
        flooding: in place of a loss its distance from the first stage's loss for the same word and exit, so that what
            is learned already is not learned by heart.
        crops: random runs of words of each sentence that are trained on too, because tier 2 reads windows.
        max_length: tokens per row at most, in training; longer sentences are cut between words.
    """

    ranges: ExitRanges = field(default_factory=ExitRanges)
    weights: tuple[float, ...] | None = None
    flooding: bool = False
    crops: int = 0
    max_length: int = 128
    loop: LoopOptions = field(default_factory=lambda: LoopOptions(epochs=3, learning_rate=1e-5, head_factor=10.0))

    def __post_init__(self) -> None:
        if self.weights is not None and (min(self.weights, default=0) < 0 or sum(self.weights) <= 0):
            raise OptionError(f"layer weights must not be negative and not all zero, were: {self.weights}")
        check_whole("crops", self.crops, "0 trains on whole sentences only", least=0)


def train_self_sample(
    source: str | Path,
    *,
    train: Sequence[str | Path],
    evaluation: str | Path | None,
    output: str | Path,
    options: SelfSampleOptions | None = None,
    columns: TagColumns | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Train on and write a multi-exit tagger of the same form.

    Args:
        source: a folder that `cascade-train exits --task tagging` wrote.
        train: files of tagged sentences or `datasets` names.
        evaluation: a file of tagged sentences. The mean of full depth and of exits that the first stage would take
            with the middle window and threshold chooses the best epoch, in entity F1 for labels of spans, else in
            accuracy.
        output: folder to write.
        options: everything about the training; `SelfSampleOptions()` by default.
        columns: names of the files' columns.
        overwrite: write into a folder that is not empty.

    Returns:
        the report that also stands in `training.json`.
    """
    options = options or SelfSampleOptions()
    started = time.monotonic()
    run_folder = checkpoint.claim(Path(output), overwrite=overwrite, resume=options.loop.resume)
    set_seed(options.loop.seed)
    model = MultiExitTagger.from_pretrained(source)
    if options.weights is not None and len(options.weights) != len(model.layers):
        raise OptionError(f"layer weights must be one per exit, {len(model.layers)}, were: {len(options.weights)}")
    tokenizer = WordTokenizer(checkpoint.load_tokenizer_text(source))
    length = min(options.max_length, model.longest)
    sentences = tag_data.joined([tag_data.read(path, columns=columns) for path in train])
    rows = encode(
        tokenizer,
        tag_data.cropped(sentences, copies=options.crops, seed=options.loop.seed),
        model.labels,
        max_length=length,
    )
    held_out = tag_data.read(evaluation, columns=columns) if evaluation is not None else None
    first_stage = _first_stage(model, rows, cache=run_folder / "first_stage.npy", resume=options.loop.resume)
    sure, losses = (split_words(first_stage[:, part], rows) for part in (0, 1))
    eval_rows, exits = None, np.zeros(0, dtype=np.int64)
    if held_out is not None:
        eval_rows = encode(tokenizer, held_out, model.labels, max_length=length)
        eval_rows, exits = _twice(model, eval_rows, options.ranges)
    padding = model.config.pad_token_id or 0
    scores = run_loop(
        model,
        train=Rows(
            ids=rows.ids,
            targets=rows.targets | {"uncertainty": sure} | ({"first_losses": losses} if options.flooding else {}),
        ),
        evaluation=eval_rows,
        loss=_loss(options),
        metrics=_metrics(model, exits),
        best="chosen_by",
        output=run_folder,
        padding=padding,
        options=options.loop,
        is_head=lambda name: name.startswith("heads."),
        collate=PadWithExits(padding, len(tokenizer.suffix), model.layers, options.ranges),
        answers=answers_of_exits,
    )
    report = {
        "command": "cascade-train self-sample",
        "source": str(Path(source).name),
        "train": [Path(path).name for path in train],
        "rows": len(sentences),
        "evaluation": Path(evaluation).name if evaluation is not None else None,
        "options": asdict(options.loop)
        | asdict(options.ranges)
        | {"weights": options.weights, "flooding": options.flooding, "crops": options.crops, "max_length": length},
        "scores": scores,
        "seconds": round(time.monotonic() - started, 1),
    }
    checkpoint.publish(Path(output), save=model.save_pretrained, tokenizer=tokenizer.text, source=source, report=report)
    return report


def _first_stage(model: MultiExitTagger, rows: Rows, *, cache: Path, resume: bool) -> FloatArray:
    """Normalised entropy and loss of every word at every exit. Shape `(words, 2, exits)`; kept on disk."""
    words = sum(int(firsts.sum()) for firsts in rows.targets["firsts"])
    if resume and cache.exists() and len(known := np.load(cache)) == words:
        return np.asarray(known, dtype=np.float32)
    found = over_words(model, rows, read=_uncertainty_and_loss)
    cache.parent.mkdir(parents=True, exist_ok=True)
    np.save(cache, found)
    return found


def _uncertainty_and_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Shapes `(words, exits, labels)`, `(words,)` -> `(words, 2, exits)`."""
    log = F.log_softmax(logits, dim=-1)
    entropy = -(log.exp() * log).sum(-1) / np.log(logits.shape[-1])
    return torch.stack((entropy, _losses(logits, labels)), dim=1)


def _losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of every word at every exit. Shapes `(words, exits, labels)`, `(words,)` -> `(words, exits)`."""
    exits = logits.shape[1]
    flat = F.cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(exits), reduction="none")
    return flat.view(-1, exits)


def _loss(options: SelfSampleOptions) -> Loss:
    """Weighted mean over all words and exits, a word counting at its own exit and those before it."""

    def loss(logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        losses = _losses(word_logits(logits, batch["firsts"]), batch["labels"][batch["firsts"]])
        if "first_losses" in batch:
            losses = (losses - batch["first_losses"]).abs()
        exits = losses.shape[1]
        weights = losses.new_tensor(options.weights or range(1, exits + 1)).expand_as(losses)
        if "exits" in batch:
            weights = weights * (torch.arange(exits) <= batch["exits"].unsqueeze(1))
        return (losses * weights).sum() / weights.sum().clamp_min(1e-9)

    return loss


def _twice(model: MultiExitTagger, rows: Rows, ranges: ExitRanges) -> tuple[Rows, IntArray]:
    """Rows for full depth and once more for exits in the middle of the ranges; the exits of the words of both."""
    uncertainty = over_words(model, rows, read=_uncertainty_and_loss)[:, 0]
    of_row = np.repeat(np.arange(len(rows)), [int(firsts.sum()) for firsts in rows.targets["firsts"]])
    window = sorted(ranges.windows)[len(ranges.windows) // 2]
    threshold = ranges.per_exit(sorted(ranges.thresholds)[len(ranges.thresholds) // 2], model.layers)
    early = exit_numbers(
        uncertainty, of_row, np.full(len(rows), window), np.broadcast_to(threshold, (len(rows), len(threshold)))
    )
    exits = np.concatenate((np.full(len(early), len(model.layers) - 1), early))
    ids = [*rows.ids, *rows.ids]
    targets = {name: [*values, *values] for name, values in rows.targets.items()}
    doubled = Rows(ids=ids, targets=targets)
    return Rows(ids=ids, targets=targets | {"exits": split_words(exits, doubled)}), exits


def _metrics(model: MultiExitTagger, exits: IntArray) -> Callable[[EvalPrediction], dict[str, float]]:
    """What `tag_metrics` says of full depth, and the scores of the second half of the rows at their words' exits."""
    at_full_depth = tag_metrics(model.layers, model.labels)
    spans = tag_data.has_entities(model.labels)
    last = f"layer_{model.layers[-1]}"

    def metrics(prediction: EvalPrediction) -> dict[str, float]:
        answers, wanted = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
        half = len(wanted) // 2
        found = at_full_depth(EvalPrediction(predictions=answers[:half], label_ids=wanted[:half]))
        known = wanted[half:] != NO_LABEL
        own = exits[len(exits) // 2 :]
        taken = np.full(known.shape, NO_LABEL)
        taken[known] = np.take_along_axis(answers[half:][known], own[:, None], axis=1)[:, 0]
        found[TOKEN_EXIT] = float((taken[known] == wanted[half:][known]).mean())
        found[f"{TOKEN_EXIT}_depth"] = float(np.array(model.layers)[own].mean() / model.layers[-1])
        pair = (found[last], found[TOKEN_EXIT])
        if spans:
            found[f"{TOKEN_EXIT}_f1"] = entity_f1(taken, wanted[half:], model.labels)
            pair = (found[ENTITY_F1], found[f"{TOKEN_EXIT}_f1"])
        return found | {"chosen_by": sum(pair) / 2}

    return metrics

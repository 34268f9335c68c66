"""`cascade-train exits`: a BERT-family checkpoint becomes a multi-exit model for a labelled file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from transformers import EvalPrediction, set_seed

from cascade.exceptions import DataError, OptionError
from cascade.training import checkpoint, data, vocabulary
from cascade.training.loop import LoopOptions, run_loop
from cascade.training.models.multi_exit import MULTI_LABEL, MultiExitModel
from cascade.training.recipes.objectives import Joint, Objective

__all__ = ["ExitsOptions", "train_exits"]


@dataclass(frozen=True)
class ExitsOptions:
    """What a user chooses of a multi-exit model.

    Attributes:
        objectives: run one after the other; `(LastExit(), EarlierExits())` is two-stage training.
        layers: after which layers exits lie; all by default.
        pooling: `mean` or `first`; by default what the checkpoint has, else `mean`.
        max_length: tokens per row at most, in training.
        vocabulary: pieces to keep of a WordPiece vocabulary; all by default.
        multi_label: several labels per row, a sigmoid each; a checkpoint that says it is for these needs no asking.
        min_words: rows of fewer words are left out of training.
        dropout: in the backbone; the checkpoint's by default.
    """

    objectives: tuple[Objective, ...] = (Joint(),)
    layers: tuple[int, ...] | None = None
    pooling: str | None = None
    max_length: int = 128
    vocabulary: int | None = None
    multi_label: bool = False
    min_words: int = 0
    dropout: float | None = None
    loop: LoopOptions = field(default_factory=LoopOptions)


def train_exits(
    source: str | Path,
    *,
    train: Sequence[str | Path],
    evaluation: str | Path | None,
    output: str | Path,
    options: ExitsOptions | None = None,
    columns: data.Columns | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Train and write a multi-exit model.

    Args:
        source: a pre-trained, fine-tuned or multi-exit checkpoint: a folder or a Hub id.
        train: labelled files or `datasets` names; without labels only for `Distilled`.
        evaluation: a labelled file; its last exit's accuracy chooses the best epoch.
        output: folder to write.
        options: everything about the model and its training; `ExitsOptions()` by default.
        columns: names of the files' columns.
        overwrite: write into a folder that is not empty.

    Returns:
        the report that also stands in `training.json`.

    Raises:
        DataError, OptionError: with rule, value and remedy.
    """
    options = options or ExitsOptions()
    started = time.monotonic()
    run_folder = checkpoint.claim(Path(output), overwrite=overwrite, resume=options.loop.resume)
    set_seed(options.loop.seed)
    needs_labels = any(objective.needs_labels for objective in options.objectives)
    examples = _joined([data.read(path, columns=columns, require_labels=needs_labels) for path in train])
    examples = _long_enough(examples, options.min_words)
    held_out = data.read(evaluation, columns=columns) if evaluation is not None else None
    named = examples if examples.labels is not None else held_out
    names = data.label_names(named) if named is not None else []
    if options.multi_label and named is not None:
        _refuse_joined(named)
    model = MultiExitModel.from_checkpoint(
        source,
        labels=names,
        layers=options.layers,
        pooling=options.pooling,
        multi_label=options.multi_label,
        dropout=options.dropout,
    )
    multi_label = model.config.problem_type == MULTI_LABEL
    tokenizer_text = checkpoint.load_tokenizer_text(source)
    if options.vocabulary is not None:
        texts = [text if isinstance(text, str) else " ".join(text) for text in examples.texts]
        tokenizer_text = vocabulary.prune_model(model, tokenizer_text, texts, size=options.vocabulary)
    tokenizer = checkpoint.tokenizer_from_text(tokenizer_text)
    length = min(options.max_length, model.longest)
    rows = data.encode(tokenizer, examples, model.labels, multi_label=multi_label, max_length=length)
    eval_rows = None
    if held_out is not None:
        eval_rows = data.encode(tokenizer, held_out, model.labels, multi_label=multi_label, max_length=length)

    scores: dict[str, float] = {}
    for stage, objective in enumerate(options.objectives):
        model.learn(detach=objective.detach, frozen=objective.frozen_backbone)
        scores = run_loop(
            model,
            train=rows,
            evaluation=eval_rows,
            loss=_loss(objective, multi_label),
            metrics=_metrics(model.layers, multi_label),
            best="mean_of_exits" if objective.frozen_backbone else f"layer_{model.layers[-1]}",
            output=run_folder / f"stage_{stage}",
            padding=model.config.pad_token_id or 0,
            options=options.loop,
            is_head=_is_head,
        )
    report = {
        "command": "cascade-train exits",
        "source": str(Path(source).name),
        "train": [Path(path).name for path in train],
        "rows": len(examples),
        "evaluation": Path(evaluation).name if evaluation is not None else None,
        "objectives": [repr(objective) for objective in options.objectives],
        "options": asdict(options.loop)
        | {"vocabulary": options.vocabulary, "min_words": options.min_words, "dropout": options.dropout},
        "scores": scores,
        "seconds": round(time.monotonic() - started, 1),
    }
    checkpoint.publish(Path(output), save=model.save_pretrained, tokenizer=tokenizer_text, source=source, report=report)
    return report


def _joined(parts: Sequence[data.Examples]) -> data.Examples:
    labelled = all(part.labels is not None for part in parts)
    return data.Examples(
        texts=[text for part in parts for text in part.texts],
        labels=[label for part in parts for label in part.labels or ()] if labelled else None,
        source=", ".join(part.source for part in parts),
    )


def _refuse_joined(examples: data.Examples) -> None:
    """Refuse several labels in one string, as a csv has them: each combination would become a label of its own."""
    labels = examples.labels or ()
    joined = next((label for label in labels if isinstance(label, str) and "," in label), None)
    if joined is not None and all(isinstance(label, str) for label in labels):
        raise DataError(
            f"{examples.source}: several labels of a row must be a list of names, was one string: {joined!r}; "
            'write jsonl with "label": ["a", "b"]'
        )


def _long_enough(examples: data.Examples, words: int) -> data.Examples:
    """Only the examples of at least so many words."""
    if words <= 1:
        return examples
    kept = [
        position
        for position, text in enumerate(examples.texts)
        if len((text if isinstance(text, str) else " ".join(text)).split()) >= words
    ]
    if not kept:
        raise OptionError(f"--min-words {words} leaves no training row; lower it")
    return data.Examples(
        texts=[examples.texts[position] for position in kept],
        labels=[examples.labels[position] for position in kept] if examples.labels is not None else None,
        source=examples.source,
    )


def _loss(objective: Objective, multi_label: bool) -> Any:
    def loss(logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        return objective(logits, batch.get("labels"), multi_label)

    return loss


def _metrics(layers: Sequence[int], multi_label: bool) -> Any:
    """Accuracy of every exit; for a multi-label head the share of rows whose whole label set is right."""

    def metrics(prediction: EvalPrediction) -> dict[str, float]:
        logits, labels = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
        if multi_label:
            right = ((logits > 0) == (labels[:, None] > 0.5)).all(-1)
        else:
            right = logits.argmax(-1) == labels[:, None]
        scores = right.mean(0)
        return {f"layer_{layer}": float(score) for layer, score in zip(layers, scores, strict=True)} | {
            "mean_of_exits": float(scores.mean())
        }

    return metrics


def _is_head(name: str) -> bool:
    return name.startswith("heads.")

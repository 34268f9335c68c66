"""`cascade-train exits --task tagging`: a BERT-family checkpoint becomes a multi-exit tagger for a tagged file.

Words are the rows of every loss: the objectives for classification serve unchanged.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from transformers import EvalPrediction, set_seed

from cascade.exceptions import MissingExtraError, OptionError
from cascade.training import checkpoint, tag_data, vocabulary
from cascade.training.loop import LoopOptions, Loss, run_loop
from cascade.training.models.tagging import MultiExitTagger
from cascade.training.recipes.objectives import Joint, Objective
from cascade.training.recipes.word_pass import word_logits
from cascade.training.tag_data import Sentences, TagColumns
from cascade.training.tag_encoding import NO_LABEL, PadTags, WordTokenizer, encode

__all__ = [
    "ENTITY_F1",
    "TagExitsOptions",
    "answers_of_exits",
    "best_metric",
    "entity_f1",
    "require_seqeval",
    "tag_metrics",
    "train_tag_exits",
]

ENTITY_F1 = "entity_f1"


@dataclass(frozen=True)
class TagExitsOptions:
    """What a user chooses of a multi-exit tagger.

    Attributes:
        objectives: run one after the other; `(LastExit(), EarlierExits())` is two-stage training.
        layers: after which layers exits lie; all by default.
        max_length: tokens per row at most, in training; longer sentences are cut between words.
        vocabulary: pieces to keep of a WordPiece vocabulary; all by default.
        min_words: sentences of fewer words are left out of training.
        dropout: in the backbone; the checkpoint's by default.
    """

    objectives: tuple[Objective, ...] = (Joint(),)
    layers: tuple[int, ...] | None = None
    max_length: int = 128
    vocabulary: int | None = None
    min_words: int = 0
    dropout: float | None = None
    loop: LoopOptions = field(default_factory=LoopOptions)


def train_tag_exits(
    source: str | Path,
    *,
    train: Sequence[str | Path],
    evaluation: str | Path | None,
    output: str | Path,
    options: TagExitsOptions | None = None,
    columns: TagColumns | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Train and write a multi-exit tagger.

    Args:
        source: a pre-trained, fine-tuned or multi-exit checkpoint: a folder or a Hub id.
        train: files of tagged sentences or `datasets` names; without tags only for `Distilled`.
        evaluation: a file of tagged sentences; the last exit's entity F1 where the labels are those of spans, else
            its accuracy, chooses the best epoch.
        output: folder to write.
        options: everything about the model and its training; `TagExitsOptions()` by default.
        columns: names of the files' columns.
        overwrite: write into a folder that is not empty.

    Returns:
        the report that also stands in `training.json`.

    Raises:
        DataError, OptionError: with rule, value and remedy.
    """
    options = options or TagExitsOptions()
    started = time.monotonic()
    run_folder = checkpoint.claim(Path(output), overwrite=overwrite, resume=options.loop.resume)
    set_seed(options.loop.seed)
    needs_tags = any(objective.needs_labels for objective in options.objectives)
    sentences = tag_data.joined([tag_data.read(path, columns=columns, require_tags=needs_tags) for path in train])
    sentences = _long_enough(sentences, options.min_words)
    held_out = tag_data.read(evaluation, columns=columns) if evaluation is not None else None
    named = sentences if sentences.tags is not None else held_out
    names = tag_data.label_names(named) if named is not None else []

    model = MultiExitTagger.from_checkpoint(source, labels=names, layers=options.layers, dropout=options.dropout)
    text = checkpoint.load_tokenizer_text(source)
    if options.vocabulary is not None:
        texts = [" ".join(words) for words in sentences.words]
        text = vocabulary.prune_model(model, text, texts, size=options.vocabulary)
    tokenizer = WordTokenizer(text)
    length = min(options.max_length, model.longest)
    rows = encode(tokenizer, sentences, model.labels, max_length=length)
    eval_rows = None
    if held_out is not None:
        eval_rows = encode(tokenizer, held_out, model.labels, max_length=length)

    scores: dict[str, float] = {}
    padding = model.config.pad_token_id or 0
    for stage, objective in enumerate(options.objectives):
        model.learn(detach=objective.detach, frozen=objective.frozen_backbone)
        scores = run_loop(
            model,
            train=rows,
            evaluation=eval_rows,
            loss=_loss(objective),
            metrics=tag_metrics(model.layers, model.labels),
            best="mean_of_exits" if objective.frozen_backbone else best_metric(model),
            output=run_folder / f"stage_{stage}",
            padding=padding,
            options=options.loop,
            is_head=_is_head,
            collate=PadTags(padding),
            answers=answers_of_exits,
        )
    report = {
        "command": "cascade-train exits --task tagging",
        "source": str(Path(source).name),
        "train": [Path(path).name for path in train],
        "rows": len(sentences),
        "words": sum(map(len, sentences.words)),
        "evaluation": Path(evaluation).name if evaluation is not None else None,
        "objectives": [repr(objective) for objective in options.objectives],
        "options": asdict(options.loop)
        | {
            "vocabulary": options.vocabulary,
            "min_words": options.min_words,
            "max_length": length,
            "dropout": options.dropout,
        },
        "scores": scores,
        "seconds": round(time.monotonic() - started, 1),
    }
    checkpoint.publish(Path(output), save=model.save_pretrained, tokenizer=tokenizer.text, source=source, report=report)
    return report


def best_metric(model: MultiExitTagger) -> str:
    """Which metric chooses the epoch: the last exit's entity F1 for labels of spans, else its accuracy."""
    return ENTITY_F1 if tag_data.has_entities(model.labels) else f"layer_{model.layers[-1]}"


def answers_of_exits(logits: Tensor, _labels: Tensor) -> Tensor:
    """Every token's answer at every exit. Shape `(rows, exits, longest, labels)` -> `(rows, longest, exits)`."""
    return logits.argmax(-1).transpose(1, 2)


def tag_metrics(layers: Sequence[int], labels: Sequence[str]) -> Callable[[EvalPrediction], dict[str, float]]:
    """Word accuracy of every exit; for labels of spans also the entity F1 of the last one (seqeval, CoNLL's rule)."""
    spans = tag_data.has_entities(labels)
    if spans:
        require_seqeval()

    def metrics(prediction: EvalPrediction) -> dict[str, float]:
        answers, wanted = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
        known = wanted != NO_LABEL
        scores = (answers[known] == wanted[known][:, None]).mean(0)
        found = {f"layer_{layer}": float(score) for layer, score in zip(layers, scores, strict=True)} | {
            "mean_of_exits": float(scores.mean())
        }
        if spans:
            found[ENTITY_F1] = entity_f1(answers[:, :, -1], wanted, labels)
        return found

    return metrics


def entity_f1(answers: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any], labels: Sequence[str]) -> float:
    """F1 of whole entities. Shapes `(rows, longest)` twice; a sentence that was cut counts as several."""
    from seqeval.metrics import f1_score

    names = np.array(labels)
    words = wanted != NO_LABEL
    right = [names[own[places]].tolist() for own, places in zip(wanted, words, strict=True)]
    given = [names[own[places]].tolist() for own, places in zip(answers, words, strict=True)]
    return float(f1_score(right, given, zero_division=0))


def require_seqeval() -> None:
    """Say that a missing seqeval is missing before anything is trained.

    Raises:
        MissingExtraError: it is.
    """
    try:
        import seqeval.metrics  # noqa: F401  # whether it is there
    except ImportError:
        raise MissingExtraError(
            "the entity F1 of B- and I- labels needs seqeval, which is not installed; "
            'pip install "cascade-encoder[train]"'
        ) from None


def _loss(objective: Objective) -> Loss:
    """The objective over first pieces."""

    def loss(logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        labels: Tensor | None = batch["labels"][batch["firsts"]]
        if labels is not None and bool((labels == NO_LABEL).any()):
            labels = None
        return objective(word_logits(logits, batch["firsts"]), labels, False)

    return loss


def _long_enough(sentences: Sentences, words: int) -> Sentences:
    """Only the sentences of at least so many words."""
    kept = [position for position, own in enumerate(sentences.words) if len(own) >= words]
    if not kept:
        raise OptionError(f"--min-words {words} leaves no training sentence; lower it")
    return Sentences(
        words=[sentences.words[position] for position in kept],
        tags=[sentences.tags[position] for position in kept] if sentences.tags is not None else None,
        source=sentences.source,
    )


def _is_head(name: str) -> bool:
    return name.startswith("heads.")

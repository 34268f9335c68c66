"""`cascade-train exits`: a BERT-family checkpoint becomes a multi-exit model for labelled texts or tagged sentences."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from cascade.core.checks import check_share
from cascade.core.confidence import probabilities
from cascade.exceptions import DataError, OptionError
from cascade.training.augmentation import varied
from cascade.training.checkpoint import keep_rows, load_tokenizer_text, prune_model
from cascade.training.data import Examples, TrainingRows, label_names, tokenizer_of
from cascade.training.loop import LoopOptions, Loss, run_loop
from cascade.training.models.multi_exit import adapt, freeze_all_but_adapters, merge
from cascade.training.recipes.objectives import Objective
from cascade.training.recipes.recorded import train_recorded
from cascade.training.run import Run, answers_of, full_depth, mixed
from cascade.training.task import TAGGING
from cascade.training.units import UnitMetrics, answered, unit_logits


@dataclass(frozen=True)
class ExitsOptions:
    """What a user chooses of a multi-exit model.

    Attributes:
        objectives: run one after the other; `OBJECTIVES` has those of the command.
        layers: after which layers exits lie; all by default.
        pooling: of a classifier, mean or first; by default what the checkpoint has, else `mean`. The last exit of
            a fine-tuned checkpoint reads what it always read.
        max_length: tokens per row at most, in training; longer sentences of words are cut between words.
        vocabulary: pieces to keep of a WordPiece vocabulary; of others embeddings, with the tokenizer as it is, all
            in the files among them. All by default.
        multi_label: of a classifier, several labels per text, a sigmoid each; in jsonl or parquet ["a", "c"], [] for
            none, in a csv with --label-separator. A checkpoint whose problem_type says so needs no asking, and also
            takes a 0 or 1 for each of its labels, [1, 0, 1].
        dropout: in the backbone; the checkpoint's by default. 0 is faster on a CPU.
        copies: unlabelled rows made from each training row where these have no labels either; none by default.
        recorded: on a frozen backbone record what the heads read once, and train them on that; nothing is evaluated.
        adapter: only adapters (lora or ia3) in the layers, merged at the end, and the heads learn; needs peft, and
            larger learning rates.
        rank: of lora.
        frozen_layers: so many of the lowest layers, and the embeddings, keep their weights: gradients stop above them.
        imitation: with answers of a bundle, the share in [0, 1] of what labelled rows teach that is its answer; the
            rest is the label. Rows without labels teach its answer alone; at 0 it is asked of no others.
    """

    objectives: tuple[Objective, ...] = (Objective(),)
    layers: tuple[int, ...] | None = None
    pooling: str | None = None
    max_length: int = 128
    vocabulary: int | None = None
    multi_label: bool = False
    dropout: float | None = None
    copies: int = 0
    recorded: bool = False
    adapter: str | None = None
    rank: int = 8
    frozen_layers: int = 0
    imitation: float = 0.7
    loop: LoopOptions = field(default_factory=LoopOptions)

    def __post_init__(self) -> None:
        check_share("imitation", self.imitation, "0.7 is usual")
        if self.adapter is not None and all(objective.frozen for objective in self.objectives):
            raise OptionError(f"--adapter must be left out where the backbone is frozen, got {self.adapter}")


def train_exits(run: Run, options: ExitsOptions | None = None) -> dict[str, Any]:
    """Train and write a multi-exit model; the report also stands in `training.json`.

    Args:
        run: from a pre-trained, fine-tuned or multi-exit checkpoint. Where it has a head, files need no labels: exits
            learn, and are measured by, what it answers before the training. The last exit's accuracy, for tags of spans
            its entity F1, chooses the best epoch. More texts without labels need a bundle that answers.
        options: everything about the model and its training; `ExitsOptions()` by default.

    Raises:
        DataError, OptionError: with rule, value and remedy.
    """
    options, task = options or ExitsOptions(), run.task
    _check(run, options)
    run.begin(options.loop)
    teacher = None if run.answers is None else full_depth(run.answers)
    known = teacher is not None or task.model.answers(run.source)
    needed = not all(objective.imitate for objective in options.objectives)
    parts, held_out = run.read(require_labels=needed and not known, known=known)
    examples, named = parts[0], parts[0] if parts[0].labels is not None else held_out
    items = [item for part in parts for item in part.items]
    if known and needed and examples.labels is None:
        run.tell(f"not every {task.item} has labels; what is learned is the checkpoint's answers alone")
    if options.multi_label and named is not None:
        _refuse_one_string(named)
    model = task.model.from_checkpoint(
        run.source,
        labels=teacher.labels if teacher is not None else [] if named is None else label_names(named),
        layers=options.layers,
        pooling=options.pooling,
        multi_label=options.multi_label,
        dropout=options.dropout,
    )
    if any(objective.frozen for objective in options.objectives) and len(model.layers) == 1:
        raise OptionError(f"there must be an exit before the last, got exits {model.layers}; give --exits more layers")
    text = task.tokenizer(load_tokenizer_text(run.source))
    wordpiece = json.loads(text)["model"]["type"] == "WordPiece"
    if options.vocabulary is not None and wordpiece:
        text = prune_model(model, text, Examples(items, None, "").texts, size=options.vocabulary)
    tokenizer = tokenizer_of(text, max_length=min(options.max_length, model.longest))
    encode = partial(task.encode, tokenizer, names=model.labels, multi_label=model.multi_label)
    rows = TrainingRows.joined([encode(part) for part in parts])
    paired = any(isinstance(item, tuple) for item in items)
    if options.copies and examples.labels is None and not paired and teacher is None:
        limit = None if task.tags else tokenizer.max_length
        new = varied(rows, model, options.copies, seed=options.loop.seed, max_length=limit)
        rows = TrainingRows.joined([rows, new])
    eval_rows = None if held_out is None else answered(encode(held_out), model)
    if teacher is not None:
        asked = {"resume": options.loop.resume, "labelled": options.imitation > 0}
        found = answers_of(teacher, parts, model.labels, run=run, **asked)
        rows = rows.with_target("answers", mixed(found, rows.targets["labels"], options.imitation))
        teacher.close()
    elif needed and examples.labels is None:
        said = probabilities(run.said(model, rows, resume=options.loop.resume), multi_label=model.multi_label)
        number = said.shape[1] == 1 and not model.multi_label
        rows = rows.with_target("answers", said[:, 0] if number else said)
    if options.vocabulary is not None and not wordpiece:
        read = [part.units.rows.ids for part in (rows, eval_rows) if part is not None]
        keep_rows(model, np.concatenate(read), size=options.vocabulary, unknown=tokenizer.unknown)
    scores = _trained(model, rows, eval_rows, run=run, options=options)
    details = {"rows": len(rows), "units": len(rows.units), "scores": scores}
    return run.finish("exits", model, text, options, max_length=tokenizer.max_length, details=details)


def _trained(
    model: Any, rows: TrainingRows, eval_rows: TrainingRows | None, *, run: Run, options: ExitsOptions
) -> dict[str, float]:
    """Train a model in place on each objective in turn; the scores of the last one."""
    scores, told = dict[str, float](), UnitMetrics.of(model, model.layers)
    if options.adapter is not None:
        adapt(model, options.adapter, rank=options.rank)
    for stage, objective in enumerate(options.objectives):
        common: Any = {"output": run.folder / f"stage_{stage}", "options": options.loop, "progress": run.progress}
        frozen = objective.frozen
        model.configure_training(detach=objective.detach, frozen=frozen, frozen_layers=options.frozen_layers)
        freeze_all_but_adapters(model)
        if options.recorded and frozen:
            train_recorded(model, rows, objective, **common)
        else:
            loss, metrics = _loss(objective, multi_label=model.multi_label), replace(told, frozen=frozen)
            scores = run_loop(model, rows, eval_rows, loss=loss, metrics=metrics, **common)
    if options.adapter is not None:
        merge(model)
    return scores


def _check(run: Run, options: ExitsOptions) -> None:
    """Refuse options that another one asks for, or rules out."""
    for name, value in (("pooling", options.pooling), ("multi-label", options.multi_label)):
        if run.task is TAGGING and value:
            raise OptionError(f"--{name} must be left out of --task tagging, got {value}; a word has one tag")
    if run.extra_text and run.answers is None:
        raise OptionError(f"--extra-text must come with --answers, the bundle that labels it, got {run.extra_text[0]}")


def _refuse_one_string(examples: Examples) -> None:
    """Refuse data without a single list, as a csv has them: each combination would become a label of its own."""
    labels = examples.labels or ()
    if labels and all(isinstance(label, str) for label in labels):
        raise DataError(
            f"{examples.source}: several labels of a text must be a list of names, got strings alone, such as "
            f'{labels[0]!r}; write jsonl with "label": ["a", "b"], or say with --label-separator what stands between'
        )


def _loss(objective: Objective, *, multi_label: bool) -> Loss:
    def loss(logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        logits, labels = unit_logits(logits, batch), batch["labels"]
        return objective(logits, batch.get("answers", labels), multi_label)

    return loss

"""`cascade-train first-tier`: a small model that imitates a second tier, text by text or word by word."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from cascade.core.checks import check_share, check_whole
from cascade.core.confidence import evidence
from cascade.exceptions import OptionError
from cascade.training.augmentation import varied
from cascade.training.checkpoint import load_tokenizer_text
from cascade.training.data import TrainingRows, has_labels, tokenizer_of
from cascade.training.loop import LoopOptions, Loss, run_loop
from cascade.training.models.students import Student
from cascade.training.models.teacher import WholeModel, teacher_of
from cascade.training.recipes.objectives import divergence, supervised
from cascade.training.run import Run, answers_of, full_depth
from cascade.training.units import UnitMetrics, answered, unit_logits


@dataclass(frozen=True, kw_only=True)
class FirstTierOptions:
    """What a user chooses of a first tier.

    Attributes:
        student: kind and size; a static one by default.
        imitation: share in [0, 1] of the loss that is the divergence from the teacher; the rest is cross-entropy on
            the labels of labelled units.
        temperature: softens both distributions (Hinton et al. 2015, section 2).
        copies: unlabelled rows made from each training row.
        max_length: tokens per row at most, in training; longer sentences of words are cut between words.
    """

    student: Student | None = None
    imitation: float = 0.7
    temperature: float = 2.0
    copies: int = 2
    max_length: int = 128
    loop: LoopOptions = field(default_factory=lambda: LoopOptions(epochs=8, learning_rate=5e-4, head_factor=1.0))

    def __post_init__(self) -> None:
        check_share("imitation", self.imitation, "0.7 is usual")
        if self.temperature <= 0:
            raise OptionError(f"temperature must be above 0, got {self.temperature}")
        check_whole("copies", self.copies, "0 makes no new rows", least=0)


def train_first_tier(run: Run, options: FirstTierOptions | None = None) -> dict[str, Any]:
    """Distil and write a first tier; the report also stands in `training.json`.

    `run` is from the teacher: a folder that `cascade-train exits` wrote, or any fine-tuned checkpoint. Items without
    labels teach, and are measured, by the teacher's answers; where there are `run.answers` these teach, and the teacher
    answers only what is made of the items. The accuracy, for tags of spans the entity F1, chooses the best epoch.
    """
    options, task = options or FirstTierOptions(), run.task
    run.begin(options.loop)
    answering = None if run.answers is None else full_depth(run.answers)
    teacher = teacher_of(run.source, task.model)
    text = task.tokenizer(load_tokenizer_text(run.source))
    tokenizer = tokenizer_of(text, max_length=min(options.max_length, teacher.longest))
    encode = partial(task.encode, tokenizer, names=teacher.labels, multi_label=teacher.multi_label)
    parts, held_out = run.read(require_labels=not options.imitation, known=True)
    if parts[0].labels is None:
        run.tell(f"not every {task.item} has labels; what is learned is the teacher's answers alone")
    encoded = [encode(part) for part in parts]
    eval_rows = None if held_out is None else answered(encode(held_out), teacher)
    rows, new, kind = TrainingRows.joined(encoded), None, options.student or task.student
    paired = any(isinstance(item, tuple) for part in parts for item in part.items)
    pieces, special = kind.pieces(teacher, rows.units.rows.ids), tokenizer.special
    ends = special.suffix.tolist()  # behind the first text of a pair, too
    student = kind.build(teacher, pieces=pieces, separator=ends[0] if paired and ends else None)
    if options.copies and not paired and len(special.prefix) == len(ends) == 1:
        seed, limit = options.loop.seed, None if task.tags else tokenizer.max_length
        new = varied(encoded[0], teacher, options.copies, seed=seed, max_length=limit, pieces=pieces)
    logits, asked = [], [own for own in (rows if answering is None else None, new) if own is not None]
    if answering is not None:  # rows that were made from others are no texts: the teacher itself answers these
        answers = answers_of(answering, parts, teacher.labels, run=run, resume=options.loop.resume)
        answering.close()
        logits.append(evidence(answers, weight=1.0, multi_label=teacher.multi_label))
    if asked:
        both = TrainingRows.joined(asked)
        logits.append(run.said(teacher, both, resume=options.loop.resume, bf16=options.loop.bf16))
    rows = rows if new is None else TrainingRows.joined([rows, new])
    scores = run_loop(
        WholeModel(student, teacher.task),
        rows.with_target("teacher", np.concatenate(logits)),
        eval_rows,
        loss=_loss(options, multi_label=teacher.multi_label),
        metrics=UnitMetrics.of(teacher, None),
        output=run.folder,
        options=options.loop,
        progress=run.progress,
    )
    details, told = {"rows": len(rows), "scores": scores}, replace(options, student=kind)
    return run.finish("first-tier", student, text, told, max_length=tokenizer.max_length, details=details)


def _loss(options: FirstTierOptions, *, multi_label: bool) -> Loss:
    """A share of the divergence from the teacher, which evaluation rows lack, and the rest from the labels."""

    def loss(logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        logits, labels = unit_logits(logits, batch), batch["labels"]
        known = has_labels(labels)
        share = options.imitation if "teacher" in batch else 0.0
        total = logits.new_zeros(())
        if share:
            total = share * divergence(logits, batch["teacher"], multi_label, temperature=options.temperature).sum()
        if share < 1 and bool(known.any()):
            own = supervised(logits[known], labels[known], multi_label)[0]
            total = total + (1 - share) * own * known.sum() / len(logits)
        return total

    return loss

"""`cascade-train first-tier`: a small model that imitates a second tier."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm
from transformers import EvalPrediction, set_seed

from cascade.core.rows import FloatArray
from cascade.training import checkpoint, data
from cascade.training.augmentation import neighbours
from cascade.training.loop import Loss, run_loop
from cascade.training.models.multi_exit import MULTI_LABEL, MultiExitModel
from cascade.training.models.students import Static, Student
from cascade.training.recipes.imitation import Imitation

__all__ = ["FirstTierOptions", "train_first_tier"]

UNLABELLED = -100


@dataclass(frozen=True, kw_only=True)
class FirstTierOptions(Imitation):
    """What a user chooses of a first tier. `student`: kind and size."""

    student: Student = field(default_factory=Static)


def train_first_tier(
    teacher: str | Path,
    *,
    train: Sequence[str | Path],
    evaluation: str | Path | None,
    output: str | Path,
    extra_text: Sequence[str | Path] = (),
    options: FirstTierOptions | None = None,
    columns: data.Columns | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Distil and write a first tier.

    Args:
        teacher: a folder that `cascade-train exits` wrote.
        train: files or `datasets` names; rows without labels teach by the teacher's answers.
        evaluation: a labelled file; its accuracy chooses the best epoch.
        output: folder to write.
        options: everything about the model and its training; `FirstTierOptions()` by default.
        extra_text: files of text without labels, which the teacher labels.
        columns: names of the files' columns.
        overwrite: write into a folder that is not empty.

    Returns:
        the report that also stands in `training.json`.
    """
    options = options or FirstTierOptions()
    started = time.monotonic()
    run_folder = checkpoint.claim(Path(output), overwrite=overwrite, resume=options.loop.resume)
    set_seed(options.loop.seed)
    tier2 = MultiExitModel.from_pretrained(teacher)
    multi_label = _several(tier2)
    text = checkpoint.load_tokenizer_text(teacher)
    tokenizer = checkpoint.tokenizer_from_text(text)

    def encode(source: str | Path, labelled: bool, *, needed: bool = True) -> data.Rows:
        examples = data.read(source, columns=columns, require_labels=labelled and needed)
        if labelled and examples.labels is None:
            tqdm.write(f"{source}: not every row has a label; what is learned is the teacher's answers alone")
        if not labelled:
            examples = data.Examples(texts=examples.texts, labels=None, source=examples.source)
        return data.encode(tokenizer, examples, tier2.labels, multi_label=multi_label, max_length=options.max_length)

    labelled = [encode(source, True, needed=not options.imitation) for source in train]
    unlabelled = [encode(source, False) for source in extra_text]
    eval_rows = encode(evaluation, True) if evaluation is not None else None
    student = options.student.build(tier2)
    rows = _with_teacher(tier2, labelled, unlabelled, options, run_folder)
    student.get_input_embeddings().requires_grad_(not options.freeze_embeddings)
    scores = run_loop(
        student,
        train=rows,
        evaluation=eval_rows,
        loss=_loss(options, multi_label),
        metrics=_metrics(multi_label),
        best="accuracy",
        output=run_folder,
        padding=tier2.config.pad_token_id or 0,
        options=options.loop,
        is_head=lambda _name: False,
    )
    report = {
        "command": "cascade-train first-tier",
        "teacher": Path(teacher).name,
        "train": [Path(path).name for path in train],
        "rows": len(rows),
        "evaluation": Path(evaluation).name if evaluation is not None else None,
        "student": repr(options.student),
        "options": options.reported,
        "scores": scores,
        "seconds": round(time.monotonic() - started, 1),
    }
    checkpoint.publish(Path(output), save=student.save_pretrained, tokenizer=text, source=teacher, report=report)
    return report


def _several(teacher: MultiExitModel) -> bool:
    """Whether a teacher gives several labels."""
    return bool(teacher.config.problem_type == MULTI_LABEL)


def _with_teacher(
    teacher: MultiExitModel,
    labelled: Sequence[data.Rows],
    unlabelled: Sequence[data.Rows],
    options: FirstTierOptions,
    run_folder: Path,
) -> data.Rows:
    """All rows, labelled and not, with the teacher's logits."""
    parts = [*labelled, *unlabelled]
    ids = [list(row) for rows in parts for row in rows.ids]
    types = None
    if any(rows.types is not None for rows in parts):
        types = [list(row) for rows in parts for row in (rows.types or [[0] * len(one) for one in rows.ids])]
    shape, dtype = ((len(teacher.labels),), np.float32) if _several(teacher) else ((), np.int64)
    labels = np.concatenate(
        [rows.targets.get("labels", np.full((len(rows), *shape), UNLABELLED, dtype)) for rows in labelled]
    )
    more: list[list[int]] = []
    if all(rows.types is None for rows in labelled) and options.augmentation.copies:
        embeddings: Any = teacher.backbone.get_input_embeddings()
        table = embeddings.weight.detach().numpy()
        more = options.augmentation(
            ids[: len(labels)],
            similar=neighbours(table),
            max_length=options.max_length,
            rng=np.random.default_rng(options.loop.seed),
        )
    ids += more
    if types is not None:
        types += [[0] * len(row) for row in more]
    labels = np.concatenate([labels, np.full((len(ids) - len(labels), *labels.shape[1:]), UNLABELLED, labels.dtype)])
    logits = options.answers(run_folder, len(ids), lambda: teacher_logits(teacher, data.Rows(ids=ids, types=types)))
    return data.Rows(ids=ids, types=types, targets={"labels": labels, "teacher": logits})


@torch.inference_mode()
def teacher_logits(teacher: MultiExitModel, rows: data.Rows, *, batch_size: int = 64) -> FloatArray:
    """The last exit's logits for every row, in order. Shape `(rows, labels)`."""
    teacher.eval()
    pad = data.Pad(teacher.config.pad_token_id or 0)
    order = np.argsort([len(row) for row in rows.ids], kind="stable")
    logits = np.empty((len(rows), len(teacher.labels)), dtype=np.float32)
    for start in tqdm(range(0, len(order), batch_size), desc="teacher", unit="batch"):
        chosen = order[start : start + batch_size]
        batch = pad([rows[int(row)] for row in chosen])
        logits[chosen] = teacher(**batch)["logits"][:, -1].numpy()
    return logits


def _loss(options: FirstTierOptions, multi_label: bool) -> Loss:
    def loss(logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        labels = batch["labels"]

        def plain() -> Tensor | None:
            known = labels != UNLABELLED if not multi_label else (labels != UNLABELLED).all(-1)
            if not bool(known.any()):
                return None
            if multi_label:
                summed = F.binary_cross_entropy_with_logits(logits[known], labels[known], reduction="sum")
                return summed / labels.shape[1]
            return F.cross_entropy(logits[known], labels[known], reduction="sum")

        return options.loss(logits, batch.get("teacher"), plain, multi_label=multi_label)

    return loss


def _metrics(multi_label: bool) -> Any:
    def metrics(prediction: EvalPrediction) -> dict[str, float]:
        logits, labels = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
        right = ((logits > 0) == (labels > 0.5)).all(-1) if multi_label else logits.argmax(-1) == labels
        return {"accuracy": float(right.mean())}

    return metrics

"""`cascade-train first-tier`: a small model that imitates a second tier.

It leaves to others: the kinds of student (`students`), more text (`augmentation`), the loop (`loop`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm
from transformers import EvalPrediction, set_seed

from cascade.batch import FloatArray
from cascade.exceptions import OptionError
from cascade.training import checkpoint, data
from cascade.training.augmentation import Augmentation, neighbours
from cascade.training.loop import LoopOptions, run_loop
from cascade.training.multi_exit import MultiExitModel
from cascade.training.objectives import divergence
from cascade.training.students import Static, Student

__all__ = ["FirstTierOptions", "train_first_tier"]

UNLABELLED = -100


@dataclass(frozen=True)
class FirstTierOptions:
    """What a user chooses of a first tier.

    Attributes:
        student: kind and size.
        imitation: share in [0, 1] of the loss that is the divergence from the teacher; the rest is cross-entropy on
            the labels of labelled rows.
        temperature: softens both distributions (Hinton et al. 2015, section 2).
        augmentation: unlabelled rows made from the training rows.
        freeze_embeddings: keep the token embeddings as they came from the teacher: a small student with a large table
            learns its training words by heart.
        max_length: tokens per row at most, in training.
    """

    student: Student = field(default_factory=Static)
    imitation: float = 0.7
    temperature: float = 2.0
    augmentation: Augmentation = field(default_factory=Augmentation)
    freeze_embeddings: bool = False
    max_length: int = 128
    loop: LoopOptions = field(default_factory=lambda: LoopOptions(epochs=8, learning_rate=5e-4, head_factor=1.0))

    def __post_init__(self) -> None:
        if not 0 <= self.imitation <= 1:
            raise OptionError(f"imitation must be in [0, 1], was: {self.imitation}")
        if self.temperature <= 0:
            raise OptionError(f"temperature must be above 0, was: {self.temperature}")


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
        train: labelled files or `datasets` names.
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
    multi_label = tier2.config.problem_type == "multi_label_classification"
    text = checkpoint.load_tokenizer_text(teacher)
    tokenizer = checkpoint.tokenizer_from_text(text)

    def encode(source: str | Path, labelled: bool) -> data.Rows:
        examples = data.read(source, columns=columns, require_labels=labelled)
        if not labelled:
            examples = data.Examples(texts=examples.texts, labels=None, source=examples.source)
        return data.encode(tokenizer, examples, tier2.labels, multi_label=multi_label, max_length=options.max_length)

    labelled = [encode(source, True) for source in train]
    unlabelled = [list(ids) for source in extra_text for ids in encode(source, False).ids]
    rows = _with_teacher(tier2, labelled, unlabelled, options, run_folder)
    student = options.student.build(tier2)
    student.get_input_embeddings().requires_grad_(not options.freeze_embeddings)
    scores = run_loop(
        student,
        train=rows,
        evaluation=encode(evaluation, True) if evaluation is not None else None,
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
        "options": asdict(options.loop)
        | {
            "imitation": options.imitation,
            "temperature": options.temperature,
            "freeze_embeddings": options.freeze_embeddings,
            "augmentation": repr(options.augmentation),
        },
        "scores": scores,
        "seconds": round(time.monotonic() - started, 1),
    }
    checkpoint.publish(Path(output), save=student.save_pretrained, tokenizer=text, source=teacher, report=report)
    return report


def _with_teacher(
    teacher: MultiExitModel,
    labelled: Sequence[data.Rows],
    unlabelled: list[list[int]],
    options: FirstTierOptions,
    run_folder: Path,
) -> data.Rows:
    """All rows, labelled and not, with the teacher's logits; kept on disk, so that a resumed run need not wait."""
    ids = [list(row) for rows in labelled for row in rows.ids]
    types = None
    if any(rows.types is not None for rows in labelled):
        types = [list(row) for rows in labelled for row in (rows.types or [[0] * len(one) for one in rows.ids])]
    labels = np.concatenate([rows.targets["labels"] for rows in labelled])
    more = list(unlabelled)
    if types is None and options.augmentation.copies:
        embeddings: Any = teacher.backbone.get_input_embeddings()
        table = embeddings.weight.detach().numpy()
        more += options.augmentation(
            ids,
            similar=neighbours(table),
            max_length=options.max_length,
            rng=np.random.default_rng(options.loop.seed),
        )
    ids += more
    if types is not None:
        types += [[0] * len(row) for row in more]
    labels = np.concatenate([labels, np.full((len(more), *labels.shape[1:]), UNLABELLED, labels.dtype)])
    cache = run_folder / "teacher.npy"
    if options.loop.resume and cache.exists() and len(known := np.load(cache)) == len(ids):
        logits = known
    else:
        logits = teacher_logits(teacher, data.Rows(ids=ids, types=types))
        np.save(cache, logits)
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


def _loss(options: FirstTierOptions, multi_label: bool) -> Any:
    def loss(logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        # Evaluation rows have no teacher; their loss is the plain one.
        imitation = options.imitation if "teacher" in batch else 0.0
        total = logits.new_zeros(())
        if imitation:
            total = (
                imitation
                * divergence(logits.unsqueeze(1), batch["teacher"], multi_label, temperature=options.temperature).sum()
            )
        labels = batch["labels"]
        known = labels != UNLABELLED if not multi_label else (labels != UNLABELLED).all(-1)
        if imitation < 1 and bool(known.any()):
            if multi_label:
                plain = F.binary_cross_entropy_with_logits(logits[known], labels[known], reduction="sum")
                plain = plain / labels.shape[1]
            else:
                plain = F.cross_entropy(logits[known], labels[known], reduction="sum")
            total = total + (1 - imitation) * plain / len(labels)
        return total

    return loss


def _metrics(multi_label: bool) -> Any:
    def metrics(prediction: EvalPrediction) -> dict[str, float]:
        logits, labels = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
        right = ((logits > 0) == (labels > 0.5)).all(-1) if multi_label else logits.argmax(-1) == labels
        return {"accuracy": float(right.mean())}

    return metrics

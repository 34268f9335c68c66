"""Units in batches of rows: a text is a unit that covers its row, a sentence has a unit per word.

So one loss, one pass of a teacher and one way to measure serve both tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import EvalPrediction

from cascade.core.rows import FloatArray, IntArray
from cascade.text.entity_f1 import entity_f1
from cascade.training.data.encoding import NO_LABEL, Pad, TrainingRows
from cascade.training.models.teacher import Teacher

ENTITY_F1 = "entity_f1"


def has_label(labels: Tensor) -> Tensor:
    """Which units have a label. Shape `(units,)`, of several labels `(units, labels)`, to `(units,)`."""
    known = ~labels.isnan() if labels.is_floating_point() else labels != NO_LABEL
    return known if labels.ndim == 1 else known.all(-1)


def unit_logits(logits: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Logits and labels of each unit of a batch, row by row.

    Shapes `(rows, exits, labels)`, of words `(rows, exits, longest, labels)`, to `(units, exits, labels)`; of labels
    `(units,)`, with several per unit `(units, labels)`. A batch of words has `is_first`.
    """
    if "is_first" not in batch:
        return logits, batch["labels"]
    return logits.transpose(1, 2)[batch["is_first"]], batch["labels"][batch["is_first"]]


@torch.inference_mode()
def over_units(
    model: Teacher,
    rows: TrainingRows,
    *,
    read: Callable[[Tensor, Tensor], Tensor],
    batch_size: int = 64,
    progress: Callable[[float], object] | None = None,
) -> FloatArray:
    """What a model says of every unit at full depth, in the order of the rows.

    `read` makes what is kept, `(units, ...)`, of logits `(units, exits, labels)` and labels; `batch_size` rows are read
    at once; `progress` is called with the share that is done, in place of a bar.
    """
    model.eval()
    pad, device = Pad(model.padding), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    targets = {name: values for name, values in rows.targets.items() if name in ("labels", "is_first")}
    asked = TrainingRows(rows.ids, rows.types, targets)
    ends = np.concatenate(([0], np.cumsum(rows.counts)))
    order = np.argsort([len(row) for row in rows.ids], kind="stable")
    found: FloatArray | None = None
    starts = range(0, len(order), batch_size)
    for start in starts if progress is not None else tqdm(starts, desc="teacher", unit="batch"):
        if progress is not None:
            progress(start / len(order))
        chosen = order[start : start + batch_size]
        batch = {name: tensor.to(device) for name, tensor in pad([asked[int(row)] for row in chosen]).items()}
        logits = model(batch["input_ids"], batch["attention_mask"], batch.get("token_type_ids"))["logits"]
        own = read(*unit_logits(logits.float(), batch)).cpu().numpy()
        if found is None:
            found = np.empty((ends[-1], *own.shape[1:]), dtype=np.float32)
        found[np.concatenate([np.arange(ends[row], ends[row + 1]) for row in chosen])] = own
    model.to("cpu")
    return np.empty(0, dtype=np.float32) if found is None else found


def teacher_logits(model: Teacher, rows: TrainingRows, progress: Callable[[float], object] | None = None) -> FloatArray:
    """Full depth's logits for every unit, in order. Shape `(units, labels)`; `progress` as in `over_units`."""
    return over_units(model, rows, read=lambda logits, _labels: logits[:, -1], progress=progress)


def answered(rows: TrainingRows, model: Teacher) -> TrainingRows:
    """The same rows, labelled by what a model answers at full depth."""
    logits = teacher_logits(model, rows)
    if model.multi_label:
        answers: Any = (logits > 0).astype(np.float32)
    else:
        answers = logits[:, 0] if logits.shape[-1] == 1 else logits.argmax(-1)
    if "is_first" not in rows.targets:
        return rows.with_target("labels", answers)
    labels = [np.full(len(own), NO_LABEL) for own in rows.ids]
    for row, own, first in zip(labels, per_row(answers, rows), rows.targets["is_first"], strict=True):
        row[first] = own
    return rows.with_target("labels", labels)


def per_row(values: FloatArray | IntArray, rows: TrainingRows) -> Any:
    """Values of all units as the target of each row: of words one array per row, of texts one entry."""
    return np.split(values, np.cumsum(rows.counts)[:-1]) if "is_first" in rows.targets else values


@dataclass(frozen=True)
class UnitMetrics:
    """What is measured after each epoch, and by which score (`best`) the best epoch is kept.

    Accuracy of each exit over units; for several labels per unit the share of units whose labels are all right; of a
    regression R squared, the share of the variance that it explains.

    Attributes:
        labels: of the model.
        layers: of its exits; None for a model without exits.
        multi_label: several labels per unit.
        spans: words whose labels are those of spans: the last exit's entity F1 is measured too, and chooses.
        frozen: full depth does not change: the mean of all exits chooses.
    """

    labels: Sequence[str]
    layers: Sequence[int] | None = None
    multi_label: bool = False
    spans: bool = False
    frozen: bool = False

    @property
    def best(self) -> str:
        """The score by which an epoch is chosen."""
        if self.frozen:
            return "mean_of_exits"
        return ENTITY_F1 if self.spans else self._names[-1]

    @property
    def _regression(self) -> bool:
        return len(self.labels) == 1 and not self.multi_label

    @property
    def _names(self) -> list[str]:
        return ["accuracy"] if self.layers is None else [f"layer_{layer}" for layer in self.layers]

    def answers(self, logits: Tensor, _labels: Tensor) -> Tensor:
        """Every exit's answers, which are kept of a batch's logits; a model without exits has one.

        The first two axes are the labels', which alone are padded.

        Shapes `(rows, exits, labels)` -> `(rows, exits)`, of words `(rows, exits, longest, labels)` ->
        `(rows, longest, exits)`; for several labels per unit zeros and ones, `(rows, exits, labels)`; of a regression
        the numbers, `(rows, exits)`.
        """
        logits = logits.unsqueeze(1) if self.layers is None else logits
        if self.multi_label:
            return (logits > 0).long()
        if self._regression:
            return logits.squeeze(-1)
        answers = logits.argmax(-1)
        return answers.transpose(1, 2) if answers.ndim == 3 else answers

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        answers, wanted = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
        if self.multi_label:
            right = (answers == (wanted[:, None] > 0.5)).all(-1)
        elif self._regression:
            right = 1 - np.square(answers - wanted[:, None]) / max(wanted.var(), 1e-12)
        else:
            known = wanted != NO_LABEL
            right = answers[known] == wanted[known][:, None]
        found = {name: float(score) for name, score in zip(self._names, right.mean(0), strict=True)}
        if self.layers is not None:
            found["mean_of_exits"] = float(right.mean())
        if self.spans:
            found[ENTITY_F1] = tag_f1(answers[:, :, -1], wanted, self.labels)
        return found


def tag_f1(answers: IntArray, wanted: IntArray, labels: Sequence[str]) -> float:
    """F1 of whole entities. Shapes `(rows, longest)` twice; a sentence that was cut counts as several."""
    names, words = np.array(labels), wanted != NO_LABEL
    truth, given = (
        [names[own[places]].tolist() for own, places in zip(table, words, strict=True)] for table in (wanted, answers)
    )
    return entity_f1(truth, given)

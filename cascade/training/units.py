"""Units in batches of rows: a text is a unit that covers its row, a sentence has a unit per word.

So one loss, one pass of a model and one way to measure serve both tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm
from typing_extensions import Self

from cascade.core.rows import FloatArray, IntArray, Units, ranges
from cascade.engine.packing import Packing
from cascade.policies.batching import TokenBudget, batches
from cascade.text.entity_f1 import entity_f1, has_entities
from cascade.training.data import TrainingRows, grids, has_labels
from cascade.training.models.config import TAGGING
from cascade.training.models.teacher import Teacher

ENTITY_F1 = "entity_f1"
TOKENS = {"cuda": 8192, "cpu": 1024}  # of a batch; a CPU's caches hold little
INPUTS = ("input_ids", "attention_mask", "token_type_ids", "exit_layers")
Collate = Callable[[TrainingRows], dict[str, Tensor]]
"""From rows to a batch."""


def device() -> torch.device:
    """Where torch's models run: on a GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def unit_logits(logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """Logits of each unit of a batch, row by row; words are read at their first token.

    Shapes `(rows, exits, labels)`, of words `(rows, exits, longest, labels)`, to `(units, exits, labels)`.
    """
    return logits if logits.ndim == 3 else logits.transpose(1, 2)[batch["is_first"]]


def batches_over(rows: TrainingRows, numbers: Sequence[list[int]], collate: Collate) -> DataLoader[Any]:
    """The batches of the rows of these numbers."""
    every: Any = range(len(rows))
    return DataLoader(every, batch_sampler=numbers, collate_fn=lambda some: collate(rows.select(np.array(some))))


def exit_grid(units: Units, exits: IntArray, layers: Sequence[int]) -> Tensor:
    """The last layer of every token: all pieces of a word stop with it, special tokens never. Shape `(rows, longest)`.

    `exits`: number of each word's exit, from 0, shape `(words,)`; `layers`: of the exits.
    """
    last = np.full(units.rows.tokens, layers[-1], np.int64)
    last[ranges(units.first_token, units.n_tokens)] = np.repeat(np.array(layers, np.int64)[exits], units.n_tokens)
    packing = Packing.of(units.rows.lengths)
    return torch.from_numpy(np.where(packing.mask, last[packing.array("gather")], layers[-1]))


def over_units(
    model: Teacher,
    rows: TrainingRows,
    *,
    read: Callable[[Tensor], Tensor],
    collate: Collate | None = None,
    progress: Callable[[float], object] | None = None,
) -> FloatArray:
    """What a model says of every unit, in the order of the rows.

    `read` makes what is kept, `(units, ...)`, of logits `(units, exits, labels)`; `collate` is `grids` by default;
    `progress` is called with the share that is done, in place of a bar.
    """
    home, where, found = next(model.parameters()).device, device(), None
    model.to(where).eval()
    units, chosen = rows.units, batches(TokenBudget(TOKENS[where.type]), rows.units.rows.lengths)
    made = batches_over(rows, [own.tolist() for own in chosen], collate or partial(grids, padding=model.padding))
    shown = made if progress is not None else tqdm(made, desc="teacher", unit="batch")
    for number, (own, batch) in enumerate(zip(chosen, shown, strict=True)):
        if progress is not None:
            progress(number / len(chosen))
        given = {name: tensor.to(where) for name, tensor in batch.items()}
        with torch.inference_mode():
            logits = model(**{name: given[name] for name in INPUTS if name in given})["logits"]
            said = read(unit_logits(logits.float(), given)).cpu().numpy()
        if found is None:
            found = np.empty((len(units), *said.shape[1:]), dtype=np.float32)
        found[ranges(units.offsets[own], units.counts[own])] = said
    model.to(home)
    return np.empty(0, dtype=np.float32) if found is None else found


def teacher_logits(model: Teacher, rows: TrainingRows, progress: Callable[[float], object] | None = None) -> FloatArray:
    """Full depth's logits for every unit, in order. Shape `(units, labels)`; `progress` as in `over_units`."""
    return over_units(model, rows, read=lambda logits: logits[:, -1], progress=progress)


def answered(rows: TrainingRows, model: Teacher) -> TrainingRows:
    """Rows without labels, labelled by what a model answers at full depth; others as they are."""
    if has_labels(rows.targets["labels"]).all():
        return rows
    logits = teacher_logits(model, rows)
    if model.multi_label:
        answers: Any = (logits > 0).astype(np.float32)
    else:
        answers = logits[:, 0] if logits.shape[-1] == 1 else logits.argmax(-1)
    return rows.with_target("labels", answers)


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

    @classmethod
    def of(cls, model: Teacher, layers: Sequence[int] | None) -> Self:
        """What a model's labels ask for."""
        spans = model.task == TAGGING and has_entities(model.labels)
        return cls(model.labels, layers, multi_label=model.multi_label, spans=spans)

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

    def answers(self, logits: Tensor) -> Tensor:
        """Every exit's answers.

        Shapes `(units, exits, labels)` -> `(units, exits)`; for several labels per unit zeros and ones, `(units, exits,
        labels)`; of a regression the numbers, `(units, exits)`.
        """
        if self.multi_label:
            return (logits > 0).long()
        return logits.squeeze(-1) if self._regression else logits.argmax(-1)

    def __call__(self, answers: Any, rows: TrainingRows) -> dict[str, float]:
        """All scores of what `answers` gives for the units of rows."""
        wanted = rows.targets["labels"]
        if self.multi_label:
            right = (answers == (wanted[:, None] > 0.5)).all(-1)
        elif self._regression:
            right = 1 - np.square(answers - wanted[:, None]) / max(wanted.var(), 1e-12)
        else:
            right = answers == wanted[:, None]
        found = {name: float(score) for name, score in zip(self._names, right.mean(0), strict=True)}
        if self.layers is not None:
            found["mean_of_exits"] = float(right.mean())
        if self.spans:
            found[ENTITY_F1] = tag_f1(answers[:, -1], wanted, self.labels, rows.units.offsets[1:-1])
        return found


def tag_f1(answers: Any, wanted: IntArray, labels: Sequence[str], edges: IntArray) -> float:
    """F1 of whole entities. Shapes `(words,)`, and of edges, where sentences meet, `(sentences - 1,)`.

    A sentence that was cut counts as several.
    """
    names = np.array(labels)
    truth, given = ([own.tolist() for own in np.split(names[some.astype(int)], edges)] for some in (wanted, answers))
    return entity_f1(truth, given)

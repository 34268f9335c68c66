"""Rows that nobody labelled, varied from those at hand, for a teacher to answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cascade.training.data.augmentation import Augmentation, neighbours
from cascade.training.data.encoding import NO_LABEL, TrainingRows
from cascade.training.models.teacher import Teacher


def varied(
    rows: TrainingRows,
    teacher: Teacher,
    augmentation: Augmentation,
    *,
    seed: int,
    max_length: int,
    pieces: Tensor | None = None,
) -> TrainingRows:
    """New rows without labels: of texts varied freely, up to `max_length` tokens, of words each with tokens replaced.

    Tokens are replaced by others that have an embedding: `pieces`, or all.
    """
    known = torch.arange(teacher.vocabulary) if pieces is None else pieces
    numbers = known.numpy()
    used = np.searchsorted(numbers, np.unique(np.concatenate([np.asarray(row) for row in rows.ids])))
    near = neighbours(teacher.vectors(known).numpy(), of=used)
    similar = np.zeros((teacher.vocabulary, near.shape[1]), np.int64)
    similar[numbers] = numbers[near]
    rng = np.random.default_rng(seed)
    if "is_first" in rows.targets:
        ids = augmentation(rows.ids, similar=similar, rng=rng, max_length=None)
        labels: Any = [np.full(len(row), NO_LABEL) for row in ids]
        return TrainingRows(ids, None, {"labels": labels, "is_first": rows.targets["is_first"] * augmentation.copies})
    ids = augmentation(rows.ids, similar=similar, rng=rng, max_length=max_length)
    given = rows.targets["labels"]
    labels = np.full_like(given, np.nan if given.dtype.kind == "f" else NO_LABEL, shape=(len(ids), *given.shape[1:]))
    return TrainingRows(ids, None, {"labels": labels})

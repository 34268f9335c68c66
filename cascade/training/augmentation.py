"""More text for distillation: rows that no one labelled, made from the rows at hand.

A teacher labels anything, so a student can learn from sentences that are not quite sentences (Tang et al. 2019,
section 3.2; TinyBERT, section 4.1). Works on token ids, so that the teacher and the student read the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cascade.core.rows import Doubles, IntArray, Units, concatenate_units
from cascade.training.data import NO_LABEL, TrainingRows, rows_of
from cascade.training.models.teacher import Teacher

REPLACE, DROP = 0.2, 0.1  # shares of the tokens


def new_rows(
    rows: Sequence[Any], copies: int, *, similar: IntArray, rng: np.random.Generator, max_length: int | None
) -> list[list[int]]:
    """New rows, `copies` per given row, each in one of three ways, drawn evenly.

    Tokens are replaced by their neighbours and dropped; a contiguous piece of the row; two rows joined.

    Args:
        rows: token ids with one special token at each end, which stay there.
        copies: 0 or more.
        similar: ids of each token's nearest neighbours. Shape `(vocabulary, k)`.
        rng: decides everything.
        max_length: tokens of a new row at most. None, for words: tokens are replaced, none leaves its place.
    """

    def replaced(body: IntArray, draws: Doubles) -> IntArray:
        return np.where(draws < REPLACE, similar[body, rng.integers(0, similar.shape[1], len(body))], body)

    new = []
    for row in [*rows] * copies:
        body = np.asarray(row[1:-1], dtype=np.int64)
        if max_length is None:
            new.append([row[0], *replaced(body, rng.random(len(body))).tolist(), row[-1]])
            continue
        way = rng.integers(3)
        if way == 0:
            draws = rng.random(len(body))
            body, kept = replaced(body, draws), draws < 1 - DROP
            body = body[kept] if kept.any() else body
        elif way == 1 and len(body) > 3:
            length = int(rng.integers(2, len(body)))
            start = int(rng.integers(0, len(body) - length + 1))
            body = body[start : start + length]
        else:
            other = rows[int(rng.integers(len(rows)))]
            body = np.concatenate((body, np.asarray(other[1:-1], dtype=np.int64)))
        new.append([row[0], *body[: max_length - 2].tolist(), row[-1]])
    return new


def neighbours(
    table: np.ndarray[tuple[int, int], np.dtype[np.float32]], *, k: int = 8, of: IntArray | None = None
) -> IntArray:
    """The `k` nearest other tokens of each token by cosine. Shapes `(vocabulary, width)` -> `(vocabulary, k)`.

    `of`: tokens that are asked for, all by default; the others' rows are 0. Shape `(tokens,)`.
    """
    normed = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-9)
    k = min(k, len(table) - 1)
    found = np.zeros((len(table), k), dtype=np.int64)
    asked = np.arange(len(table)) if of is None else of
    for start in range(0, len(asked), 2048):  # the whole product would be vocabulary squared
        part = asked[start : start + 2048]
        similarity = normed[part] @ normed.T
        similarity[np.arange(len(part)), part] = -np.inf
        found[part] = np.argpartition(-similarity, k, axis=1)[:, :k]
    return found


def varied(
    rows: TrainingRows,
    teacher: Teacher,
    copies: int,
    *,
    seed: int,
    max_length: int | None,
    pieces: Tensor | None = None,
) -> TrainingRows:
    """New rows without labels: of texts varied freely, up to `max_length` tokens, of words (None) with tokens replaced.

    Tokens are replaced by others that have an embedding: `pieces`, or all.
    """
    given = rows.units
    known = torch.arange(teacher.vocabulary) if pieces is None else pieces
    numbers = known.numpy()
    used = np.searchsorted(numbers, np.unique(given.rows.ids))
    near = neighbours(teacher.vectors(known).numpy(), of=used)
    similar = np.zeros((teacher.vocabulary, near.shape[1]), np.int64)
    similar[numbers] = numbers[near]
    lists, rng = np.split(given.rows.ids, given.rows.offsets[1:-1]), np.random.default_rng(seed)
    made = rows_of(new_rows(lists, copies, similar=similar, rng=rng, max_length=max_length))
    units = Units.whole(made) if max_length is not None else replace(concatenate_units([given] * copies), rows=made)
    known_labels = rows.targets["labels"]
    filler = np.nan if known_labels.dtype.kind == "f" else NO_LABEL
    labels = np.full_like(known_labels, filler, shape=(len(units), *known_labels.shape[1:]))
    return TrainingRows(units, {"labels": labels})

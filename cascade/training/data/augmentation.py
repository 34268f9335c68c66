"""More text for distillation: rows that no one labelled, made from the rows at hand.

A teacher labels anything, so a student can learn from sentences that are not quite sentences (Tang et al. 2019,
section 3.2; TinyBERT, section 4.1). Works on token ids, so that the teacher and the student read the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cascade.core.rows import Doubles, IntArray
from cascade.exceptions import OptionError
from cascade.training.data.encoding import NO_LABEL, TrainingRows
from cascade.training.models.teacher import Teacher


@dataclass(frozen=True)
class Augmentation:
    """How rows are varied; each new row draws one of three ways, evenly.

    Attributes:
        copies: new rows per given row; 0 switches it off.
        replace: share of the tokens replaced by one of their nearest neighbours in the teacher's embedding table.
        drop: share of the tokens left out.

    The three ways: replace and drop; a contiguous piece of the row; two rows joined.
    """

    copies: int = 2
    replace: float = 0.2
    drop: float = 0.1

    def __post_init__(self) -> None:
        if self.copies < 0:
            raise OptionError(f"copies of augmentation must be 0 or more, got {self.copies}")
        for name in ("replace", "drop"):
            if not 0 <= getattr(self, name) < 1:
                raise OptionError(f"{name} must be in [0, 1), got {getattr(self, name)}")

    def __call__(
        self,
        rows: Sequence[Sequence[int]],
        *,
        similar: IntArray,
        rng: np.random.Generator,
        max_length: int | None,
    ) -> list[list[int]]:
        """New rows, `copies` per given row.

        Args:
            rows: token ids with one special token at each end, which stay there.
            similar: ids of each token's nearest neighbours. Shape `(vocabulary, k)`.
            rng: decides everything.
            max_length: tokens of a new row at most. None, for words: tokens are replaced, none leaves its place.
        """
        new = []
        for row in [*rows] * self.copies:
            body = np.asarray(row[1:-1], dtype=np.int64)
            if max_length is None:
                body = self._replaced(body, similar, rng, rng.random(len(body)))
                new.append([row[0], *body.tolist(), row[-1]])
                continue
            way = rng.integers(3)
            if way == 0:
                draws = rng.random(len(body))
                body, kept = self._replaced(body, similar, rng, draws), draws < 1 - self.drop
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

    def _replaced(self, body: IntArray, similar: IntArray, rng: np.random.Generator, draws: Doubles) -> IntArray:
        choice = similar[body, rng.integers(0, similar.shape[1], len(body))]
        return np.where(draws < self.replace, choice, body)


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

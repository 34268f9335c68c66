"""Token ids with label numbers, made as the engine makes them, and how rows become a batch.

A text is one row, cut at the tokenizer's `max_length`. A sentence of words that is longer becomes several rows, cut
between words; a word's label is at its first token.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np
import tokenizers
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from cascade.core.labels import as_array, numbers_of, own_names, shortened
from cascade.core.rows import FloatArray, IntArray, Rows
from cascade.engine.long_rows import cut
from cascade.exceptions import DataError
from cascade.text.tokenizer import Tokenizer
from cascade.text.word_encoding import encode_words
from cascade.training.data.examples import Examples

NO_LABEL = -100  # of units without a label, and of tokens that are no word's first; where targets are floats NaN


@dataclass(frozen=True, eq=False)
class TrainingRows(Dataset[dict[str, Any]]):
    """Token ids with what the loss needs, row by row.

    Attributes:
        ids: token ids of each row.
        types: token type ids of each row; None where all are 0.
        targets: sequences with an entry per row, by the name under which the model or the loss reads them. `labels` is
            always there: a number (of a regression a float), zeros and ones per label, or `NO_LABEL` in their place.
            Rows of words also have `is_first`, True at the first token of each word, of shape `(tokens of the row,)` as
            are their `labels`; entries of all their other targets have shape `(words of the row, ...)`.
    """

    ids: Sequence[Sequence[int]]
    types: Sequence[Sequence[int]] | None = None
    targets: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> dict[str, Any]:
        item: dict[str, Any] = {"input_ids": self.ids[row]}
        if self.types is not None:
            item["token_type_ids"] = self.types[row]
        return item | {name: values[row] for name, values in self.targets.items()}

    @property
    def counts(self) -> IntArray:
        """Units of each row: its words, or one for a text. Shape `(rows,)`."""
        words = self.targets.get("is_first")
        return np.ones(len(self), np.int64) if words is None else np.array([own.sum() for own in words], np.int64)

    @classmethod
    def joined(cls, parts: Sequence[TrainingRows]) -> TrainingRows:
        """The rows of all parts, in order; their targets have the same names."""
        types: list[Sequence[int]] | None = None
        if any(part.types is not None for part in parts):
            types = [row for part in parts for row in part.types or [[0] * len(own) for own in part.ids]]
        targets: dict[str, Any] = {}
        for name in parts[0].targets:
            values = [part.targets[name] for part in parts]
            targets[name] = np.concatenate(values) if isinstance(values[0], np.ndarray) else [*chain(*values)]
        return cls([row for part in parts for row in part.ids], types, targets)

    def first(self, count: int) -> TrainingRows:
        """So many rows, from the first on."""
        types = None if self.types is None else self.types[:count]
        targets = {name: values[:count] for name, values in self.targets.items()}
        return TrainingRows(self.ids[:count], types, targets)

    def with_target(self, name: str, values: Sequence[Any]) -> TrainingRows:
        """The same rows with one more target."""
        return replace(self, targets=self.targets | {name: values})

    def digest(self) -> str:
        """SHA-256 of the rows and their targets."""
        found = hashlib.sha256()
        for name, values in {"ids": self.ids, "types": self.types or [], **self.targets}.items():
            arrays = [np.asarray(own) for own in values]
            found.update(f"{name} {[own.shape for own in arrays]}".encode())
            found.update(np.concatenate([own.ravel() for own in arrays]).tobytes() if arrays else b"")
        return found.hexdigest()


def has_labels(labels: Any) -> Any:
    """Which rows or units have a label; an array or a tensor. Shape `(rows,)` or `(rows, labels)`, to `(rows,)`."""
    known = labels == labels if "float" in str(labels.dtype) else labels != NO_LABEL  # noqa: PLR0124  # NaN is not NaN
    return known if labels.ndim == 1 else known.all(-1)


def tokenizer_of(text: str, *, max_length: int) -> Tokenizer:
    """The engine's tokenizer from the text of a `tokenizer.json`."""
    return Tokenizer(tokenizers.Tokenizer.from_str(text), max_length=max_length)


def encode_texts(
    tokenizer: Tokenizer, examples: Examples, names: Sequence[str], *, multi_label: bool = False
) -> TrainingRows:
    """Texts and pairs as one row each; what exceeds the tokenizer's `max_length` is not read.

    A label that is not among the names, or not one label per text, is a `DataError` with the example's number.
    """
    texts: Any = examples.items  # no sentences of words: `encode_sentences` takes those
    encoded = tokenizer.encode(texts)
    rows = encoded.units.rows.select(np.flatnonzero(np.diff(encoded.numbers, prepend=-1)))  # each text's first row
    cut = np.count_nonzero(np.bincount(encoded.numbers) > 1) + len(encoded.truncated)
    if cut:
        tqdm.write(f"{cut} of {len(examples)} texts are cut at --max-length {tokenizer.max_length} in training")
    types = _split(rows.types, rows) if rows.types.any() else None
    labels = _targets(examples, names, multi_label=multi_label)
    return TrainingRows(_split(rows.ids, rows), types, {"labels": labels})


def _targets(examples: Examples, names: Sequence[str], *, multi_label: bool) -> Any:
    """The labels of texts as `TrainingRows` has them."""
    if len(names) == 1 and not multi_label:
        return np.full(len(examples), np.nan, np.float32) if examples.labels is None else label_values(examples)
    if examples.labels is None:
        shape, filler = ((len(examples), len(names)), np.nan) if multi_label else (len(examples), NO_LABEL)
        return np.full(shape, filler, np.float32 if multi_label else np.int64)
    numbers = label_numbers(examples, names, multi_label=multi_label)
    for row, own in enumerate(numbers if multi_label else ()):
        if len(set(own)) < len(own):
            raise DataError(
                f"{examples.source}: example {row + 1} must name each of its labels once, got "
                f"{list(examples.labels[row])}; give the names of those that apply, "
                f'["a", "c"], or all examples a 0 or 1 for each of the {len(names)} labels'
            )
    labels = as_array(numbers, len(names), multi_label=multi_label, source=examples.source)
    return labels.astype(np.float32) if multi_label else labels


def encode_sentences(
    tokenizer: Tokenizer,
    examples: Examples,
    names: Sequence[str],
    *,
    multi_label: bool = False,  # noqa: ARG001  # as for texts; a word has one tag
) -> TrainingRows:
    """Sentences as one or several rows of words; a tag that is not among the names is a `DataError`."""
    units, _ = cut(encode_words(tokenizer, examples.items), tokenizer.max_length, 0)
    rows = units.rows
    is_first, labels = np.zeros(rows.tokens, np.bool_), np.full(rows.tokens, NO_LABEL, np.int64)
    is_first[units.first_token] = True
    if examples.labels is not None:
        labels[units.first_token] = list(chain.from_iterable(label_numbers(examples, names)))
    edges = rows.offsets[1:-1]
    targets = {"labels": np.split(labels, edges), "is_first": np.split(is_first, edges)}
    return TrainingRows(_split(rows.ids, rows), None, targets)


@dataclass(frozen=True)
class Pad:
    """Collates rows to the longest of them. `padding`: id of the padding token.

    Of words, `labels` and `is_first` have shape `(rows, longest)`; every other target becomes one tensor of the words
    of all rows, in the order in which `is_first` counts them.
    """

    padding: int

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        words = "is_first" in items[0]
        batch = {
            "input_ids": padded([item["input_ids"] for item in items], self.padding),
            "attention_mask": padded([[1] * len(item["input_ids"]) for item in items], 0),
        }
        for name in items[0].keys() - {"input_ids"}:
            values = [item[name] for item in items]
            if name == "token_type_ids":
                batch[name] = padded(values, 0)
            elif words and name in ("labels", "is_first"):
                batch[name] = padded(values, NO_LABEL if name == "labels" else 0)
            else:
                batch[name] = torch.as_tensor(np.concatenate(values) if words else np.stack(values))
        if words:
            batch["is_first"] = batch["is_first"] > 0
        return batch


def padded(values: Sequence[Sequence[int]], filler: int) -> Tensor:
    """Rows of any length as one array, `filler` behind the shorter ones. Shape `(rows, longest)`."""
    made = torch.full((len(values), max(map(len, values))), filler)
    for row, own in enumerate(values):
        made[row, : len(own)] = torch.as_tensor(own)
    return made


def _split(values: IntArray, rows: Rows) -> list[list[int]]:
    return [own.tolist() for own in np.split(values, rows.offsets[1:-1])]


def label_values(examples: Examples) -> FloatArray:
    """The labels of a regression, of each item one. Shape `(items,)`.

    Raises:
        DataError: one that is no number, with its example's number.
    """
    values = np.empty(len(examples), np.float32)
    for row, label in enumerate(examples.labels or ()):
        try:
            (one,) = (label,) if isinstance(label, str) else label
            values[row] = float(one)
        except ValueError:
            values[row] = np.nan
        if not np.isfinite(values[row]):
            raise DataError(
                f"{examples.source}: example {row + 1} must have a number, because the model is a regression, got "
                f"{label!r}; correct it or drop it"
            )
    return values


def label_numbers(examples: Examples, names: Sequence[str], *, multi_label: bool = False) -> list[list[int]]:
    """The labels of each item as numbers, however they are written (`own_names`); no items without labels.

    A label that is not among the names is a `DataError` with its example's number.
    """
    numbers, found = numbers_of(names), []
    for row, label in enumerate(own_names(examples.labels or (), names, multi_label=multi_label), 1):
        own: Sequence[str] = (label,) if isinstance(label, str) else label or ()
        unknown = [name for name in own if name not in numbers]
        if unknown:
            raise DataError(
                f"{examples.source}: example {row} has the label {unknown[0]!r}, which the model does not have "
                f"({len(names)} labels: {shortened(names)}); correct it, or train on data that have it"
            )
        found.append([numbers[name] for name in own])
    return found

"""Examples from files, every fault named by its line; token ids with label numbers, made as the engine makes them.

A text is one row, cut at the tokenizer's `max_length`. A sentence of words that is longer becomes several rows, cut
between words; a word's label is at its first token. Rows become batches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import tokenizers
import torch
from torch import Tensor
from tqdm import tqdm

from cascade.core.labels import as_array, label_numbers
from cascade.core.rows import FloatArray, IntArray, Rows, Units, concatenate_units, offsets_of, ranges
from cascade.engine.long_rows import cut
from cascade.engine.packing import padded
from cascade.exceptions import DataError
from cascade.text.entity_f1 import has_entities
from cascade.text.labelled import Columns, read_labelled
from cascade.text.tokenizer import Tokenizer
from cascade.text.word_encoding import encode_words

NO_LABEL = -100  # of units without a label; where targets are floats NaN


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """Rows of token ids, and what the loss needs of their units.

    `units`: the rows, and what in them gets an answer: the whole row of a text, the words of a sentence; `targets`:
    arrays of shape `(units, ...)`, by the name under which the loss reads them. `labels` are numbers (of a regression
    floats), zeros and ones per label, or `NO_LABEL` in their place.
    """

    units: Units
    targets: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.units.n_rows

    @classmethod
    def joined(cls, parts: Sequence[TrainingRows]) -> TrainingRows:
        """The rows of all parts, in order; their targets have the same names."""
        targets = {name: np.concatenate([part.targets[name] for part in parts]) for name in parts[0].targets}
        return cls(concatenate_units([part.units for part in parts]), targets)

    def select(self, rows: IntArray) -> TrainingRows:
        """These rows, in this order. Shape `(chosen,)`."""
        numbers = ranges(self.units.offsets[rows], self.units.counts[rows])
        return TrainingRows(self.units.select(rows), {name: own[numbers] for name, own in self.targets.items()})

    def with_target(self, name: str, values: Any) -> TrainingRows:
        """The same rows with one more target."""
        return replace(self, targets=self.targets | {name: values})

    def digest(self) -> str:
        """SHA-256 of the rows and their targets."""
        units, found = self.units, hashlib.sha256()
        own = {"ids": units.rows.ids, "types": units.rows.types, "ends": units.rows.offsets, "first": units.first_token}
        for name, values in {**own, **self.targets}.items():
            found.update(f"{name} {values.shape}".encode() + values.tobytes())
        return found.hexdigest()


def grids(rows: TrainingRows, *, padding: int, max_length: int = 1 << 30) -> dict[str, Tensor]:
    """A batch: all targets, and of shape `(rows, longest)` the model's inputs and `is_first`.

    That is True at the first token of each unit. `padding`: id of that token; `max_length`: as `padded` has it.
    """
    units = rows.units
    ids, mask, types = padded(units.rows, max_length=max_length)
    ids[mask == 0] = padding
    first = np.zeros(ids.shape, np.bool_)
    first[units.row_of, units.first_token - units.rows.offsets[units.row_of]] = True
    batch = {"input_ids": ids, "attention_mask": mask, "is_first": first, **rows.targets}
    if types.any():
        batch["token_type_ids"] = types
    return {name: torch.from_numpy(own) for name, own in batch.items()}


def rows_of(ids: Sequence[Sequence[int]], types: Sequence[Sequence[int]] | None = None) -> Rows:
    """Rows of lists of token ids; types are 0 if not given."""
    numbers = np.fromiter(chain.from_iterable(ids), np.int64)
    kinds = np.zeros_like(numbers) if types is None else np.fromiter(chain.from_iterable(types), np.int64)
    return Rows(numbers, kinds, offsets_of(np.array([len(own) for own in ids], np.int64)))


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
    return TrainingRows(Units.whole(rows), {"labels": targets_of(examples, names, multi_label=multi_label)})


def targets_of(examples: Examples, names: Sequence[str], *, multi_label: bool) -> Any:
    """The labels of texts as `TrainingRows` has them."""
    if len(names) == 1 and not multi_label:
        return np.full(len(examples), np.nan, np.float32) if examples.labels is None else label_values(examples)
    if examples.labels is None:
        shape, filler = ((len(examples), len(names)), np.nan) if multi_label else (len(examples), NO_LABEL)
        return np.full(shape, filler, np.float32 if multi_label else np.int64)
    numbers = label_numbers(examples.labels, names, multi_label=multi_label, source=examples.source)
    for row, own in enumerate(numbers if multi_label else ()):
        if len(set(own)) < len(own):
            raise DataError(
                f"{examples.source}: example {row + 1} must name its labels once, got {list(examples.labels[row])}; "
                f'give the names of those that apply, ["a", "c"], or a 0 or 1 for each of the {len(names)} labels'
            )
    labels = as_array(numbers, len(names), multi_label=multi_label, source=examples.source)
    return labels.astype(np.float32) if multi_label else labels


def encode_sentences(tokenizer: Tokenizer, examples: Examples, names: Sequence[str], **_of_texts: Any) -> TrainingRows:
    """Sentences as one or several rows of words; a tag that is not among the names is a `DataError`."""
    units, _ = cut(encode_words(tokenizer, examples.items), tokenizer.max_length, 0)
    labels = np.full(len(units), NO_LABEL, np.int64)
    if examples.labels is not None:
        labels[:] = [*chain.from_iterable(label_numbers(examples.labels, names, source=examples.source))]
    return TrainingRows(units, {"labels": labels})


def label_values(examples: Examples) -> FloatArray:
    """The labels of a regression, of each item one. Shape `(items,)`.

    A `DataError`: one that is no number, with its example's number.
    """
    values = np.empty(len(examples), np.float32)
    for row, label in enumerate(examples.labels or ()):
        try:
            (one,) = (label,) if isinstance(label, str) else label
            values[row] = float(one)
        except ValueError:
            values[row] = np.nan
        if not np.isfinite(values[row]):
            told = f"{examples.source}: example {row + 1} must have a number, because the model is a regression"
            raise DataError(f"{told}, got {label!r}; correct it or drop it")
    return values


Item: TypeAlias = "str | tuple[str, str] | list[str]"
"""A text, a pair of texts, or a sentence as a list of words."""


@dataclass(frozen=True)
class Examples:
    """Items and their labels, in the order of the file.

    `items`: texts, pairs, or sentences as lists of words; `labels`: a name per text, a tuple of names for several
    labels or for a sentence's tags; None unless all items have them; `source`: for messages: the file.
    """

    items: Sequence[Item]
    labels: Sequence[str | tuple[str, ...]] | None
    source: str

    def __len__(self) -> int:
        return len(self.items)

    @property
    def texts(self) -> list[str]:
        """Each item as one string."""
        return [item if isinstance(item, str) else " ".join(item) for item in self.items]


def read_file(
    source: str | Path, *, words: bool, columns: Columns | None = None, require_labels: bool = True
) -> Examples:
    """The texts of a file, or with `words` its sentences; see `read_labelled`."""
    found = read_labelled(source, words=words, columns=columns, require_labels=require_labels)
    labels = [line.label for line in found if line.label is not None]
    return Examples([line.item for line in found], labels if len(labels) == len(found) else None, str(source))


def joined(parts: Sequence[Examples]) -> Examples:
    """Several files as one; with labels where all of them have labels."""
    labelled = all(part.labels is not None for part in parts)
    return Examples(
        items=[item for part in parts for item in part.items],
        labels=[label for part in parts for label in part.labels or ()] if labelled else None,
        source=", ".join(part.source for part in parts),
    )


def label_names(examples: Examples) -> list[str]:
    """The names that occur, numbers in numeric and words in alphabetical order.

    Those of spans: `O` first, then by what follows `B-` and `I-`, the `B-` before the `I-`.
    """
    names = set(chain.from_iterable((own,) if isinstance(own, str) else own for own in examples.labels or ()))
    if has_entities(names):
        return sorted(names, key=lambda name: ("", "") if name == "O" else (name[2:], name[:2]))
    return sorted(names, key=int) if all(name.lstrip("-").isdigit() for name in names) else sorted(names)

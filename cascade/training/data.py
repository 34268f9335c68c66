"""Labelled files, or a `datasets` name, to token ids that a Trainer can read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from cascade.exceptions import DataError, MissingExtraError
from cascade.text.reading import Columns, read_examples
from cascade.training.models.backbone import default_names

__all__ = [
    "Columns",
    "Examples",
    "Pad",
    "Rows",
    "encode",
    "label_names",
    "label_numbers",
    "load_named",
    "named",
    "read",
]


@dataclass(frozen=True)
class Examples:
    """Texts and their labels, in the order of the file.

    Attributes:
        texts: strings, or pairs of strings.
        labels: a name, or for multi-label a tuple of names, per text; None where the data have none.
        source: for messages: the file or data set.
    """

    texts: Sequence[str | tuple[str, str]]
    labels: Sequence[str | tuple[str, ...]] | None
    source: str

    def __len__(self) -> int:
        return len(self.texts)


def read(source: str | Path, *, columns: Columns | None = None, require_labels: bool = True) -> Examples:
    """Read a jsonl, csv or parquet file, or a split of a `datasets` name (`name:split`, split `train` by default).

    Raises:
        DataError: no such file or data set; an unlabelled or malformed line, by its number.
    """
    columns = columns or Columns()
    path = Path(source)
    if path.exists() or path.suffix in (".jsonl", ".csv", ".parquet", ".txt", ".json", ".tsv"):
        found = list(
            read_examples(
                path,
                text_column=columns.text,
                pair_column=columns.pair,
                label_column=columns.label,
                require_label=require_labels,
            )
        )
        texts = [example.text for example in found if example.text is not None]
        labels = [example.label for example in found]
    else:
        texts, labels = _from_datasets(str(source), columns)
    if not texts:
        raise DataError(f"{source} must hold at least one example, has none")
    given = [label for label in labels if label is not None]
    if require_labels and len(given) < len(labels):
        position = labels.index(None)
        raise DataError(f"{source}: example {position + 1} has no {columns.label}; label it or drop it")
    return Examples(texts=texts, labels=given if len(given) == len(labels) else None, source=str(source))


def label_names(examples: Examples) -> list[str]:
    """The names that occur, numbers in numeric order and words in alphabetical order."""
    names: set[str] = set()
    for label in examples.labels or ():
        names.update((label,) if isinstance(label, str) else label)
    if all(name.lstrip("-").isdigit() for name in names):
        return sorted(names, key=int)
    return sorted(names)


def label_numbers(examples: Examples, names: Sequence[str], *, multi_label: bool) -> np.ndarray[Any, Any]:
    """Labels as numbers `(rows,)`, or as zeros and ones `(rows, labels)` for a multi-label head.

    Where the names are transformers' default ones, the number i is read as `LABEL_i`.

    Raises:
        DataError: a label that is not among the names, or a list of 0 and 1, with its example's number.
    """
    number = {name: position for position, name in enumerate(names)}
    if default_names(names):  # data that transformers trained on without names have numbers
        number |= {str(position): position for position in range(len(names))}
    rows = []
    for position, label in enumerate(examples.labels or ()):
        own = (label,) if isinstance(label, str) else label
        if multi_label and len(set(own)) < len(own):
            raise DataError(
                f"{examples.source}: example {position + 1} must name each of its labels once, was: {list(own)}; "
                'give the names of those that apply, ["a", "c"], not a 0 or 1 for each'
            )
        unknown = [name for name in own if name not in number]
        if unknown:
            raise DataError(
                f"{examples.source}: example {position + 1} has the label {unknown[0]!r}, which the model does "
                f"not have ({len(names)} labels: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''})"
            )
        if not multi_label and len(own) != 1:
            raise DataError(
                f"{examples.source}: example {position + 1} must have one label, has {len(own)}; "
                "use --multi-label for several"
            )
        rows.append([number[name] for name in own])
    if not multi_label:
        return np.array([row[0] for row in rows], dtype=np.int64)
    table = np.zeros((len(rows), len(names)), dtype=np.float32)
    for position, row in enumerate(rows):
        table[position, row] = 1
    return table


@dataclass(frozen=True, eq=False)
class Rows(Dataset[dict[str, Any]]):
    """Token ids with whatever the loss needs, row by row.

    Attributes:
        ids: token ids of each row.
        types: token type ids of each row; None where all are 0.
        targets: arrays whose first axis is the row, or lists of one array per row, by the name under which the model
            or the loss reads them.
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


def encode(
    tokenizer: PreTrainedTokenizerBase,
    examples: Examples,
    names: Sequence[str],
    *,
    multi_label: bool,
    max_length: int,
) -> Rows:
    """Token ids with special tokens, cut at `max_length`, and label numbers where the examples have labels."""
    first = [text if isinstance(text, str) else text[0] for text in examples.texts]
    paired = not all(isinstance(text, str) for text in examples.texts)
    second = ["" if isinstance(text, str) else text[1] for text in examples.texts] if paired else None
    encoded = tokenizer(first, second, truncation=True, max_length=max_length, return_token_type_ids=paired)
    targets = {}
    if examples.labels is not None:
        targets["labels"] = label_numbers(examples, names, multi_label=multi_label)
    return Rows(ids=encoded["input_ids"], types=encoded["token_type_ids"] if paired else None, targets=targets)


@dataclass(frozen=True)
class Pad:
    """Collates rows to the longest of them."""

    padding: int

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        longest = max(len(item["input_ids"]) for item in items)
        batch = {
            "input_ids": torch.full((len(items), longest), self.padding),
            "attention_mask": torch.zeros((len(items), longest), dtype=torch.long),
        }
        if "token_type_ids" in items[0]:
            batch["token_type_ids"] = torch.zeros((len(items), longest), dtype=torch.long)
        for row, item in enumerate(items):
            length = len(item["input_ids"])
            batch["input_ids"][row, :length] = torch.as_tensor(item["input_ids"])
            batch["attention_mask"][row, :length] = 1
            if "token_type_ids" in item:
                batch["token_type_ids"][row, :length] = torch.as_tensor(item["token_type_ids"])
        for name in items[0].keys() - {"input_ids", "token_type_ids"}:
            batch[name] = torch.as_tensor(np.stack([item[name] for item in items]))
        return batch


def load_named(source: str) -> Any:
    """The table of a split of a `datasets` data set, `name:split`.

    Raises:
        DataError: there is no such data set.
        MissingExtraError: `datasets` is not installed.
    """
    try:
        import datasets
    except ImportError:
        raise MissingExtraError(
            f"{source} is no file, and reading a data set by name needs the train extra; "
            'pip install "cascade-encoder[train]"'
        ) from None
    name, _, split = source.partition(":")
    try:
        return datasets.load_dataset(name, split=split or "train")
    except (OSError, ValueError, ConnectionError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{source} must be a file or a data set (name:split), but {reason}") from None


def _from_datasets(source: str, columns: Columns) -> tuple[list[Any], list[Any]]:
    """Texts and label names of a split of a `datasets` data set; class numbers become their names."""
    table = load_named(source)
    missing = [column for column in (columns.text,) if column not in table.column_names]
    if missing:
        raise DataError(f"{source} must have the column {missing[0]}, has: {', '.join(table.column_names)}")
    texts: list[Any] = list(table[columns.text])
    if columns.pair in table.column_names:
        texts = list(zip(texts, table[columns.pair], strict=True))
    if columns.label not in table.column_names:
        return texts, [None] * len(texts)
    feature = table.features[columns.label]
    return texts, list(named(table[columns.label], feature))


def named(labels: Sequence[Any], feature: Any) -> Iterator[str | tuple[str, ...] | None]:
    """Labels of a `datasets` column by their names; several per row become a tuple, none or -1 becomes None."""
    known = getattr(feature, "names", None) or getattr(getattr(feature, "feature", None), "names", None)
    for label in labels:
        if label is None or label == -1:  # GLUE's mark for an unlabelled row
            yield None
        elif isinstance(label, (list, tuple)):
            yield tuple(known[one] if known and isinstance(one, int) else str(one) for one in label)
        else:
            yield known[label] if known and isinstance(label, int) else str(label)

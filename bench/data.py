"""Labelled files, with labels as a bundle knows them. It leaves reading the lines to `cascade.text.reading`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cascade.core.results import Label
from cascade.core.rows import IntArray
from cascade.exceptions import DataError
from cascade.text.reading import read_examples

__all__ = ["Columns", "Labelled", "read_labelled"]


@dataclass(frozen=True)
class Columns:
    """What the columns of a file are called."""

    text: str = "text"
    pair: str = "text_pair"
    label: str = "label"


@dataclass(frozen=True, eq=False)
class Labelled:
    """Texts and what is right about them.

    Attributes:
        texts: texts or pairs.
        labels: in the form of `Predictions.labels`: a name, or a tuple of names in the order of the bundle's labels.
        targets: number of the label, shape `(n,)`; or 0 and 1 per label, shape `(n, labels)`, for multi-label heads.
    """

    unit: ClassVar[str] = "texts"

    texts: list[str | tuple[str, str]]
    labels: list[Label]
    targets: IntArray

    @classmethod
    def of(
        cls,
        texts: list[str | tuple[str, str]],
        found: Sequence[tuple[str, ...]],
        labels: Sequence[str],
        *,
        multi_label: bool = False,
    ) -> Labelled:
        """Texts with the labels that a file gives them.

        Args:
            texts: at least one.
            found: of each text; exactly one unless `multi_label`.
            labels: names of the bundle's labels, these among them.
            multi_label: an example may have any number of labels.
        """
        numbers = {label: number for number, label in enumerate(labels)}
        if not multi_label:
            targets = np.array([numbers[label] for (label,) in found], dtype=np.int64)
            return cls(texts, [label for (label,) in found], targets)
        yes = [sorted({numbers[label] for label in several}) for several in found]
        names: list[Label] = [tuple(labels[number] for number in some) for some in yes]
        return cls(texts, names, np.stack([np.isin(np.arange(len(labels)), some).astype(np.int64) for some in yes]))

    @property
    def inputs(self) -> Sequence[str | tuple[str, str]]:
        """What contenders are given."""
        return self.texts

    def __len__(self) -> int:
        return len(self.texts)

    def right(self, answers: Sequence[Label]) -> int:
        """How many of these answers are as labelled."""
        return sum(answer == label for answer, label in zip(answers, self.labels, strict=True))

    def f1(self, answers: Sequence[Label]) -> float | None:
        """Of entities, of which texts have none: `None`."""
        return None


def read_labelled(
    file: str, labels: Sequence[str], *, multi_label: bool = False, columns: Columns | None = None
) -> Labelled:
    """Read a labelled jsonl, csv or parquet file.

    Args:
        file: its path.
        labels: names of the bundle's labels.
        multi_label: an example may have any number of labels.
        columns: `Columns()` if left out.

    Raises:
        DataError: a line without a text or label, or with a label that the bundle does not know, by its number.
    """
    columns = columns or Columns()
    numbers = {label: number for number, label in enumerate(labels)}
    texts: list[str | tuple[str, str]] = []
    found: list[tuple[str, ...]] = []
    for example in read_examples(
        file, text_column=columns.text, pair_column=columns.pair, label_column=columns.label, require_label=True
    ):
        if example.text is None or example.label is None:  # only where bad lines are let pass, and here they are not
            raise DataError(f"{file}, line {example.line}: there must be a text and a label; correct the line")
        several = example.label if isinstance(example.label, tuple) else (example.label,)
        _check(file, example.line, several, numbers, multi_label=multi_label)
        texts.append(example.text)
        found.append(several)
    return Labelled.of(texts, found, labels, multi_label=multi_label)


def _check(file: str, line: int, several: tuple[str, ...], numbers: Mapping[str, int], *, multi_label: bool) -> None:
    unknown = [label for label in several if label not in numbers]
    if unknown:
        known = ", ".join(list(numbers)[:8]) + (", ..." if len(numbers) > 8 else "")
        raise DataError(
            f"{file}, line {line}: labels must be the bundle's ({known}), was: {unknown[0]!r}; "
            "rename the file's labels, or give the file that the bundle was made for"
        )
    if not multi_label and len(several) != 1:
        raise DataError(
            f"{file}, line {line}: there must be exactly one label, were: {len(several)}; "
            "the bundle's labels exclude each other"
        )

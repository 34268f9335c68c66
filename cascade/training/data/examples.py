"""Texts with labels and sentences with tags, from files, every fault named by its line."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

from cascade.exceptions import DataError
from cascade.text.entity_f1 import has_entities
from cascade.text.reading import Columns, TagColumns, read_examples
from cascade.text.records import FileFormat
from cascade.text.sources import format_of

Item: TypeAlias = "str | tuple[str, str] | list[str]"
"""A text, a pair of texts, or a sentence as a list of words."""


@dataclass(frozen=True)
class Examples:
    """Items and their labels, in the order of the file.

    Attributes:
        items: texts, pairs, or sentences as lists of words.
        labels: a name per text, a tuple of names for several labels or for a sentence's tags; None unless all items
            have them.
        source: for messages: the file.
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


def read_texts(source: str | Path, *, columns: Columns | None = None, require_labels: bool = True) -> Examples:
    """Read a jsonl, csv, parquet or text file.

    Raises:
        DataError: no such file; an unlabelled or malformed line, by its number.
    """
    columns = columns or Columns()
    found = read_examples(
        Path(source),
        text_column=columns.text,
        pair_column=columns.pair,
        label_column=columns.label,
        label_separator=columns.separator,
        require_label=require_labels,
    )
    return _examples(source, [(example.text, example.label) for example in found])


def read_sentences(source: str | Path, *, columns: TagColumns | None = None, require_labels: bool = True) -> Examples:
    """Read a jsonl or parquet file.

    Text files serve where tags are not required: a sentence per line, its words separated by spaces. Sentences without
    words are left out.

    Raises:
        DataError: no such file; a malformed line, or one whose tags are missing or not one per word, by its number.
    """
    columns = columns or TagColumns()
    if format_of(Path(source)) is FileFormat.TEXT and not require_labels:
        lines = read_examples(Path(source), label_column=None)
        found: Iterable[tuple[int, Any, Any]] = ((one.line, str(one.text).split(), None) for one in lines)
    else:
        records = read_examples(
            Path(source), tokens_column=columns.tokens, label_column=columns.tags, require_label=require_labels
        )
        found = ((one.line, one.tokens, one.label) for one in records)
    rows = []
    for line, words, tags in found:
        if isinstance(tags, str) or (tags is None and require_labels):
            raise DataError(f"{source}, line {line}: column {columns.tags!r} must be a list of tags, got {tags!r}")
        if tags is not None and len(tags) != len(words):
            raise DataError(
                f"{source}, line {line}: there must be one tag per word, got {len(words)} words, {len(tags)} tags; "
                "correct it or drop it"
            )
        if words:
            rows.append((list(words), tags))
    return _examples(source, rows)


def joined(parts: Sequence[Examples]) -> Examples:
    """Several files as one; with labels where all of them have labels."""
    labelled = all(part.labels is not None for part in parts)
    return Examples(
        items=[item for part in parts for item in part.items],
        labels=[label for part in parts for label in part.labels or ()] if labelled else None,
        source=", ".join(part.source for part in parts),
    )


def cropped(sentences: Examples, *, copies: int, words: int = 11, seed: int = 1) -> Examples:
    """The sentences, and after them random runs of words of each, such as tier 2 reads where tier 1 was unsure.

    `copies` runs of each sentence but of those of a single word; of at most `words` words, drawn evenly from 1 on.
    """
    rng = random.Random(seed)  # noqa: S311  # no secret
    cuts = []
    for number, own in enumerate(sentences.items):
        for _ in range(copies if len(own) > 1 else 0):
            length = rng.randint(1, min(words, len(own) - 1))
            start = rng.randint(0, len(own) - length)
            cuts.append((number, slice(start, start + length)))

    def runs(rows: Sequence[Any]) -> list[Any]:
        return [*rows, *(rows[number][run] for number, run in cuts)]

    labels = None if sentences.labels is None else runs(sentences.labels)
    return replace(sentences, items=runs(sentences.items), labels=labels)


def label_names(examples: Examples) -> list[str]:
    """The names that occur, numbers in numeric and words in alphabetical order.

    Those of spans: `O` first, then by what follows `B-` and `I-`, the `B-` before the `I-`.
    """
    names = set(chain.from_iterable((own,) if isinstance(own, str) else own for own in examples.labels or ()))
    if has_entities(names):
        return sorted(names, key=lambda name: ("", "") if name == "O" else (name[2:], name[:2]))
    return sorted(names, key=int) if all(name.lstrip("-").isdigit() for name in names) else sorted(names)


def _examples(source: str | Path, rows: Sequence[tuple[Any, Any]]) -> Examples:
    if not rows:
        raise DataError(f"{source} must hold at least one example, has none; check the file")
    items, labels = ([*column] for column in zip(*rows, strict=True))
    return Examples(items=items, labels=None if None in labels else labels, source=str(source))

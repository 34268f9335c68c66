"""Labelled sentences for a tagger. It leaves reading the lines to `cascade.text.records`."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cascade.core.rows import IntArray
from cascade.exceptions import DataError, MissingExtraError, OptionError
from cascade.policies.viterbi import Scheme
from cascade.text import records
from cascade.text.records import READERS, FileFormat, LineError, StreamError

__all__ = ["TagColumns", "Tagged", "entity_f1", "read_tagged"]

FORMATS = {".jsonl": FileFormat.JSONL, ".ndjson": FileFormat.JSONL, ".parquet": FileFormat.PARQUET}
Tags = Sequence[Sequence[str]]


@dataclass(frozen=True)
class TagColumns:
    """What the columns of a file are called; each holds a list per line."""

    tokens: str = "tokens"
    tags: str = "tags"


@dataclass(frozen=True, eq=False)
class Tagged:
    """Sentences of words and the right tag of each.

    Attributes:
        sentences: lists of words.
        tags: lists of tags.
        targets: number of each word's tag among the bundle's labels. Shape `(words,)`.
        entities: the tags are BIO, so that entities can be counted.
    """

    unit: ClassVar[str] = "words"

    sentences: list[list[str]]
    tags: list[list[str]]
    targets: IntArray
    entities: bool = field(default=False)

    @classmethod
    def of(cls, sentences: list[list[str]], tags: list[list[str]], labels: Sequence[str]) -> Tagged:
        """Sentences with their tags. `labels`: names of the bundle's labels, the tags among them."""
        numbers = {label: number for number, label in enumerate(labels)}
        targets = np.fromiter(map(numbers.__getitem__, chain.from_iterable(tags)), dtype=np.int64)
        return cls(sentences, tags, targets, entities=_is_bio(labels))

    @property
    def inputs(self) -> Sequence[list[str]]:
        """What contenders are given."""
        return self.sentences

    def __len__(self) -> int:
        return len(self.targets)

    def right(self, answers: Tags) -> int:
        """How many of these tags are as labelled."""
        pairs = zip(answers, self.tags, strict=True)
        return sum(one == two for some, own in pairs for one, two in zip(some, own, strict=True))

    def f1(self, answers: Tags) -> float | None:
        """Of entities (seqeval's, in [0, 1]); `None` where tags are not BIO, or without the `bench` extra."""
        known = self.entities and importlib.util.find_spec("seqeval") is not None
        return entity_f1(self.tags, answers) if known else None


def entity_f1(right: Tags, answers: Tags) -> float:
    """Micro-averaged F1 of whole entities as seqeval counts them, in [0, 1].

    Raises:
        MissingExtraError: without the `bench` extra.
    """
    try:
        from seqeval.metrics import f1_score
    except ImportError as error:
        raise MissingExtraError(
            f'entity F1 needs the bench extra, but {error.name} is missing; pip install "cascade-encoder[bench]"'
        ) from error
    return float(f1_score([*map(list, right)], [*map(list, answers)], zero_division=0))


def read_tagged(file: str, labels: Sequence[str], *, columns: TagColumns | None = None) -> Tagged:
    """Read a jsonl or parquet file of labelled sentences. Those without words are left out.

    Args:
        file: its path.
        labels: names of the bundle's labels.
        columns: `TagColumns()` if left out.

    Raises:
        DataError: a file without words, or a line without words and as many tags, or with a tag that the bundle does
            not know, by its number.
        OptionError: a file of another format.
        MissingExtraError: parquet without pyarrow.
    """
    columns = columns or TagColumns()
    path = Path(file)
    if not path.is_file():
        raise DataError(f"{path} must be a file of labelled sentences, but it is missing; check the path")
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise OptionError(f"the suffix of a file must be one of {', '.join(FORMATS)}, was: {path.name}; rename it")
    numbers = {label: number for number, label in enumerate(labels)}
    sentences: list[list[str]] = []
    tags: list[list[str]] = []
    needed = records.Columns(columns.tokens, columns.tags, pair_required=True, label=None, label_required=False)
    try:
        with path.open("rb") as stream:
            for line, record in READERS[kind](stream, needed):
                try:
                    words, own = _sentence(record, columns, numbers)
                except LineError as fault:
                    raise DataError(f"{path}, line {line}: {fault}; correct the line") from None
                if words:
                    sentences.append(words)
                    tags.append(own)
    except StreamError as fault:
        raise DataError(f"{path}: {fault}") from None
    if not sentences:
        raise DataError(f"{path} must hold at least one word, but it holds none; check the file")
    return Tagged.of(sentences, tags, labels)


def _sentence(
    record: Mapping[str, Any] | LineError, columns: TagColumns, numbers: Mapping[str, int]
) -> tuple[list[str], list[str]]:
    if isinstance(record, LineError):
        raise record
    missing = records.Columns(columns.tokens, columns.tags, True, None, False).missing(record)
    if missing:
        raise LineError(missing)
    words, tags = record[columns.tokens], record[columns.tags]
    for name, values in ((columns.tokens, words), (columns.tags, tags)):
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise LineError(f"{name} must be a list of strings, was: {str(values)[:60]}")
    if len(words) != len(tags):
        raise LineError(f"there must be a tag for each word, were: {len(words)} words and {len(tags)} tags")
    unknown = [tag for tag in tags if tag not in numbers]
    if unknown:
        known = ", ".join(list(numbers)[:8]) + (", ..." if len(numbers) > 8 else "")
        raise LineError(f"tags must be the bundle's ({known}), was: {unknown[0]!r}")
    return words, tags


def _is_bio(labels: Sequence[str]) -> bool:
    try:
        Scheme.of(labels)
    except OptionError:
        return False
    return True

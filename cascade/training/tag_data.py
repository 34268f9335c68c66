"""Tagged sentences from jsonl and parquet files and from `datasets`, every fault named by its line."""

from __future__ import annotations

import random
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from cascade.exceptions import DataError, OptionError
from cascade.text.reading import TagColumns
from cascade.text.records import READERS, FileFormat, LineError, StreamError
from cascade.text.records import Columns as RecordColumns
from cascade.training.data import load_named, named

__all__ = [
    "Sentences",
    "TagColumns",
    "cropped",
    "has_entities",
    "joined",
    "label_names",
    "read",
]

FORMATS = {
    ".jsonl": FileFormat.JSONL,
    ".ndjson": FileFormat.JSONL,
    ".parquet": FileFormat.PARQUET,
    ".txt": FileFormat.TEXT,
}


@dataclass(frozen=True)
class Sentences:
    """Words and their tags, in the order of the file.

    Attributes:
        words: of each sentence.
        tags: one per word; None where the data have none.
        source: for messages: the file or data set.
    """

    words: Sequence[Sequence[str]]
    tags: Sequence[Sequence[str]] | None
    source: str

    def __len__(self) -> int:
        return len(self.words)


def read(source: str | Path, *, columns: TagColumns | None = None, require_tags: bool = True) -> Sentences:
    """Read a jsonl or parquet file, or a split of a `datasets` name (`name:split`, split `train` by default).

    Text files serve where tags are not required: a sentence per line, its words separated by spaces.

    Raises:
        DataError: no such file or data set; a malformed line, or one whose tags are missing or not one per word, by
            its number.
    """
    columns = columns or TagColumns()
    path = Path(source)
    if not path.exists() and path.suffix not in (*FORMATS, ".csv", ".json", ".tsv"):
        records = _from_datasets(str(source), columns)
    else:
        records = _from_file(path, columns, require_tags)
    words, tags = [], []
    for place, record in records:
        try:
            own = _strings(record.get(columns.tokens), columns.tokens, "words")
            given = record.get(columns.tags)
            found = None
            if given is not None or require_tags:
                found = _strings(given, columns.tags, "tags")
                if len(found) != len(own):
                    raise LineError(f"there must be one tag per word, there were {len(own)} words, {len(found)} tags")
        except LineError as fault:
            raise DataError(f"{source}, {place}: {fault}; correct it or drop it") from None
        if own:
            words.append(own)
            tags.append(found)
    if not words:
        raise DataError(f"{source} must hold at least one sentence with words, has none; check the file")
    known = [own for own in tags if own is not None]
    return Sentences(words=words, tags=known if len(known) == len(words) else None, source=str(source))


def joined(parts: Sequence[Sentences]) -> Sentences:
    """Several files as one; with tags where all of them have tags."""
    tagged = all(part.tags is not None for part in parts)
    return Sentences(
        words=[own for part in parts for own in part.words],
        tags=[own for part in parts for own in part.tags or ()] if tagged else None,
        source=", ".join(part.source for part in parts),
    )


def cropped(sentences: Sentences, *, copies: int, words: int = 11, seed: int = 1) -> Sentences:
    """The sentences, and after them random runs of words of each: what tier 2 reads where tier 1 was unsure.

    Args:
        sentences: stay as they are.
        copies: runs of each sentence; none of one that is a single word.
        words: of a run at most; its length is drawn evenly from 1 on.
        seed: of the draws.
    """
    rng = random.Random(seed)  # noqa: S311  # no secret
    cuts = []
    for number, own in enumerate(sentences.words):
        for _ in range(copies if len(own) > 1 else 0):
            length = rng.randint(1, min(words, len(own) - 1))
            start = rng.randint(0, len(own) - length)
            cuts.append((number, start, start + length))

    def runs(rows: Sequence[Sequence[str]]) -> list[Sequence[str]]:
        return [*rows, *(rows[number][start:stop] for number, start, stop in cuts)]

    tags = None if sentences.tags is None else runs(sentences.tags)
    return Sentences(words=runs(sentences.words), tags=tags, source=sentences.source)


def label_names(sentences: Sentences) -> list[str]:
    """The names that occur: `O` first, then by what stands behind `B-` and `I-`, the `B-` before the `I-`."""
    names = set(chain.from_iterable(sentences.tags or ()))
    if not has_entities(names):
        return sorted(names)
    return sorted(names, key=lambda name: ("", "") if name == "O" else (name[2:], name[:2]))


def has_entities(names: Sequence[str] | set[str]) -> bool:
    """Whether these are the labels of spans: `O`, `B-...`, `I-...`, and at least one that begins a span."""
    return all(name == "O" or name[:2] in ("B-", "I-") for name in names) and any(name[:2] == "B-" for name in names)


def _strings(value: object, column: str, what: str) -> list[str]:
    if value is None:
        raise LineError(f"there must be a column {column!r} with a list of {what}, there was none")
    if not isinstance(value, list):
        raise LineError(
            f"column {column!r} must be a list of {what}, was: {type(value).__name__} ({reprlib.repr(value)})"
        )
    for one in value:
        if not isinstance(one, str):
            raise LineError(f"column {column!r} must hold strings, held: {type(one).__name__} ({reprlib.repr(one)})")
    return value


def _from_file(path: Path, columns: TagColumns, require_tags: bool) -> list[tuple[str, Mapping[str, Any]]]:
    if not path.is_file():
        what = "a folder" if path.is_dir() else "missing"
        raise DataError(f"{path} must be a file of tagged sentences, but it is {what}; check the path")
    form = FORMATS.get(path.suffix.lower())
    if form is None or (form is FileFormat.TEXT and require_tags):
        known = ", ".join(suffix for suffix, one in FORMATS.items() if one is not FileFormat.TEXT or not require_tags)
        raise OptionError(f"the suffix of a file of sentences must be one of {known}, was: {path.name}; convert it")
    wanted = RecordColumns(columns.tokens, "", False, columns.tags, require_tags)
    found: list[tuple[str, Mapping[str, Any]]] = []
    try:
        with path.open("rb") as stream:
            for line, record in READERS[form](stream, wanted):
                if isinstance(record, LineError):
                    raise DataError(f"{path}, line {line}: {record}; correct it or drop it")
                text = form is FileFormat.TEXT
                found.append((f"line {line}", {columns.tokens: record[columns.tokens].split()} if text else record))
    except StreamError as fault:
        raise DataError(f"{path}: {fault}") from None
    except OSError as error:
        raise DataError(f"{path} must be readable, but: {error.strerror}; check its permissions") from None
    return found


def _from_datasets(source: str, columns: TagColumns) -> list[tuple[str, Mapping[str, Any]]]:
    """Sentences of a split of a `datasets` data set; class numbers become their names."""
    table = load_named(source)
    if columns.tokens not in table.column_names:
        raise DataError(f"{source} must have the column {columns.tokens}, has: {', '.join(table.column_names)}")
    words = list(table[columns.tokens])
    tags: list[Any] = [None] * len(words)
    if columns.tags in table.column_names:
        tags = [own and list(own) for own in named(table[columns.tags], table.features[columns.tags])]
    return [
        (f"sentence {position}", {columns.tokens: own, columns.tags: tag})
        for position, (own, tag) in enumerate(zip(words, tags, strict=True), start=1)
    ]

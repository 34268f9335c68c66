"""Tagged sentences, from files to token ids that know where each word begins.

A word is tokenized by itself, as transformers does with `is_split_into_words`; a word that the tokenizer drops becomes
the unknown token, and a sentence that is too long becomes several rows, cut between words. So each word has one first
piece in one row, and its label stands there.

It leaves to others: lines and records (`cascade.records`), batches' order (`loop`), losses (`tag_exits`).
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from cascade.batch import BoolArray, IntArray
from cascade.exceptions import DataError, OptionError
from cascade.records import READERS, FileFormat, LineError, StreamError
from cascade.records import Columns as RecordColumns
from cascade.training.data import Pad, Rows, load_named, named

__all__ = [
    "NO_LABEL",
    "PadTags",
    "Sentences",
    "TagColumns",
    "WordTokenizer",
    "encode",
    "has_entities",
    "joined",
    "label_names",
    "read",
    "words_of",
]

NO_LABEL = -100  # at tokens that are no word's first piece, and at words without a label
FORMATS = {
    ".jsonl": FileFormat.JSONL,
    ".ndjson": FileFormat.JSONL,
    ".parquet": FileFormat.PARQUET,
    ".txt": FileFormat.TEXT,
}
UNKNOWN = ("[UNK]", "<unk>")  # where a tokenizer's model names no unknown token


@dataclass(frozen=True)
class TagColumns:
    """Names of the columns of a file of tagged sentences."""

    tokens: str = "tokens"
    tags: str = "tags"


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


def words_of(sentences: Sentences) -> list[str]:
    """Every word, one after the other."""
    return list(chain.from_iterable(sentences.words))


def label_names(sentences: Sentences) -> list[str]:
    """The names that occur: `O` first, then by what stands behind `B-` and `I-`, the `B-` before the `I-`."""
    names = set(chain.from_iterable(sentences.tags or ()))
    if not has_entities(names):
        return sorted(names)
    return sorted(names, key=lambda name: ("", "") if name == "O" else (name[2:], name[:2]))


def has_entities(names: Sequence[str] | set[str]) -> bool:
    """Whether these are the labels of spans: `O`, `B-...`, `I-...`, and at least one that begins a span."""
    return all(name == "O" or name[:2] in ("B-", "I-") for name in names) and any(name[:2] == "B-" for name in names)


class WordTokenizer:
    """Words to pieces, each by itself, with what stands around a sentence.

    Attributes:
        text: of the `tokenizer.json`. Byte-level ones are told to take every word as if a space stood before it, as
            they must for words that are split already.
        prefix, suffix: special tokens before and after a sentence.
        unknown: id of the token for words without pieces.
    """

    def __init__(self, text: str) -> None:
        self.text = _with_spaces(text)
        self._inner = Tokenizer.from_str(self.text)
        self._inner.no_padding()
        self._inner.no_truncation()
        whole = self._inner.encode(["a"], is_pretokenized=True)
        places = [place for place, word in enumerate(whole.word_ids) if word is not None]
        if not places:
            raise OptionError("the tokenizer must have pieces for plain letters, has none for: a; choose another")
        self.prefix, self.suffix = whole.ids[: places[0]], whole.ids[places[-1] + 1 :]
        self.unknown = self._find_unknown()
        self._known: dict[str, list[int]] = {}

    def pieces(self, word: str) -> list[int]:
        """Token ids of one word, at least one."""
        found = self._known.get(word)
        if found is None:
            clean = word.encode("utf-8", "replace").decode("utf-8")  # the Rust tokenizer takes no lone surrogates
            found = self._inner.encode([clean], is_pretokenized=True, add_special_tokens=False).ids or [self.unknown]
            self._known[word] = found
        return found

    def _find_unknown(self) -> int:
        named_token = getattr(self._inner.model, "unk_token", None)
        for token in (*([named_token] if named_token else []), *UNKNOWN):
            number = self._inner.token_to_id(token)
            if number is not None:
                return int(number)
        raise OptionError(f"the tokenizer must have an unknown token, has none of: {', '.join(UNKNOWN)}; add one")


def encode(tokenizer: WordTokenizer, sentences: Sentences, names: Sequence[str], *, max_length: int) -> Rows:
    """Token ids with special tokens, and where words begin.

    Sentences longer than `max_length` tokens become several rows, a word longer than a row loses its last pieces.

    Returns:
        rows with the targets `labels` (numbers, `NO_LABEL` where there is none) and `firsts` (True at the first
        piece of a word), both of shape `(tokens of the row,)`.

    Raises:
        DataError: a tag that is not among the names, with its sentence's number.
    """
    room = max_length - len(tokenizer.prefix) - len(tokenizer.suffix)
    if room < 1:
        raise OptionError(
            f"--max-length must leave room for a word, at least {max_length - room + 1}, was: {max_length}"
        )
    numbers = {name: number for number, name in enumerate(names)}
    ids: list[list[int]] = []
    labels: list[IntArray] = []
    firsts: list[BoolArray] = []
    for position, words in enumerate(sentences.words):
        own = [NO_LABEL] * len(words)
        if sentences.tags is not None:
            own = [numbers.get(tag, NO_LABEL) for tag in sentences.tags[position]]
            if NO_LABEL in own:
                unknown = sentences.tags[position][own.index(NO_LABEL)]
                raise DataError(
                    f"{sentences.source}: sentence {position + 1} has the tag {unknown!r}, which the model's labels do "
                    f"not have ({len(names)} labels: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}); "
                    "correct it, or train on data that have it"
                )
        pieces = [tokenizer.pieces(word)[:room] for word in words]
        for start, stop in _cuts([len(piece) for piece in pieces], room):
            row = [*tokenizer.prefix, *chain.from_iterable(pieces[start:stop]), *tokenizer.suffix]
            places = np.cumsum([len(tokenizer.prefix), *(len(piece) for piece in pieces[start : stop - 1])])
            begins = np.zeros(len(row), dtype=np.bool_)
            begins[places] = True
            wanted = np.full(len(row), NO_LABEL, dtype=np.int64)
            wanted[places] = own[start:stop]
            ids.append(row)
            firsts.append(begins)
            labels.append(wanted)
    return Rows(ids=ids, targets={"labels": labels, "firsts": firsts})


@dataclass(frozen=True)
class PadTags:
    """Collates rows to the longest of them.

    `labels` and `firsts` are padded to shape `(rows, longest)`; every other target has an entry per word, and
    becomes one tensor of the words of all rows, in the order in which `firsts` counts them.
    """

    padding: int

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        batch = Pad(self.padding)([{"input_ids": item["input_ids"]} for item in items])
        shape = batch["input_ids"].shape
        batch["labels"] = torch.full(shape, NO_LABEL)
        batch["firsts"] = torch.zeros(shape, dtype=torch.bool)
        for row, item in enumerate(items):
            for name in ("labels", "firsts"):
                batch[name][row, : len(item[name])] = torch.from_numpy(item[name])
        for name in items[0].keys() - {"input_ids", "labels", "firsts"}:
            batch[name] = torch.from_numpy(np.concatenate([item[name] for item in items]))
        return batch


def _cuts(sizes: Sequence[int], room: int) -> list[tuple[int, int]]:
    """Runs of words, first and last + 1, of at most `room` pieces each."""
    found, start, taken = [], 0, 0
    for word, size in enumerate(sizes):
        if taken + size > room:
            found.append((start, word))
            start, taken = word, 0
        taken += size
    return [*found, (start, len(sizes))]


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


def _with_spaces(text: str) -> str:
    """A `tokenizer.json` whose byte-level pre-tokenizer, if it has one, puts a space before each word."""
    spec: dict[str, Any] = json.loads(text)
    outer = spec.get("pre_tokenizer") or {}
    for part in (outer, *outer.get("pretokenizers", ())):
        if part.get("type") == "ByteLevel":
            part["add_prefix_space"] = True
    return json.dumps(spec, ensure_ascii=False)

"""Files of labelled texts or tagged sentences, read whole: to train with, to calibrate, to measure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cascade.exceptions import DataError
from cascade.text.reading import Example, read_examples
from cascade.text.records import FileFormat
from cascade.text.sources import format_of


@dataclass(frozen=True)
class Columns:
    """What the columns of a file are called.

    Attributes:
        text_column: the texts.
        pair_column: second texts, if any.
        label_column: the labels; label by default, of a tagger tags.
        label_separator: between several labels in one string, as in a csv: a|c.
        tokens_column: of a tagger, in jsonl and parquet: the lists of words.
    """

    text_column: str = "text"
    pair_column: str = "text_pair"
    label_column: str | None = None
    label_separator: str | None = None
    tokens_column: str = "tokens"

    def label(self, *, words: bool) -> str:
        """The column of labels, or of tags."""
        return self.label_column or ("tags" if words else "label")

    def of(self, *, words: bool) -> dict[str, Any]:
        """The same for `read_examples`. `words`: lists of them are read, not texts."""
        tokens = self.tokens_column if words else None
        return asdict(self) | {"label_column": self.label(words=words), "tokens_column": tokens}


def read_labelled(
    source: str | Path, *, words: bool = False, columns: Columns | None = None, require_labels: bool = False
) -> list[Example]:
    """The texts of a file, or with `words` its sentences; those without words are left out.

    Where tags are not required a text file serves too: a sentence per line, its words separated by spaces. No such
    file, nothing in it, a malformed line, one without a label that is required, or without a tag for each word, is a
    `DataError`.
    """
    columns = columns or Columns()
    if words and not require_labels and format_of(Path(source)) is FileFormat.TEXT:
        lines = read_examples(Path(source), label_column=None)
        read = [replace(line, text=None, tokens=str(line.text).split()) for line in lines]
    else:
        read = list(read_examples(Path(source), **columns.of(words=words), require_label=require_labels))
    for line in read if words else ():
        tags, count, where = line.label, len(line.tokens or ()), f"{source}, line {line.line}"
        if isinstance(tags, str):
            raise DataError(f"{where}: column {columns.label(words=True)!r} must be a list of tags, got {tags!r}")
        if tags is not None and len(tags) != count:
            raise DataError(
                f"{where}: there must be one tag per word, got {count} words, {len(tags)} tags; correct it or drop it"
            )
    found = [line for line in read if line.tokens != []]
    if not found:
        raise DataError(f"{source} must hold at least one example, has none; check the file")
    return found

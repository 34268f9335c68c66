"""The examples of `cascade calibrate`: read, checked against a bundle's labels, and doubts about them in words.

A certificate assumes examples that come as those in use will and that the models have not seen. What can be told of
that is told: repeated examples, labels without any, files that the bundle knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cascade.bundle.manifest import Manifest
from cascade.core.rows import IntArray
from cascade.exceptions import DataError
from cascade.text.reading import Example, read_examples

SHOWN = 8


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts with or without labels.

    Attributes:
        texts: texts or pairs.
        truth: number of the label of each, or zeros and ones for independent labels; `None` where no text has any.
    """

    texts: list[str | tuple[str, str]]
    truth: IntArray | None

    @classmethod
    def read(
        cls,
        file: Path,
        labels: Sequence[str],
        *,
        multi_label: bool,
        text_column: str,
        pair_column: str,
        label_column: str | None,
        progress: Callable[[Iterator[Example]], Iterator[Example]],
    ) -> Texts:
        """Read a file.

        Args:
            file: jsonl, csv, parquet, or lines of text, which have no labels.
            labels: the bundle's.
            multi_label: a text may have any number of labels.
            text_column: see `reading.read_examples`, as of the next two.
            pair_column: of second texts.
            label_column: `None`: labels are not read.
            progress: wraps the lines as they are read.

        Raises:
            DataError: a line that cannot be read, some labelled and some not, or a label that the bundle lacks.
        """
        lines, texts, found = [], [], []
        numbers = {label: number for number, label in enumerate(labels)}
        examples = read_examples(str(file), text_column=text_column, pair_column=pair_column, label_column=label_column)
        for example in progress(examples):
            if example.text is None:  # only where bad lines are let pass, and here they are not
                continue
            lines.append(example.line)
            texts.append(example.text)
            label = (example.label,) if isinstance(example.label, str) else example.label
            if label is not None:
                _check(file, example.line, label, numbers, multi_label=multi_label)
            found.append(label)
        missing = [line for line, label in zip(lines, found, strict=True) if label is None]
        truth = None
        if not missing:
            truth = _numbered([label or () for label in found], numbers, multi_label=multi_label)
        elif len(missing) < len(lines):
            raise DataError(
                f"{file}, line {missing[0]}: every text must have a label, or none, was: {len(missing)} of "
                f"{len(lines)} without; label them, or take them out"
            )
        return cls(texts, truth)


@dataclass(frozen=True, eq=False)
class Sentences:
    """Sentences of words with or without tags.

    Attributes:
        words: of each sentence.
        truth: the tag of each word; `None` where no sentence has any.
    """

    words: list[list[str]]
    truth: list[list[str]] | None

    @classmethod
    def read(
        cls,
        file: Path,
        *,
        tokens_column: str,
        tags_column: str | None,
        progress: Callable[[Iterator[Example]], Iterator[Example]],
    ) -> Sentences:
        """Read a file.

        Args:
            file: jsonl or parquet.
            tokens_column: lists of words.
            tags_column: lists of tags; `None`: they are not read.
            progress: wraps the lines as they are read.

        Raises:
            DataError: a line that cannot be read, or some with tags and some without.
        """
        words, tags, without = [], [], []
        for example in progress(read_examples(str(file), tokens_column=tokens_column, label_column=tags_column)):
            words.append(example.tokens or [])
            given = [example.label] if isinstance(example.label, str) else list(example.label or ())
            tags.append(given)
            if example.label is None and example.tokens:
                without.append(example.line)
        if without and len(without) < len(words):
            raise DataError(
                f"{file}, line {without[0]}: every sentence must have tags, or none, was: {len(without)} of "
                f"{len(words)} without; tag them, or take them out"
            )
        return cls(words, None if without else tags)


def known_files(manifest: Manifest, *, name: str, sha256: str) -> tuple[str, ...]:
    """Whether a bundle says that it has seen a file, by hash or, where it knows none, by name.

    Looked at are `figures`, wherever a file stands in them, and the data of a certificate.

    Args:
        manifest: of the bundle.
        name: of the file, without its folder.
        sha256: of its bytes.

    Returns:
        Doubts, each a sentence without a full stop.
    """
    if manifest.certificate is not None and manifest.certificate.data.sha256 == sha256:
        return (
            (
                "these examples certified this bundle before: a claim that is asked for more than once is false more "
                "often than the confidence says"
            ),
        )
    seen = sorted(set(_mentions(manifest.figures, name=name, sha256=sha256)))
    if "sha256" in {kind for kind, _ in seen}:
        places = ", ".join(place for kind, place in seen if kind == "sha256")
        return (f"the bundle was made with these very examples ({places}), so they tell less than unseen ones",)
    if seen:
        places = ", ".join(place for _, place in seen)
        return (
            (
                f"the bundle was made with a file of the same name ({places}); no hash is kept, so nobody can tell "
                "whether it is this one"
            ),
        )
    return ()


def _mentions(value: object, *, name: str, sha256: str, place: str = "figures") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _mentions(inner, name=name, sha256=sha256, place=f"{place}.{key}")
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _mentions(inner, name=name, sha256=sha256, place=place)
    elif isinstance(value, str) and value == sha256:
        yield "sha256", place
    elif isinstance(value, str) and Path(value).name == name:
        yield "name", place


def _check(file: Path, line: int, several: Sequence[str], numbers: Mapping[str, int], *, multi_label: bool) -> None:
    unknown = [label for label in several if label not in numbers]
    if unknown:
        known = ", ".join(list(numbers)[:SHOWN]) + (", ..." if len(numbers) > SHOWN else "")
        raise DataError(
            f"{file}, line {line}: labels must be the bundle's ({known}), was: {unknown[0]!r}; rename the file's "
            "labels, or give examples of what the bundle was made for"
        )
    if not multi_label and len(several) != 1:
        raise DataError(
            f"{file}, line {line}: there must be exactly one label, were: {len(several)}; the bundle's labels exclude "
            "each other"
        )


def _numbered(found: Sequence[Sequence[str]], numbers: Mapping[str, int], *, multi_label: bool) -> IntArray:
    if not multi_label and len(numbers) > 1:
        return np.array([numbers[label] for (label,) in found], dtype=np.int64)
    truth = np.zeros((len(found), len(numbers)), dtype=np.int64)
    for row, labels in enumerate(found):
        truth[row, [numbers[label] for label in labels]] = 1
    return truth

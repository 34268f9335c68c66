"""The examples of `cascade calibrate`: read, checked against a bundle's labels, and doubts about them in words.

A certificate assumes examples that the models have not seen: files that the bundle knows are told.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cascade.bundle.manifest import Manifest
from cascade.core.labels import as_array, own_names, shortened
from cascade.exceptions import DataError
from cascade.monitoring.shift import MEANING, ShiftDetector
from cascade.pipelines.classifier import Classifier
from cascade.pipelines.profiling import features
from cascade.pipelines.tagger import Tagger
from cascade.text.reading import Example

LOOKED_AT = 1000  # examples, for their kind


@dataclass(frozen=True, eq=False)
class Examples:
    """Texts with or without labels, or sentences with or without tags.

    Attributes:
        items: texts or pairs; of a tagger lists of words.
        truth: number of the label of each text, or zeros and ones for independent labels; of a tagger the tags of each
            sentence. `None` where no example has any.
    """

    items: list[Any]
    truth: Any


def labelled_texts(lines: Iterable[Example], file: Path, labels: Sequence[str], *, multi_label: bool) -> Examples:
    """The texts of a file. `labels`: the bundle's; `multi_label`: a text may have any number of them.

    Raises:
        DataError: a line that cannot be read, some labelled and some not, or a label that the bundle lacks.
    """
    examples, found, without = list(lines), list[tuple[str, ...]](), []
    numbers = {label: number for number, label in enumerate(labels)}
    given = own_names([example.label for example in examples], labels, multi_label=multi_label)
    for example, own in zip(examples, given, strict=True):
        label = (own,) if isinstance(own, str) else own
        if label is None:
            without.append(example.line)
        else:
            _check(file, example.line, label, numbers, multi_label=multi_label)
        found.append(label or ())
    remedy = "write [], or in a csv give --label-separator, where none applies" if multi_label else "label them"
    _all_or_none(file, without, len(examples), "every text must have a label", remedy)
    truth, independent = None, multi_label or len(labels) == 1
    if not without:
        chosen = [[numbers[label] for label in several] for several in found]
        truth = as_array(chosen, len(labels), multi_label=independent, source=file)
    return Examples([example.text for example in examples], truth)


def tagged_sentences(lines: Iterable[Example], file: Path) -> Examples:
    """The sentences of a file; a `DataError` for a line that cannot be read, or some with tags and some without."""
    words, tags, without = [], [], []
    for example in lines:
        words.append(example.tokens or [])
        tags.append([example.label] if isinstance(example.label, str) else list(example.label or ()))
        if example.label is None and example.tokens:
            without.append(example.line)
    _all_or_none(file, without, len(words), "every sentence must have tags", "tag them")
    return Examples(words, None if without else tags)


def known_files(manifest: Manifest, *, name: str, sha256: str, counted: bool) -> tuple[str, ...]:
    """Doubts, where a bundle's figures or certificate say that it has seen a file, by hash or else by name.

    `counted`: what was asked of its examples before is paid for.
    """
    if not counted and manifest.certificate is not None and manifest.certificate.data.sha256 == sha256:
        again = "a claim that is asked for more than once is false more often than the confidence says"
        return (f"these examples certified this bundle before: {again}",)
    figures = json.dumps(manifest.figures, ensure_ascii=False)
    if sha256 in figures:
        return ("the bundle was made with these very examples, so they tell less than unseen ones",)
    if re.search(f'["/]{re.escape(json.dumps(name, ensure_ascii=False)[1:])}', figures):
        unknown = "no hash is kept, so nobody can tell whether it is this one"
        return (f"the bundle was made with a file of the same name; {unknown}",)
    return ()


def _all_or_none(file: Path, without: Sequence[int], total: int, rule: str, remedy: str) -> None:
    if without and len(without) < total:
        raise DataError(
            f"{file}, line {without[0]}: {rule}, or none, got {len(without)} of {total} without; {remedy}, or take "
            "them out"
        )


def _check(file: Path, line: int, several: Sequence[str], numbers: Mapping[str, int], *, multi_label: bool) -> None:
    unknown = [label for label in several if label not in numbers]
    if unknown:
        raise DataError(
            f"{file}, line {line}: labels must be the bundle's ({shortened(list(numbers))}), got {unknown[0]!r}; "
            f"{'give --label-separator if these are several, ' if multi_label else ''}rename the file's "
            "labels, or give examples of what the bundle was made for"
        )
    if not multi_label and len(several) != 1:
        raise DataError(
            f"{file}, line {line}: there must be exactly one label, got {len(several)}; the bundle's labels exclude "
            "each other"
        )


def of_another_kind(pipeline: Classifier | Tagger, items: Sequence[Any]) -> tuple[str, ...]:
    """A doubt, where examples are shown to differ from those of the bundle's profile.

    A thousand are looked at, in an order of their own: files may be sorted.
    """
    profile = pipeline.bundle.manifest.profile
    if profile is None:
        return ()
    random = np.random.default_rng(0)
    some = [items[number] for number in random.permutation(len(items))[:LOOKED_AT].tolist()]
    values = features(pipeline, some, np.zeros(len(some)), profile.slots, random)
    found = ShiftDetector(profile=profile.of_texts()).after(values)
    if found.alarm_at is None:
        return ()
    kind = "these examples are of another kind than those of the bundle's profile"
    return (f"{kind}, most of all by {MEANING[str(found.feature)]}",)
